"""Kafka in memory: a log, a consumer group and ports.Source over them, with the behaviour that cost others their data.

Owns: wire batches with gaps, control batches and aborted records, a log whose start moves, eager rebalances, evictions,
commits refused by generation, offsets with metadata, failures on demand. Does not own: time; waiting is on the running
loop's clock, so a virtual one makes it all deterministic (no randomness, no thread, no wall clock).
Passes tests/contract/test_source.py, as the real one does.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict, deque
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from consumer.ports import (
    CommitRefusedError,
    Committed,
    Fetched,
    LogRange,
    OutOfRange,
    Record,
    SourceError,
    TopicIdentity,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from consumer.ports import Listener


@dataclass(frozen=True)
class FakeBatch:
    """ports.WireBatch as plain values."""

    records: tuple[Record, ...]
    next_offset: int

    @cached_property
    def values(self) -> Sequence[bytes | None]:
        return [record.value for record in self.records]

    @cached_property
    def offsets(self) -> Sequence[int]:
        offsets = [record.offset for record in self.records]
        dense = offsets[-1] - offsets[0] == len(offsets) - 1
        return range(offsets[0], offsets[-1] + 1) if dense else offsets

    @cached_property
    def timestamps(self) -> Sequence[int]:
        return [record.timestamp for record in self.records]

    @property
    def max_timestamp(self) -> int:
        return max(self.timestamps)

    @property
    def size_bytes(self) -> int:
        return sum(len(record.value or b"") for record in self.records)

    def record(self, index: int) -> Record:
        return self.records[index]

    def release(self) -> None:
        pass


@dataclass(slots=True)
class _Partition:
    start: int = 0
    end: int = 0
    stable: int | None = None  # the last stable offset, while a transaction is open
    batches: list[FakeBatch] = field(default_factory=list)  # without a record: nothing readable in it

    def append(self, batch: FakeBatch) -> None:
        self.batches.append(batch)
        self.end = batch.next_offset


class FakeLog:
    """One topic. `topic_id` None = the topic does not exist (yet)."""

    def __init__(self, partitions: int = 1, *, compacted: bool = False, topic_id: str | None = "topic-1") -> None:
        self.compacted = compacted
        self.topic_id = topic_id
        self.cluster_id: str | None = "cluster-1"
        self._partitions = [_Partition() for _ in range(partitions)]
        self._changes: dict[asyncio.Future[bool], None] = {}  # in order: whom a change wakes first must not be chance

    def __len__(self) -> int:
        return len(self._partitions)

    def append(self, partition: int, values: Sequence[bytes | None], *, timestamp: int = 0) -> int:
        """One wire batch of records without key or header. Returns the first one's offset."""
        end = self._partitions[partition].end
        records = [
            Record(offset=end + i, timestamp=timestamp, key=None, value=value, headers=())
            for i, value in enumerate(values)
        ]
        return self.append_records(partition, records)

    def append_records(self, partition: int, records: Sequence[Record]) -> int:
        """One wire batch; offsets from the log's end on, gaps allowed."""
        log = self._partitions[partition]
        if records[0].offset < log.end:
            raise ValueError(f"offset {records[0].offset} is below the log's end {log.end}")
        log.append(FakeBatch(tuple(records), records[-1].offset + 1))
        self.changed()
        return records[0].offset

    def append_hidden(self, partition: int, count: int = 1) -> None:
        """`count` offsets without a readable record: a control batch, or aborted records."""
        log = self._partitions[partition]
        log.append(FakeBatch((), log.end + count))
        self.changed()

    def compact(self, partition: int, offsets: Collection[int]) -> None:
        """Take records out; their batches keep their ends."""
        log = self._partitions[partition]
        log.batches = [
            FakeBatch(tuple(r for r in batch.records if r.offset not in offsets), batch.next_offset)
            for batch in log.batches
        ]

    def move_start(self, partition: int, offset: int) -> None:
        """Retention: what is below is gone."""
        log = self._partitions[partition]
        log.start = offset
        log.batches = [batch for batch in log.batches if batch.next_offset > offset]
        self.changed()

    def truncate(self, partition: int, offset: int) -> None:
        """Unclean leader election, or a new topic of the same name: what is at and above is gone. At a batch's end."""
        log = self._partitions[partition]
        log.batches = [batch for batch in log.batches if batch.next_offset <= offset]
        log.end = offset
        self.changed()

    def hold(self, partition: int, offset: int | None) -> None:
        """The last stable offset: an open transaction hides what is at and above. None = no longer."""
        self._partitions[partition].stable = offset
        self.changed()

    def add_partitions(self, count: int) -> None:
        """The groups notice when they are told (FakeGroup.rebalance)."""
        self._partitions += [_Partition() for _ in range(count)]

    def range(self, partition: int) -> LogRange:
        log = self._partitions[partition]
        return LogRange(start=log.start, high_watermark=log.end)

    def read(self, partition: int, position: int, limit: int) -> Fetched | OutOfRange | None:
        """Up to `limit` wire batches from `position` on; None = nothing new there."""
        log = self._partitions[partition]
        if not log.start <= position <= log.end:
            return OutOfRange(partition=partition, offset=position)
        first = bisect_left(log.batches, position + 1, key=lambda batch: batch.next_offset)
        stable = log.end if log.stable is None else log.stable
        found = [batch for batch in log.batches[first : first + limit] if batch.next_offset <= stable]
        if not found:
            return None
        cut = [FakeBatch(tuple(r for r in b.records if r.offset >= position), b.next_offset) for b in found]
        return Fetched(
            partition=partition,
            start=position,
            next_offset=found[-1].next_offset,
            batches=[batch for batch in cut if batch.records],
        )

    def changed(self) -> None:
        """Wake the pollers."""
        for future in self._changes:
            if not future.done():
                future.set_result(True)

    async def wait_for_change(self, deadline: float) -> bool:
        """False at the deadline (of the loop's clock)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._changes[future] = None
        timer = loop.call_at(deadline, lambda: None if future.done() else future.set_result(False))
        try:
            return await future
        finally:
            timer.cancel()
            del self._changes[future]


class FakeGroup:
    """The coordinator of one group on one topic: eager protocol, round robin in order of joining."""

    def __init__(self, log: FakeLog, *, rebalance_timeout_seconds: float = 60.0) -> None:
        self.log = log
        self.offsets: dict[int, Committed] = {}
        self.generation = 0
        self.members: list[FakeSource] = []
        self.rebalances = 0
        self._timeout_seconds = rebalance_timeout_seconds
        self._joined: dict[FakeSource, asyncio.Future[list[int]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._context = copy_context()  # the coordinator's own: it goes on while a member of it stands still

    def enter(self, member: FakeSource) -> None:
        """A new member."""
        self.members.append(member)
        self.rebalance()

    def rebalance(self) -> None:
        """Tell every member to give up what it has and to join anew; who does not in time is put out."""
        for member in self.members:
            member.told_to_rejoin()
        if self._timer is None and self.members:
            self._timer = asyncio.get_running_loop().call_later(
                self._timeout_seconds, self._put_out_laggards, context=self._context
            )
        self._complete()

    def evict(self, member: FakeSource) -> None:
        """Its session has ended: the others take over. It learns of it at its next commit or by `notice`."""
        self.members.remove(member)
        self._joined.pop(member, None)
        self.rebalance()

    def notice(self, member: FakeSource) -> None:
        """An evicted member's heartbeat is answered: it gives up what it believes to have, and joins anew."""
        if member not in self.members:
            member.generation = -1
            self.enter(member)

    def depart(self, member: FakeSource) -> None:
        """A farewell."""
        if member in self.members:
            self.evict(member)

    def join(self, member: FakeSource) -> asyncio.Future[list[int]]:
        """The assignment, when all members have joined."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._joined[member] = future
        self._complete()
        return future

    def _put_out_laggards(self) -> None:
        self._timer = None
        self.members = [member for member in self.members if member in self._joined]
        self._complete()

    def _complete(self) -> None:
        if not self.members or any(member not in self._joined for member in self.members):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.generation += 1
        self.rebalances += 1
        joined, self._joined = self._joined, {}
        for index, member in enumerate(self.members):
            member.generation = self.generation
            if not joined[member].done():
                joined[member].set_result(list(range(index, len(self.log), len(self.members))))


class FakeSource:
    """ports.Source, with KafkaSource's life: connect, join, leave."""

    def __init__(self, group: FakeGroup, *, batches_per_poll: int = 4) -> None:
        self.generation = -1
        self.failures: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self._group = group
        self._log = group.log
        self._batches_per_poll = batches_per_poll
        self._assigned: set[int] = set()
        self._positions: dict[int, int] = {}
        self._rejoin = asyncio.Event()
        self._is_stable = asyncio.Event()
        self._listener_failure: Exception | None = None
        self._coordination: asyncio.Task[None] | None = None
        self._is_open = False

    def fail_next(self, method: str, failure: Exception | None = None) -> None:
        """The next call of `method` raises (a SourceError by default), without effect."""
        self.failures[method].append(failure or SourceError(f"{method} failed as told"))

    # ---- life ------------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        self._enter("connect", opened=True)
        self._is_open = True

    def join(self, listener: Listener) -> None:
        self._enter("join")
        self._coordination = asyncio.create_task(self._coordinate(listener), name="fake coordination")
        self._group.enter(self)

    async def leave(self) -> None:
        self._is_open = False
        self._positions.clear()
        self._assigned = set()
        if self._coordination is not None:
            self._coordination.cancel()
            await asyncio.wait([self._coordination])
            self._coordination = None
        self._say_farewell()

    def _say_farewell(self) -> None:
        self._group.depart(self)

    def told_to_rejoin(self) -> None:
        self._rejoin.set()

    async def _coordinate(self, listener: Listener) -> None:
        while True:
            await self._rejoin.wait()
            self._rejoin.clear()
            self._is_stable.clear()
            self._log.changed()  # a poll that waits for records now waits for the rebalance
            self._positions.clear()
            if self._assigned:
                await self._call(listener.on_revoked(sorted(self._assigned)))
            assigned = await self._join_group()
            self._positions.clear()
            self._assigned = set(assigned)
            self._is_stable.set()
            await self._call(listener.on_assigned(assigned))

    async def _join_group(self) -> list[int]:
        return await self._group.join(self)

    async def _call(self, callback: object) -> None:
        try:
            await callback  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 # raised from the next poll, as the real one does
            self._listener_failure = error

    # ---- records ---------------------------------------------------------------------------------------------------

    async def poll(self, wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        self._enter("poll")
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            if self._coordination is not None:
                await self._is_stable.wait()
            self._enter("poll")
            if found := self._read(wanted):
                return found
            if not await self._log.wait_for_change(deadline):
                self._enter("poll")
                return ()

    def _read(self, wanted: Collection[int]) -> Sequence[Fetched | OutOfRange]:
        found: list[Fetched | OutOfRange] = []
        for partition in sorted(set(wanted) & self._positions.keys()):
            item = self._log.read(partition, self._positions[partition], self._batches_per_poll)
            if isinstance(item, OutOfRange) and not found:
                return [item]
            if isinstance(item, Fetched):
                self._positions[partition] = item.next_offset
                found.append(item)
        return found

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._assigned:
            self._positions[partition] = offset

    def high_watermark(self, partition: int) -> int | None:
        """Fetches are instant here, so it is always the newest."""
        return self._log.range(partition).high_watermark if partition in self._positions else None

    # ---- offsets and questions ---------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[int, Committed]) -> None:
        self._enter("commit")
        await asyncio.sleep(0)
        if not offsets:
            return
        group = self._group
        if self not in group.members or self.generation != group.generation:
            group.notice(self)
            raise CommitRefusedError("the group has moved on")
        if lost := sorted(offsets.keys() - self._assigned):
            raise CommitRefusedError(f"not assigned any more: partitions {lost}")
        group.offsets.update(offsets)

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]:
        self._enter("committed")
        await asyncio.sleep(0)
        return {partition: self._group.offsets.get(partition) for partition in partitions}

    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]:
        self._enter("log_ranges")
        await asyncio.sleep(0)
        return {partition: self._log.range(partition) for partition in partitions}

    async def identity(self) -> TopicIdentity:
        self._enter("identity")
        await asyncio.sleep(0)
        if self._log.topic_id is None:
            raise SourceError("the topic does not exist")
        return TopicIdentity(
            topic_id=self._log.topic_id,
            cluster_id=self._log.cluster_id,
            partitions=len(self._log),
            compacted=self._log.compacted,
        )

    async def group_has_members(self) -> bool:
        self._enter("group_has_members")
        await asyncio.sleep(0)
        return bool(self._group.members)

    def _enter(self, method: str, *, opened: bool = False) -> None:
        if self._listener_failure is not None and method == "poll":
            failure, self._listener_failure = self._listener_failure, None
            raise failure
        if self.failures[method]:
            raise self.failures[method].popleft()
        if not (self._is_open or opened):
            raise SourceError("not connected to Kafka")
