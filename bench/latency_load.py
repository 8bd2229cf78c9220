"""Quotes for the runs of `latency_runs`: laid into a topic at once, or one by one at an even pace.

Owns: what a record is, and when it was handed to the Kafka client. Every quote has a number of its own, so that
whoever reads the objects can tell which is missing and which is there twice.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaProducer

from tests.servers import Produced

if TYPE_CHECKING:
    from types import TracebackType

    from tests.servers import Kafka

PADDING = "x" * 60


def quote(number: int) -> bytes:
    """A quote of about 200 bytes, as compact JSON without a line break."""
    return json.dumps(
        {
            "number": number,
            "ticker": f"T{number % 1000:04}",
            "bid": {"price": f"{100 + number % 97}.25", "size": number % 500},
            "ask": {"price": f"{101 + number % 89}.50", "size": number % 300},
            "day": {"open": 100.5, "high": 104.25, "low": 99.75},
            "note": PADDING,
        },
        separators=(",", ":"),
    ).encode()


async def lay_down(kafka: Kafka, topic: str, *, partitions: int, records: int) -> None:
    """That many quotes, evenly over the partitions."""
    await kafka.produce(
        topic, [Produced(value=quote(number), partition=number % partitions) for number in range(records)]
    )


class Pacer:
    """Sends the quotes of the numbers one after the other from a thread of its own, `per_second` of them.

    Use it as a context manager. `sent` (complete after the block): (partition, offset) → the monotonic second at which
    the record was handed over.
    """

    def __init__(self, kafka: Kafka, topic: str, *, partitions: int, numbers: range, per_second: float) -> None:
        self._kafka = kafka
        self._topic = topic
        self._partitions = partitions
        self._numbers = numbers
        self._period_seconds = 1 / per_second
        self.sent: dict[tuple[int, int], float] = {}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pacer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as failure:  # noqa: BLE001 -- raised again where the thread is joined
            self._failure = failure

    async def _send_all(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap_servers, acks="all")
        await producer.start()
        try:
            began = time.monotonic()
            sending = []
            for index, number in enumerate(self._numbers):
                await asyncio.sleep(max(0.0, began + index * self._period_seconds - time.monotonic()))
                sending.append(asyncio.create_task(self._send(producer, number)))
            await asyncio.gather(*sending)
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, number: int) -> None:
        partition, at = number % self._partitions, time.monotonic()
        done = await (await producer.send(self._topic, quote(number), partition=partition))
        self.sent[partition, done.offset] = at
