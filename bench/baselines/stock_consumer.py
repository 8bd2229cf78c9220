"""The loop that careful people write: aiokafka and aioboto3, each as its own documentation shows it. For comparison.

    python -m bench.baselines.stock_consumer    settings are the environment variables of `python -m consumer`

It polls, buffers lines by partition, puts an object of gzip (Python's default for a file: level 6 here) when a limit is
reached, compressing in a thread so that heartbeats go on, and commits after the put. No exactly-once: what it has put
and not committed when it dies is put again, under another name where limits fell otherwise. No validation, no hash, no
retry, no readiness: what is left out would only make it slower.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import signal
import time
from dataclasses import dataclass, field

import aioboto3
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from botocore.config import Config

TOPIC = os.environ["KAFKA_TOPIC"]
BUCKET, PREFIX = os.environ["S3_BUCKET"], os.environ.get("S3_PREFIX", "")
MAX_RECORDS = int(os.environ.get("BATCH_MAX_RECORDS", "100000"))
MAX_BYTES = int(os.environ.get("BATCH_MAX_BYTES", "16777216"))
MAX_SECONDS = float(os.environ.get("BATCH_MAX_SECONDS", "60"))
LEVEL = 6


@dataclass(slots=True)
class Buffer:
    """The lines of one partition that are not in the bucket yet."""

    first_offset: int
    next_offset: int = 0
    since: float = field(default_factory=time.monotonic)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return self.size >= MAX_BYTES or len(self.lines) >= MAX_RECORDS or time.monotonic() - self.since >= MAX_SECONDS


class Sink(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Buffers, puts, commits."""

    def __init__(self, consumer: AIOKafkaConsumer, s3: object) -> None:
        self._consumer = consumer
        self._s3 = s3
        self._buffers: dict[TopicPartition, Buffer] = {}

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        _say("Partitions assigned", partitions=[partition.partition for partition in assigned])

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:  # noqa: ARG002 -- all of them: the protocol is eager
        await asyncio.gather(*(self._flush(partition) for partition in list(self._buffers)))

    async def run(self, stopped: asyncio.Event) -> None:
        """Until stopped; then put what is left."""
        while not stopped.is_set():
            for partition, records in (await self._consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    buffer = self._buffers.get(partition)
                    if buffer is None:
                        buffer = self._buffers[partition] = Buffer(first_offset=record.offset)
                    buffer.lines.append(record.value)
                    buffer.size += len(record.value)
                    buffer.next_offset = record.offset + 1
                    if buffer.full:
                        await self._flush(partition)
            due = [partition for partition, buffer in self._buffers.items() if buffer.full]
            await asyncio.gather(*(self._flush(partition) for partition in due))
        await self.on_partitions_revoked([])

    async def _flush(self, partition: TopicPartition) -> None:
        buffer = self._buffers.pop(partition)
        body = await asyncio.to_thread(lambda: gzip.compress(b"\n".join(buffer.lines) + b"\n", LEVEL))
        key = f"{PREFIX}{TOPIC}/{partition.partition:05d}-{buffer.first_offset:020d}.jsonl.gz"
        await self._s3.put_object(Bucket=BUCKET, Key=key, Body=body)  # type: ignore[attr-defined] # aioboto3: no types
        await self._consumer.commit({partition: buffer.next_offset})
        _say("Uploaded", key=key, records=len(buffer.lines), next=buffer.next_offset)


def _say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)  # noqa: T201 -- its log


async def main() -> None:
    """Consume until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    session = aioboto3.Session()
    options = {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3"), "region_name": os.environ.get("AWS_REGION")}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=os.environ["KAFKA_GROUP_ID"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer, session.client("s3", config=Config(s3={"addressing_style": "path"}), **options) as s3:
        sink = Sink(consumer, s3)
        consumer.subscribe([TOPIC], listener=sink)
        await sink.run(stopped)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
