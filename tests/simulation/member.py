"""One process of a simulated world: the real worker with all its parts, on a source and a store that fail.

Owns: the composition, as the service has it, and watching the worker's deadlines and its memory. Does not own: when it
comes and goes (`world`), what must hold (`auditor`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from consumer.codecs import codec
from consumer.encoder import QUARANTINE_CODEC, BodyBuilder
from consumer.ports import Fetched
from consumer.report import Report
from consumer.vitals import GaveUpError, WatchedStore
from consumer.worker import COMMIT_SHARE, IDLE_SECONDS, POLL_SECONDS, REVOKE_SHARE, Budget, Worker
from tests.simulation.auditor import Unstored
from tests.simulation.bucket import StoreClient
from tests.simulation.kafka import SimulatedSource
from tests.simulation.processes import ProcessLoop, context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from consumer.batch import Limits
    from consumer.chain import Rules
    from consumer.codecs import Codec
    from consumer.encoder import Body
    from consumer.events import Chunk, Linked, Stalled
    from consumer.partition import Partition
    from consumer.ports import Failure, Listener, OutOfRange
    from consumer.runs import Run
    from tests.fakes.store import FakeStore
    from tests.simulation.auditor import Auditor
    from tests.simulation.bucket import Weather
    from tests.simulation.kafka import Coordinator
    from tests.simulation.topic import Topic

HEARTBEAT_SECONDS: Final = 2.0
POLL_GAP_SECONDS: Final = IDLE_SECONDS + POLL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all processes of a world share."""

    topic: Topic
    coordinator: Coordinator
    store: FakeStore
    weather: Weather
    auditor: Auditor
    rules: Rules
    record_format: str
    compression: str
    rebalance_seconds: float
    upload_seconds: float
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What each process may have of its own."""

    limits: Limits
    memory_bytes: int
    upload_concurrency: int
    batches_per_poll: int
    give_back_seconds: float
    give_up_seconds: float

    @property
    def told(self) -> str:
        """For the trace: without addresses, which differ from run to run."""
        limits = self.limits
        return (
            f"batches of {limits.records} records, {limits.bytes} bytes, {limits.seconds:g} s;"
            f" {self.memory_bytes} bytes of memory, {self.upload_concurrency} puts at a time,"
            f" {self.batches_per_poll} wire batches a poll, {self.give_back_seconds:g} s to give back"
        )


class Member:
    """A process from its start on."""

    def __init__(self, name: str, around: Surroundings, configuration: Configuration) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        self.name = name
        self.configuration = configuration
        self.stop = asyncio.Event()
        self.stop_asked_at: float | None = None  # on its own clock
        self.source = SimulatedSource(
            around.coordinator,
            process=name,
            auditor=around.auditor,
            batches_per_poll=configuration.batches_per_poll,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            on_polled=self._polled,
        )
        self.client = StoreClient(
            around.store,
            process=name,
            weather=around.weather,
            auditor=around.auditor,
            timeout_seconds=around.upload_seconds,
        )
        self._around = around
        self._loop = loop
        self._polled_bytes = 0
        self.worker = WatchedWorker(
            self._check_memory,
            source=self.source,
            store=WatchedStore(self.client, clock=loop.time, give_up_seconds=configuration.give_up_seconds),
            rules=replace(around.rules, limits=configuration.limits, writer=name),
            budget=Budget(
                memory_bytes=configuration.memory_bytes,
                upload_concurrency=configuration.upload_concurrency,
                rebalance_timeout_seconds=around.rebalance_seconds,
            ),
            report=TracingReport(name, around),
            record_format=around.record_format,
            codec=small(codec(around.compression)),
        )
        self.task = loop.create_task(self._run(), name=name, context=context_of(name))

    # ---- life --------------------------------------------------------------------------------------------------------

    async def _run(self) -> str:
        """How it ended."""
        await self.source.connect()
        listener, how = TimedListener(self, self.worker, self._around), "stopped"
        try:
            await self.worker.run(
                self.stop,
                join=lambda: self.source.join(listener),
                give_back_seconds=self.configuration.give_back_seconds,
            )
            self._check_stop()
        except* GaveUpError:
            how = "gave up"
        finally:
            await self.source.leave()
            self._check_nothing_is_left()
        return how

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.stop_asked_at is None:
            self.stop_asked_at = self.source.own_clock()
            self.stop.set()

    def _check_stop(self) -> None:
        assert self.stop_asked_at is not None, f"{self.name} ended by itself"
        seconds = self.configuration.give_back_seconds
        allowed = seconds + max(1.0, seconds * COMMIT_SHARE)
        self._around.auditor.in_time(self.name, "its stop", self.source.own_clock() - self.stop_asked_at, allowed)

    def _check_nothing_is_left(self) -> None:
        left = [task for task in self._loop.tasks_of(self.name) if task is not asyncio.current_task()]
        assert not left, f"{self.name} ended and left {left}"

    # ---- while it runs -----------------------------------------------------------------------------------------------

    def check_pulse(self) -> None:
        """It polls, or is inside a poll, whatever else goes on; unless it stops."""
        source = self.source
        if self.task.done() or self.stop.is_set() or source.polls_since is not None or source.polled_at is None:
            return
        seconds = source.own_clock() - source.polled_at
        self._around.auditor.in_time(self.name, "not polling", seconds, POLL_GAP_SECONDS)

    def _polled(self, items: Sequence[Fetched | OutOfRange]) -> None:
        topic = self._around.topic
        if items:
            self._polled_bytes = sum(
                written.memory_bytes
                for item in items
                if isinstance(item, Fetched)
                for written in topic.between(item.partition, item.start, item.next_offset)
            )

    def _check_memory(self, worker: Worker) -> None:
        self._around.auditor.memory(
            self.name,
            buffered_bytes=worker.buffered_bytes,
            unstored=_unstored(worker),
            limit_bytes=self.configuration.memory_bytes,
            polled_bytes=self._polled_bytes,
        )


def _unstored(worker: Worker) -> Iterator[Unstored]:
    for partition in worker.partitions.values():
        chain = partition.chain
        if chain.position is not None:
            sealed = chain.position if chain.chunk is None else chain.chunk.next_offset
            yield Unstored(partition=partition.number, start=chain.position, sealed=sealed, end=chain.fetch_next)


def small(codec: Codec) -> Codec:
    """As if it cost no more than it takes: a world's limits are smaller than the tables of one stream."""
    return replace(codec, first_bytes=0, growth=1)


class WatchedWorker(Worker):
    """The worker, which tells at every change how it stands."""

    def __init__(self, on_change: Callable[[Worker], None], **parts: object) -> None:
        self._on_change = on_change
        super().__init__(**parts)  # type: ignore[arg-type]  # handed through

    def new_builder(self) -> BodyBuilder:
        return BodyBuilder(
            record_format=self._record_format, codec=self._codec, quarantine_codec=small(QUARANTINE_CODEC)
        )

    def changed(self, partition: Partition) -> None:
        super().changed(partition)
        self._on_change(self)


class TimedListener:
    """Between source and worker: both callbacks have a deadline."""

    def __init__(self, member: Member, listener: Listener, around: Surroundings) -> None:
        self._member = member
        self._listener = listener
        self._around = around

    async def on_revoked(self, partitions: Collection[int]) -> None:
        began = self._member.source.own_clock()
        self._around.tell(f"{self._member.name} loses {list(partitions)}")
        await self._listener.on_revoked(partitions)
        seconds = self._member.source.own_clock() - began
        share = REVOKE_SHARE * self._around.rebalance_seconds
        self._around.auditor.in_time(
            self._member.name, "giving partitions back", seconds, share + max(1.0, share * COMMIT_SHARE)
        )

    async def on_assigned(self, partitions: Collection[int]) -> None:
        began = self._member.source.own_clock()
        self._around.tell(f"{self._member.name} gets {list(partitions)}")
        await self._listener.on_assigned(partitions)
        self._around.auditor.in_time(self._member.name, "taking partitions", self._member.source.own_clock() - began, 0)


class TracingReport(Report):
    """Lines go into the trace, and are counted."""

    def __init__(self, process: str, around: Surroundings) -> None:
        super().__init__(CollectorRegistry(), each_record=False)
        self._process = process
        self._tell = around.tell
        self._seen = around.auditor.seen

    def received(self, run: Run, begin: int, end: int) -> None:
        pass

    def linked(self, linked: Linked, body: Body | None, seconds: float) -> None:
        self._seen[str(linked.outcome)] += 1
        self._tell(f"{self._process} {linked.outcome} [{linked.start}, {linked.next_offset}) {linked.key}")

    def retrying(self, chunk: Chunk, failure: Failure, reason: str, attempt: int) -> None:
        self._seen["retrying"] += 1
        self._tell(f"{self._process} retries {chunk.key} after {reason}, attempt {attempt}")

    def asking_again(self, what: str, error: Exception) -> None:
        self._seen["asking again"] += 1
        self._tell(f"{self._process} asks again: {what}: {error}")

    def revoked(self, partitions: list[int], abandoned_records: int, seconds: float) -> None:
        self._seen["drain cut by its deadline"] += abandoned_records > 0
        self._tell(f"{self._process} gave back {partitions}, {abandoned_records} records left, {seconds:.3f} s")

    def stalled(self, partition: int, stalled: Stalled, *, since: float = 0.0) -> None:
        kind = "stalled: memory" if stalled.reason.startswith("memory") else "stalled"
        self._seen[kind] += 1
        self._tell(f"{self._process} stalls {partition}: {stalled.reason}")

    def stalled_for(self, partition: int, seconds: float) -> None:
        pass

    def waiting(self, partition: int, reason: str) -> None:
        self._seen["waiting"] += 1
        self._tell(f"{self._process} waits with {partition}: {reason}")

    def unsigned(self, partition: int, committed: int, recovered: int) -> None:
        self._seen["unsigned offset"] += 1
        self._tell(f"{self._process} ignores {committed} of {partition}, goes on from {recovered}")

    def assigned(self, partitions: list[int]) -> None:
        pass

    def committed(self, outcome: str, reason: str = "") -> None:
        self._seen[f"commit {outcome}"] += 1

    def poll_failed(self, error: Exception) -> None:
        self._tell(f"{self._process}: {error}")
