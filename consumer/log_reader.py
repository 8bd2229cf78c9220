"""The topic's records read by plain offsets, without joining the group: what `verify --deep` compares with.

Owns: one consumer without a group, reading through the same batch views as the one that stored: aiokafka's own path
stops at header names that are not UTF-8 and takes five times the time. That the views see what aiokafka sees is
tests/contract/test_seams.py's to prove. Does not own: what is read when (`deep_audit`).
Invariants: read_committed; records come in offset order, none twice; nothing is committed, no topic created.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from consumer.ports import SourceError
from consumer.seams import BatchConsumer
from consumer.views import BatchView
from shared.kafka import unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from consumer.ports import Record
    from consumer.views import Item

POLL_SECONDS: Final = 0.5
PROGRESS_SECONDS: Final = 60.0  # without a step forward the reading has failed


class LogMovedError(Exception):
    """The offset to be read next is not in the log any more: retention took it meanwhile."""


class LogReader:
    """One partition at a time; `seek` first. Made by `open_log_reader`."""

    def __init__(self, consumer: BatchConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._name = TopicPartition(topic, -1)
        self._ahead: deque[Record] = deque()

    def seek(self, partition: int, offset: int) -> None:
        """The next record read is the first readable one at or after `offset`."""
        name = TopicPartition(self._topic, partition)
        if name != self._name:
            self._consumer.assign([name])
            self._name = name
        self._consumer.seek(name, offset)
        self._ahead.clear()

    async def next_before(self, end: int) -> Sequence[Record]:
        """Some of the next records below `end`; none = there are no more. Raises SourceError and LogMovedError.

        `end` must not be above the last stable offset, which waits for open transactions.
        """
        try:
            async with asyncio.timeout(PROGRESS_SECONDS):
                while not self._ahead:
                    if await self._consumer.position(self._name) >= end:
                        return ()
                    fetched = await self._consumer.getmany(self._name, timeout_ms=int(POLL_SECONDS * 1000))
                    for items in fetched.values():
                        for view in cast("list[Item]", items):
                            if isinstance(view, BatchView):
                                self._ahead.extend(map(view.record, range(len(view.offsets))))
        except OffsetOutOfRangeError as error:
            raise LogMovedError(str(error)) from error
        except KafkaError as error:
            raise SourceError(f"reading {self._where} failed: {error!r}") from error
        except TimeoutError as error:
            raise SourceError(f"reading {self._where} came no further for {PROGRESS_SECONDS:g} s") from error
        below = []
        while self._ahead and self._ahead[0].offset < end:
            below.append(self._ahead.popleft())
        return below

    @property
    def _where(self) -> str:
        return f"partition {self._name.partition} of topic {self._topic}"


@asynccontextmanager
async def open_log_reader(
    topic: str, connection: Mapping[str, object], *, timeout_seconds: float = 15.0
) -> AsyncIterator[LogReader]:
    """A reader with its own connections. SourceError when no broker answers in time."""
    consumer = BatchConsumer(
        **connection,
        client_id="ticklake-verify",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        check_crcs=True,
        request_timeout_ms=int(timeout_seconds * 1000),
    )
    try:
        try:
            async with asyncio.timeout(timeout_seconds):
                await consumer.start()
        except (KafkaError, TimeoutError, NotImplementedError) as error:
            message = f"no connection to Kafka to read topic {topic}: {unreachable(connection, error)}"
            raise SourceError(message) from error
        yield LogReader(consumer, topic)
    finally:
        await _close(consumer, timeout_seconds)


async def _close(consumer: BatchConsumer, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await consumer.stop()
    except (KafkaError, TimeoutError):
        await consumer.abandon()  # nothing was written: there is nothing to lose
