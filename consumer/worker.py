"""The loop: poll, hand out, keep memory and rebalances within bounds, stop in order.

Owns: which partitions are polled, what all partitions share (slots, threads, offsets, listings, commits), the memory
limit, the budgets of a revocation and of a stop. Does not own: a partition's protocol (`chain`), its requests
(`partition`), Kafka (`source`), S3 (`store`), the process (`service`).

Memory: everything held, waiting, open or in flight <= MEMORY_LIMIT_BYTES + what one poll brings (the wire batches as
they came, and their values): above the limit nothing is polled; above 80 % of it the largest batches are put, or, where
their puts keep failing, given up (they are in Kafka).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from consumer import events
from consumer.committer import Committer
from consumer.encoder import BodyBuilder, lines_of
from consumer.partition import Partition
from consumer.ports import Fetched, SourceError, StoreError
from consumer.recovery import HEADS, find_ends
from consumer.rounds import Rounds
from consumer.runs import read
from consumer.vitals import GaveUpError, WatchedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from consumer.chain import Rules
    from consumer.codecs import Codec
    from consumer.ports import OutOfRange, Source
    from consumer.report import Report
    from consumer.runs import LinesOf

POLL_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 1.0
LOG_END_SECONDS: Final = 10.0
STALL_LINE_SECONDS: Final = 60.0
PRESSURE_SHARE: Final = 0.8
REVOKE_SHARE: Final = 0.6  # of the rebalance time-out: the rest is for commit and rejoin
COMMIT_SHARE: Final = 0.1
THREADS: Final = 3  # two for bodies, so that reading what was polled waits for none of them
THREAD_BYTES: Final = 8 << 10  # less is done on the loop: it takes less time than the way to a thread and back

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the worker may use: bytes, slots, seconds."""

    memory_bytes: int
    upload_concurrency: int
    rebalance_timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What Kafka's last failure was, and since when it has been failing (monotonic seconds)."""

    reason: str
    since: float


class Worker:
    """Consumes one topic in one group into one chain a partition. It is the source's Listener."""

    def __init__(
        self,
        *,
        source: Source,
        store: WatchedStore,
        rules: Rules,
        budget: Budget,
        report: Report,
        record_format: str,
        codec: Codec,
    ) -> None:
        self.store = store
        self.rules = rules
        self.report = report
        self.partitions: dict[int, Partition] = {}
        self.upload_slots = asyncio.Semaphore(budget.upload_concurrency)
        self.head_slots = asyncio.Semaphore(HEADS)
        self.kafka_trouble: Trouble | None = None
        self.was_assigned = False
        self._source = source
        self._budget = budget
        self._record_format = record_format
        self._lines_of = lines_of(record_format)
        self._codec = codec
        self._clock = asyncio.get_running_loop().time
        self._committer = Committer(source, chain_id=rules.layout.chain_id, report=report)
        self._locating: Rounds[Partition, events.Locate] = Rounds(self._locate_all, on_failure=self._kafka_failed)
        self._recovering: Rounds[Partition, events.Recover] = Rounds(self._recover_all, on_failure=self._listing_failed)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="body")
        self._group: asyncio.TaskGroup | None = None
        self._something_changed = asyncio.Event()
        self._epoch = 0
        self._poll_due = 0.0
        self._asked: frozenset[int] = frozenset()
        self._patience: asyncio.Timeout | None = None
        self._stall_lines: dict[int, float] = {}
        self._log_ends: dict[int, int] = {}

    # ---- life -------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, join: Callable[[], None], give_back_seconds: float) -> None:
        """Join the group and work until `stop` is set; then put and commit what is open, within `give_back_seconds`.

        The first failure of any task ends it with that failure. Leaving the group is the caller's.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                polling = group.create_task(self._join_and_poll(join), name="poll")
                serving = [
                    group.create_task(self._committer.run(), name="commits"),
                    group.create_task(self._locating.run(), name="locating"),
                    group.create_task(self._recovering.run(), name="recovering"),
                    group.create_task(self._watch(), name="watch"),
                    group.create_task(self._ask_log_ends(), name="log ends"),
                ]
                await stop.wait()
                polling.cancel()
                await self._give_back(list(self.partitions), give_back_seconds)
                for task in serving:
                    task.cancel()
        finally:
            for partition in self.partitions.values():
                partition.abandon()  # their timers must not ring after the group's end
            self.partitions.clear()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _join_and_poll(self, join: Callable[[], None]) -> None:
        join()
        while True:
            await self._turn()

    async def _turn(self) -> None:
        self._something_changed.clear()
        wanted: list[int] = []
        # While bodies grow in the threads, aiokafka fetches ahead: one poll then brings what would take many.
        growing = any(partition.grows for partition in self.partitions.values())
        if not growing and self._relieve() < self._budget.memory_bytes:
            wanted = [number for number, partition in self.partitions.items() if partition.wants_records]
        if not wanted:
            try:  # until a moment that changes do not put off: they can come one on the other's heels for ever
                async with asyncio.timeout_at(self._poll_due):
                    await self._something_changed.wait()
            except TimeoutError:
                # Nothing to fetch, but the group must see that we poll, and we its errors. Waiting in the poll would
                # keep partitions waiting that are positioned meanwhile.
                await self._poll((), 0.0)
            return
        await self._poll(wanted, POLL_SECONDS)

    async def _poll(self, wanted: Sequence[int], seconds: float) -> None:
        self._poll_due = asyncio.get_running_loop().time() + IDLE_SECONDS
        try:
            items = await self._ask(wanted, seconds)
        except SourceError as error:
            self._kafka_failed(error)
            for partition in self.partitions.values():
                if partition.chain.reads:  # what the failed poll had drained is fetched again
                    self._source.seek(partition.number, partition.chain.fetch_next)
            await asyncio.sleep(IDLE_SECONDS)
            return
        if items:
            self.kafka_trouble = None
            await self._hand_out(items)

    async def _ask(self, wanted: Sequence[int], seconds: float) -> Sequence[Fetched | OutOfRange]:
        """A poll, cut off when a partition wants records that it does not ask for; nothing is lost by that."""
        self._asked = frozenset(wanted)
        self._patience = patience = asyncio.timeout(None)
        try:
            async with patience:
                return await self._source.poll(wanted, seconds)
        except TimeoutError:
            if not patience.expired():
                raise  # somebody else's
            return ()
        finally:
            self._patience = None

    async def _hand_out(self, items: Sequence[Fetched | OutOfRange]) -> None:
        """Read in a thread, then feed: who was assigned anew meanwhile is fed nothing of it."""
        owners = [self.partitions.get(item.partition) for item in items]
        size = sum(wire.size_bytes for item in items if isinstance(item, Fetched) for wire in item.batches)
        news = await self.off_loop(partial(_read_all, items, self._lines_of), size)
        for item, owner, event in zip(items, owners, news, strict=True):
            if owner is not None and self.partitions.get(item.partition) is owner:
                owner.feed(event)

    # ---- the source's Listener --------------------------------------------------------------------------------------

    async def on_assigned(self, partitions: Collection[int]) -> None:
        """New partitions: each asks where its chain ends. Returns at once: no heartbeats are sent meanwhile."""
        self._epoch += 1
        for number in sorted(partitions):
            before = self.partitions.pop(number, None)
            if before is not None:
                before.abandon()
            self.partitions[number] = Partition(number, epoch=self._epoch, desk=self)
        self.was_assigned = True
        self.report.assigned(sorted(partitions))
        self._something_changed.set()

    async def on_revoked(self, partitions: Collection[int]) -> None:
        """Put and commit what is open within the budget; the rest is read again by the next owner."""
        await self._give_back(partitions, REVOKE_SHARE * self._budget.rebalance_timeout_seconds)

    async def _give_back(self, numbers: Collection[int], seconds: float) -> None:
        going = [self.partitions[number] for number in numbers if number in self.partitions]
        if not going:
            return
        began = self.now()
        for partition in going:
            partition.feed(events.Drain())
        try:
            async with asyncio.timeout(seconds):
                for partition in going:
                    await partition.drained.wait()
        except TimeoutError:
            pass  # what is left is in Kafka; its count is reported below
        left = sum(partition.unstored_records for partition in going)
        for partition in going:
            partition.abandon()
            self._locating.forget(partition)
            self._recovering.forget(partition)
            self._stall_lines.pop(partition.number, None)
            if self.partitions.get(partition.number) is partition:
                del self.partitions[partition.number]
        await self._flush_commits(max(1.0, seconds * COMMIT_SHARE))
        self._committer.forget(partition.number for partition in going)
        self.report.revoked([partition.number for partition in going], left, self.now() - began)

    async def _flush_commits(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._committer.flush()
        except TimeoutError:
            self.report.committed("failed", f"no answer within {seconds:g} s")

    # ---- memory -----------------------------------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Everything held, waiting, open or in flight."""
        return sum(partition.buffered_bytes for partition in self.partitions.values())

    def _relieve(self) -> int:
        """Above 80 % of the limit: the largest that can be put are put, the largest that cannot are given up.

        The bytes that are buffered then: each partition is counted once a turn.
        """
        buffered, pressure = self.buffered_bytes, PRESSURE_SHARE * self._budget.memory_bytes
        if buffered <= pressure:
            return buffered
        over = buffered - sum(partition.settling_bytes for partition in self.partitions.values()) - pressure
        by_size = sorted(self.partitions.values(), key=lambda partition: partition.relievable_bytes, reverse=True)
        for partition in by_size:
            size = partition.relievable_bytes
            if over <= 0 or size == 0:
                break
            partition.feed(events.Pressure())
            over -= size
        return self.buffered_bytes

    # ---- what partitions share (partition.Desk) ---------------------------------------------------------------------

    def now(self) -> float:
        return self._clock()

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            msg = "the worker does not run"
            raise RuntimeError(msg)
        return self._group.create_task(work, name=name)

    async def off_loop(self, work: Callable[[], T], size: int) -> T:
        if size < THREAD_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def new_builder(self) -> BodyBuilder:
        return BodyBuilder(record_format=self._record_format, codec=self._codec)

    def seek(self, partition: int, offset: int) -> None:
        self._source.seek(partition, offset)

    def commit(self, partition: int, offset: int) -> None:
        self._committer.note(partition, offset)

    def locate(self, partition: Partition, request: events.Locate) -> None:
        self._locating.ask(partition, request)

    def recover(self, partition: Partition, request: events.Recover) -> None:
        self._recovering.ask(partition, request)

    def changed(self, partition: Partition) -> None:
        """A poll under way ends when it does not ask for a partition that wants records by now: it may last long."""
        self._something_changed.set()
        if self._patience is not None and partition.number not in self._asked and partition.wants_records:
            self._patience.reschedule(asyncio.get_running_loop().time())
            self._patience = None

    def request_failed(self, what: str, error: StoreError | SourceError) -> None:
        """A request failed and will be repeated, unless S3 has been silent for too long."""
        if isinstance(error, StoreError) and self.store.exhausted:
            msg = f"S3 has answered nothing for {self.store.give_up_seconds:.0f} s; last: {what}: {error.reason}"
            raise GaveUpError(msg)

    async def _locate_all(self, asked: Mapping[Partition, events.Locate]) -> None:
        numbers = [partition.number for partition in asked]
        mismatch = await self._mismatch()
        committed = await self._source.committed(numbers)
        logs = await self._source.log_ranges(numbers)
        self.kafka_trouble = None
        for partition, request in asked.items():
            number = partition.number
            partition.feed(
                events.Located(epoch=request.epoch, committed=committed[number], log=logs[number], mismatch=mismatch)
            )

    async def _mismatch(self) -> str | None:
        """Why the topic is not, or no longer, one that these chains can hold; None = it is."""
        identity, layout = await self._source.identity(), self.rules.layout
        for name, is_, was in (
            ("topic id", identity.topic_id, layout.topic_id),
            ("cluster id", identity.cluster_id, layout.cluster_id),
        ):
            if is_ is not None and was is not None and is_ != was:
                return (
                    f"{name} is {is_}, the layout file {self.rules.keys.layout_key} says {was}: the topic was created"
                    " anew or this is another cluster; start with a new S3_PREFIX and KAFKA_GROUP_ID"
                )
        if identity.compacted and self.rules.keys.has_time:
            return (
                f"the topic is compacted now, but S3_KEY_TEMPLATE {self.rules.keys.template!r} has a time field: the"
                " first record of a range can vanish and its key change; take compact out of the topic's cleanup.policy"
            )
        self.rules = replace(self.rules, compare_timestamps=not identity.compacted)
        return None

    async def _recover_all(self, asked: Mapping[Partition, events.Recover]) -> None:
        enough = {partition.number: request.enough for partition, request in asked.items()}
        ends = await find_ends(self.store, self.rules.keys, enough)
        for partition, request in asked.items():
            partition.feed(events.Recovered(epoch=request.epoch, found=ends[partition.number]))

    def _listing_failed(self, error: StoreError | SourceError) -> None:
        self.report.asking_again("list the bucket", error)
        self.request_failed("list the bucket", error)

    def _kafka_failed(self, error: StoreError | SourceError) -> None:
        since = self.now() if self.kafka_trouble is None else self.kafka_trouble.since
        self.kafka_trouble = Trouble(reason=str(error), since=since)
        self.report.poll_failed(error)

    # ---- what people see --------------------------------------------------------------------------------------------

    def lag(self, partition: Partition) -> tuple[int, int] | None:
        """Records between the log's end and the chain's end, and the position; None while either is unknown."""
        chain = partition.chain
        if chain.position is None:
            return None
        known = (self._source.high_watermark(partition.number), self._log_ends.get(partition.number))
        ends = [end for end in known if end is not None]
        if chain.log is not None:
            ends.append(chain.log.high_watermark)
        end = max(ends, default=chain.position)
        return max(0, end - chain.position), max(0, end - chain.fetch_next)

    def _lag_now(self, partition: Partition, which: int) -> float:
        lags = self.lag(partition)
        return 0 if lags is None else lags[which]

    async def _watch(self) -> None:
        while True:
            self.report.buffered_bytes.set(self.buffered_bytes)
            for number, partition in self.partitions.items():
                if self.lag(partition) is not None:
                    # Counted when asked for, so that it fits the counters it is read with.
                    self.report.lag.labels(number).set_function(partial(self._lag_now, partition, 0))
                    self.report.position_lag.labels(number).set_function(partial(self._lag_now, partition, 1))
                self._watch_stall(number, partition)
            await asyncio.sleep(WATCH_SECONDS)

    def _watch_stall(self, number: int, partition: Partition) -> None:
        stall = partition.chain.stall
        if stall is None:
            self._stall_lines.pop(number, None)
            self.report.not_stalled(number)
            return
        self.report.stalled_for(number, self.now() - stall.since)
        last = self._stall_lines.setdefault(number, stall.since)
        if self.now() - last >= STALL_LINE_SECONDS:
            self._stall_lines[number] = self.now()
            self.report.stalled(
                number, events.Stalled(reason=stall.reason, key=stall.key), since=self.now() - stall.since
            )

    async def _ask_log_ends(self) -> None:
        """Keeps log ends fresh for lag, and notices that Kafka is silent when nothing else would."""
        while True:
            await asyncio.sleep(LOG_END_SECONDS)
            if self.partitions:
                try:
                    self._log_ends.update(
                        {
                            n: log.high_watermark
                            for n, log in (await self._source.log_ranges(list(self.partitions))).items()
                        }
                    )
                    self.kafka_trouble = None
                except SourceError as error:
                    self._kafka_failed(error)


def _read_all(items: Sequence[Fetched | OutOfRange], lines_of: LinesOf) -> list[events.Polled | events.Unreadable]:
    """What each item means to its partition, its wire batches read."""
    news: list[events.Polled | events.Unreadable] = []
    for item in items:
        try:
            known = read(item, lines_of) if isinstance(item, Fetched) else item
            news.append(events.Polled(item=known))
        except SourceError as error:
            news.append(events.Unreadable(reason=str(error)))
    return news
