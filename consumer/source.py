"""The topic, as one member of the consumer group, over aiokafka: ports.Source.

Owns: the consumer's life (connect, join, leave), polling, positions as handed out, commits, the deadline of every call
but a poll's wait for a rebalance, and turning aiokafka's exceptions into SourceError, CommitRefusedError, OutOfRange.
Does not own: batch views (`views`), how they get into aiokafka (`seams`), questions to the brokers (`inquiries`), what
is done with any of it (`worker`).

Invariants:
- What is handed out of a partition starts where the last hand-out ended or where the last seek led. Data fetched before
  a seek or an assignment never comes out: aiokafka drops it, and each item's own start is compared here once more.
- A partition is fetched only after a seek under its present assignment; aiokafka's own idea of where to begin (from
  committed offsets whose top-level error it overlooks) is never used.
- Nothing is awaited between aiokafka's handing over and ours, so a cancelled poll loses nothing.
- Topics are never created.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from consumer import inquiries
from consumer.ports import CommitRefusedError, Fetched, OutOfRange, SourceError
from consumer.seams import ABANDON_SECONDS, BatchConsumer
from consumer.views import BatchView
from shared.kafka import connection_trouble, unreachable
from shared.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from consumer.ports import Committed, Listener, LogRange, TopicIdentity
    from consumer.views import Item

METADATA_MAX_AGE_SECONDS: Final = 30.0  # new partitions are seen after it; aiokafka's default is 5 min
MAX_POLL_INTERVAL_SECONDS: Final = 600.0
# Small answers: what a poll brings is read while the processor's cache has it, blocks the loop for 5 ms and not for 20,
# and is held besides MEMORY_LIMIT_BYTES, eight times as large when it was compressed. Larger ones saved no CPU time.
# No less than a producer's batch has as a rule: of the partitions of an answer only the first is given a larger one.
FETCH_PARTITION_BYTES: Final = 1 << 20
FETCH_BYTES: Final = 4 << 20  # of one answer, all partitions of a broker together

log = get_logger(__name__)


class SourceBrokenError(Exception):
    """A background task of the client has ended: asking again cannot help, the process has to start anew."""


class KafkaSource:
    """ports.Source on one topic. `connect` first (questions work from then on), then `join`, at the end `leave`.

    `connection` is shared.kafka.connection_options' answer. Must be made and used inside one event loop.
    """

    def __init__(
        self,
        *,
        topic: str,
        group: str,
        connection: Mapping[str, object],
        client_id: str = "ticklake-consumer",
        session_timeout_seconds: float = 45.0,
        rebalance_timeout_seconds: float = 60.0,
        request_timeout_seconds: float = 15.0,
        leave_timeout_seconds: float = 10.0,
        fetch_partition_bytes: int = FETCH_PARTITION_BYTES,
    ) -> None:
        self._topic = topic
        self._group = group
        self._request_timeout_seconds = request_timeout_seconds
        self._leave_timeout_seconds = leave_timeout_seconds
        self._options = {
            **connection,
            "client_id": client_id,
            "group_id": group,
            "auto_offset_reset": "none",
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "check_crcs": True,
            "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
            "metadata_max_age_ms": _ms(METADATA_MAX_AGE_SECONDS),
            "max_poll_interval_ms": _ms(MAX_POLL_INTERVAL_SECONDS),
            "session_timeout_ms": _ms(session_timeout_seconds),
            "heartbeat_interval_ms": _ms(min(3.0, session_timeout_seconds / 3)),
            "rebalance_timeout_ms": _ms(rebalance_timeout_seconds),
            # A JoinGroup lasts as long as a rebalance may.
            "request_timeout_ms": _ms(rebalance_timeout_seconds + 10.0),
            "max_partition_fetch_bytes": fetch_partition_bytes,
            "fetch_max_bytes": max(FETCH_BYTES, fetch_partition_bytes),
        }
        self._consumer: BatchConsumer | None = None
        self._inquiries: inquiries.Inquiries | None = None
        self._positions: dict[int, int] = {}
        self._listener_failure: Exception | None = None

    # ---- life ------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Reach a broker. SourceError when none answers in time; to be called again then. Nothing is joined yet."""
        if self._consumer is not None:
            return
        consumer = BatchConsumer(**self._options)
        consumer.client.set_topics([self._topic])  # or metadata is asked for every topic of the cluster
        try:
            async with asyncio.timeout(self._request_timeout_seconds):
                await consumer.start()
        except (KafkaError, TimeoutError, NotImplementedError) as error:
            await consumer.abandon()
            raise SourceError(f"no connection to Kafka: {unreachable(self._options, error)}") from error
        except asyncio.CancelledError:
            await consumer.abandon()
            raise
        self._consumer = consumer
        self._inquiries = inquiries.Inquiries(
            consumer.client,
            topic=self._topic,
            group=self._group,
            timeout_seconds=self._request_timeout_seconds,
            trouble=partial(connection_trouble, self._options),
        )

    def join(self, listener: Listener) -> None:
        """Become a member; the listener is called from now on. A failing listener fails the next poll."""
        self._opened().subscribe([self._topic], listener=_Rebalances(self, listener))

    async def leave(self) -> None:
        """Leave the group and close everything, within the deadline; whatever hangs is cut off. May be called again."""
        consumer, self._consumer, self._inquiries = self._consumer, None, None
        if consumer is None:
            return
        self._positions.clear()
        # A task of its own: aiokafka's `stop` may raise CancelledError, of a fetch that it cancels itself.
        stopping = asyncio.create_task(consumer.stop(), name="leaving the group")
        try:
            await asyncio.wait([stopping], timeout=self._leave_timeout_seconds)
        finally:
            stopping.cancel()
        if not stopping.done() or stopping.cancelled() or stopping.exception():
            log.warning("Left without farewell", group=self._group)
            await consumer.abandon()
            await asyncio.wait([stopping], timeout=ABANDON_SECONDS)

    # ---- records ---------------------------------------------------------------------------------------------------

    async def poll(self, wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        """See ports.Source. Raises SourceBrokenError when the client has died, and what the listener raised."""
        consumer = self._opened()
        self._check(consumer)
        names = [self._name(p) for p in wanted if p in self._positions and self._is_assigned(consumer, p)]
        # Without names aiokafka takes all. One that is never assigned keeps what was fetched, where a pause drops it.
        nothing = [self._name(-1)]
        try:
            drained = await consumer.getmany(*(names or nothing), timeout_ms=_ms(timeout_seconds))
        except OffsetOutOfRangeError as error:
            return self._out_of_range(error)
        except KafkaError as error:
            raise SourceError(f"polling topic {self._topic} failed: {error!r}") from error
        self._check(consumer)
        return [self._handed_out(name.partition, items) for name, items in drained.items() if self._is_ours(name)]

    def seek(self, partition: int, offset: int) -> None:
        consumer = self._consumer
        if consumer is not None and self._is_assigned(consumer, partition):
            consumer.seek(self._name(partition), offset)
            self._positions[partition] = offset

    def high_watermark(self, partition: int) -> int | None:
        consumer = self._consumer
        if consumer is None or not self._is_assigned(consumer, partition):
            return None
        watermark: int | None = consumer.highwater(self._name(partition))
        return watermark

    def _handed_out(self, partition: int, items: Sequence[Item]) -> Fetched:
        start = self._positions[partition]
        if items[0].start != start:
            message = (
                f"partition {partition} of topic {self._topic}: aiokafka continued at offset {items[0].start}, "
                f"not at {start}: seek it"
            )
            raise SourceError(message)
        self._positions[partition] = items[-1].next_offset
        batches = [item for item in items if isinstance(item, BatchView)]
        return Fetched(partition=partition, start=start, next_offset=items[-1].next_offset, batches=batches)

    def _out_of_range(self, error: OffsetOutOfRangeError) -> Sequence[OutOfRange]:
        """One partition a time. An answer to a fetch from before a seek is nobody's business any more."""
        offsets: Mapping[TopicPartition, int] = error.args[0]
        return [
            OutOfRange(partition=name.partition, offset=offset)
            for name, offset in offsets.items()
            if self._positions.get(name.partition) == offset
        ]

    # ---- offsets and questions ---------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[int, Committed]) -> None:
        """All or none: refused as well when one of the partitions is no longer ours."""
        consumer = self._opened()
        if not offsets:
            return
        if lost := sorted(p for p in offsets if not self._is_assigned(consumer, p)):
            raise CommitRefusedError(f"not assigned any more: partitions {lost} of topic {self._topic}")
        if consumer.generation < 0:
            # Evicted, not rejoined: aiokafka would commit as a stranger, which an empty group even accepts.
            raise CommitRefusedError(f"group {self._group} has put us out")
        named = {self._name(p): OffsetAndMetadata(c.offset, c.metadata) for p, c in offsets.items()}
        try:
            async with asyncio.timeout(self._request_timeout_seconds):  # aiokafka retries for ever
                await consumer.commit(named)
        except TimeoutError as error:
            message = f"group {self._group} did not answer a commit within {self._request_timeout_seconds:g} s"
            raise SourceError(message) from error
        except (
            CommitFailedError,
            IllegalGenerationError,
            IllegalStateError,
            RebalanceInProgressError,
            UnknownMemberIdError,
        ) as error:
            raise CommitRefusedError(f"group {self._group} refused a commit: {error!r}") from error
        except KafkaError as error:
            raise SourceError(f"committing to group {self._group} failed: {error!r}") from error

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]:
        return await self._asked().committed(partitions)

    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]:
        return await self._asked().log_ranges(partitions)

    async def identity(self) -> TopicIdentity:
        return await self._asked().identity()

    async def group_has_members(self) -> bool:
        """Whether anyone is in the group, by either of Kafka's group protocols. Ourselves too, once joined."""
        return await self._asked().group_has_members()

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _check(self, consumer: BatchConsumer) -> None:
        if self._listener_failure is not None:
            failure, self._listener_failure = self._listener_failure, None
            raise failure
        if consumer is not self._consumer:
            raise SourceError("the group has been left")
        for task in consumer.tasks():
            if task.done():
                reason = "cancelled" if task.cancelled() else repr(task.exception())
                message = f"aiokafka's {task.get_coro()!r} has ended ({reason}): the process has to start anew"
                raise SourceBrokenError(message)

    def _opened(self) -> BatchConsumer:
        if self._consumer is None:
            raise SourceError("not connected to Kafka")
        return self._consumer

    def _asked(self) -> inquiries.Inquiries:
        if self._inquiries is None:
            raise SourceError("not connected to Kafka")
        return self._inquiries

    def _name(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _is_ours(self, name: TopicPartition) -> bool:
        """Not what aiokafka fetched by itself after a rebalance, before the seek."""
        return name.partition in self._positions

    def _is_assigned(self, consumer: BatchConsumer, partition: int) -> bool:
        return self._name(partition) in consumer.assignment()

    def forget_positions(self) -> None:
        """At a rebalance: whatever was sought or fetched belongs to the old assignment."""
        self._positions.clear()

    def fail_next_poll(self, failure: Exception) -> None:
        self._listener_failure = failure


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's listener in front of ours: partition numbers, positions forgotten, failures kept."""

    def __init__(self, source: KafkaSource, listener: Listener) -> None:
        self._source = source
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._source.forget_positions()
        if revoked:  # none before the first assignment
            try:
                await self._listener.on_revoked(sorted(name.partition for name in revoked))
            except Exception as error:  # noqa: BLE001 # aiokafka would only log it; it is raised from the next poll
                self._source.fail_next_poll(error)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._source.forget_positions()  # seeks from within on_revoked
        try:
            await self._listener.on_assigned(sorted(name.partition for name in assigned))
        except Exception as error:  # noqa: BLE001 # as above
            self._source.fail_next_poll(error)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
