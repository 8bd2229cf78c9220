"""A load of records that say who they are, written by an idempotent producer of the harness's own.

Owns: the pace, the records' content, the count of what the broker acknowledged. Does not own: the topic. A batch of
records is one future, so some ten thousand records a second cost the harness little.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from typing import TYPE_CHECKING, Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TICK_SECONDS = 0.02
MAX_LAG_SECONDS = 2.0  # what a held-up harness makes good at most; without a bound an outage would end in a burst
STOP_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 120.0  # above any outage of the broker in a scenario
PADDING_POOL_BYTES = 1 << 16


class _Sent(Protocol):
    base_offset: int


class Load:
    """Records keep arriving inside the `async with` block; all of them are acknowledged at its end.

    Each is JSON: `{"load": name, "partition": p, "n": number within load and partition, …, "pad": "…"}`, at least
    `value_bytes` long. The padding does not compress.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        partitions: Sequence[int],
        records_per_second: float,
        value_bytes: int = 150,
        name: str = "load",
        seed: int = 0,
    ) -> None:
        self.sent = 0  # handed to the producer
        self.acknowledged = 0
        self.failed: list[str] = []  # batches whose fate is unknown to us; the topic tells
        self.records_per_second = records_per_second
        self.partitions = list(partitions)
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._value_bytes = value_bytes
        self._name = name
        self._next = dict.fromkeys(partitions, 0)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        dice = random.Random(seed)
        self._padding = base64.b64encode(dice.randbytes(PADDING_POOL_BYTES)).decode()
        self._dice = dice

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="load")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            await self.abandon()  # the failure is the news; the broker may never acknowledge anything again

    async def stop(self) -> None:
        """No more records; back when the broker has acknowledged all there were."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()

    async def abandon(self) -> None:
        """No more records, and no waiting for what the broker has not acknowledged. May be called at any time."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=STOP_SECONDS + 1)
        for waiting in self._waiting:
            waiting.cancel()

    async def _run(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000),
            max_batch_size=1 << 20,
            max_request_size=4 << 20,
        )
        await producer.start()
        try:
            at, due = time.monotonic(), 0.0
            while not self._stop.is_set():
                now = time.monotonic()
                due += min(now - at, MAX_LAG_SECONDS) * self.records_per_second
                at = now
                each = int(due / len(self.partitions))
                if each:
                    due -= each * len(self.partitions)
                    for partition in self.partitions:
                        await self._send(producer, partition, each)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._stop.wait()
            if self._waiting:
                await asyncio.wait(set(self._waiting), timeout=REQUEST_TIMEOUT_SECONDS)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, partition: int, count: int) -> None:
        while count > 0:
            batch = producer.create_batch()
            taken = 0
            while taken < count:
                n = self._next[partition]
                if batch.append(key=b"S%d" % (n % 50), value=self._value(partition, n), timestamp=None) is None:
                    break
                self._next[partition] = n + 1
                taken += 1
            count -= taken
            self.sent += taken
            future = await producer.send_batch(batch, self._topic, partition=partition)
            task = asyncio.create_task(self._acknowledge(future, partition, taken), name="load acknowledgement")
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _acknowledge(self, future: asyncio.Future[_Sent], partition: int, count: int) -> None:
        try:
            await future
        except (KafkaError, TimeoutError) as error:
            self.failed.append(f"partition {partition}, {count} records: {error!r}")
        else:
            self.acknowledged += count

    def _value(self, partition: int, n: int) -> bytes:
        head = (
            f'{{"load":"{self._name}","partition":{partition},"n":{n},"symbol":"S{n % 50}","price":{n % 997}.25,"pad":"'
        )
        missing = max(0, self._value_bytes - len(head) - 2)
        begin = self._dice.randrange(len(self._padding))
        pad = (self._padding[begin:] + self._padding * (missing // len(self._padding) + 1))[:missing]
        return f'{head}{pad}"}}'.encode()
