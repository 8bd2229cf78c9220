"""An object a record as careful people write it: aiokafka and aioboto3, four puts at a time. For comparison only.

    python -m bench.baselines.original_sink    settings are the environment variables of `python -m consumer`

It polls, puts each record as an object of its own, logs a line when it is stored, waits for the puts of the poll, and
commits only then: nothing is lost. No condition on the put, no validation, no checksum of its own, no retry, no
recovery from a rebalance: what is left out would only make it slower.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import aioboto3
from aiobotocore.config import AioConfig
from aiokafka import AIOKafkaConsumer

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

BUCKET = os.environ.get("S3_BUCKET", "")
CONCURRENCY = int(os.environ.get("UPLOAD_CONCURRENCY", "4"))


async def consume(consumer: AIOKafkaConsumer, s3: object) -> None:
    """Poll, put, commit, until cancelled."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def put(record: ConsumerRecord) -> None:
        key = f"stock_market_{record.timestamp // 1000}_{record.partition}_{record.offset}.json"
        async with slots:
            await s3.put_object(Bucket=BUCKET, Key=key, Body=record.value, ContentType="application/json")  # type: ignore[attr-defined]
        print(json.dumps({"event": "Uploaded", "key": key, "start": record.offset, "next": record.offset + 1}))  # noqa: T201

    while True:
        found = await consumer.getmany(timeout_ms=250)
        records = [record for partition in found.values() for record in partition]
        for record in records:
            print(json.dumps({"event": "Received message", "record": record.value.decode()}))  # noqa: T201
        await asyncio.gather(*(put(record) for record in records))
        if records:
            await consumer.commit()


async def main() -> None:
    """Run until SIGTERM."""
    consumer = AIOKafkaConsumer(
        os.environ["KAFKA_TOPIC"],
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=os.environ["KAFKA_GROUP_ID"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    config = AioConfig(max_pool_connections=CONCURRENCY, s3={"addressing_style": "path"})
    client = aioboto3.Session().client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], config=config)
    async with client as s3, consumer:
        work = asyncio.create_task(consume(consumer, s3))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            pass  # asked to stop: what is not committed is read again by the next start


if __name__ == "__main__":
    asyncio.run(main())
