"""The loop that people write: httpx and aiokafka, each as its own documentation shows it. For comparison only.

    python -m bench.baselines.stock_producer    settings are the environment variables of `python -m producer`

It fetches, decodes the JSON, sends each record as JSON of its own with its key, waits for all acknowledgements, logs a
line, sleeps. No retry, no cap, no secrets, no readiness, no back-pressure, records not byte for byte: what is left out
would only make it slower.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal

import httpx
from aiokafka import AIOKafkaProducer

log = logging.getLogger("stock_producer")

API_URL = os.environ.get("API_URL", "")
POINTER = os.environ.get("API_RECORDS_POINTER", "").lstrip("/")
TOPIC = os.environ.get("KAFKA_TOPIC", "task")
KEY = os.environ.get("RECORD_KEY_POINTER", "/symbol").lstrip("/")
INTERVAL_SECONDS = float(os.environ.get("POLL_INTERVAL_SECONDS", "2"))
SELECT = os.environ.get("SELECT", "random")


async def poll(client: httpx.AsyncClient, producer: AIOKafkaProducer) -> int:
    """One poll; how many records were acknowledged."""
    response = await client.get(API_URL)
    response.raise_for_status()
    document = response.json()
    records = document[POINTER] if POINTER else document
    if SELECT == "random" and records:
        records = [random.choice(records)]
    sent = [await producer.send(TOPIC, value=record, key=record[KEY]) for record in records]
    await asyncio.gather(*sent)
    return len(sent)


async def main() -> None:
    """Poll until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        enable_idempotence=True,
        acks="all",
        compression_type="zstd",
        key_serializer=str.encode,
        value_serializer=lambda record: json.dumps(record).encode(),
    )
    async with producer, httpx.AsyncClient(timeout=10) as client:
        while not stopped.is_set():
            count = await poll(client, producer)
            if count:
                print(json.dumps({"event": "Message sent", "records": count}), flush=True)  # noqa: T201
            try:
                await asyncio.wait_for(stopped.wait(), INTERVAL_SECONDS)
            except TimeoutError:
                pass  # the next poll is due


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
