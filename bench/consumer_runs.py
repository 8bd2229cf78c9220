"""One measured run of a sink: a topic that is loaded already, a group and a folder in the bucket of its own.

Owns: what is counted from which moment to which, when a run is void. Does not own: the process (`process`), the servers
(`ground`), the list of cases and the table (`consumer`, `consumer_report`).

Invariants: the measured window begins when the bench reads that partitions were assigned (of several processes: the
last of them) and ends when it reads the `Uploaded` with which every record is in an object that the store has
acknowledged. Everything before (interpreter, imports, joining the group) is start-up, told apart. CPU is that of the
window, user and system, all threads, divided by all records. The batches are filled to the byte by the topic's records,
so that no sink waits for a time limit at the end. Figures are void (BenchError) unless the bucket then holds every
record exactly once.
"""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from bench import loop_blocks
from bench.process import BenchError, MeasuredProcess, lines
from bench.topics import PARTITIONS
from tests.servers import unique

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.ground import Ground
    from bench.process import Line
    from bench.topics import Topic

OURS = "consumer"
UNVALIDATED = "bench.unvalidated"
STOCK, CONFLUENT = "bench.baselines.stock_consumer", "bench.baselines.confluent_consumer"
UNBOUND_RECORDS = 1_000_000_000  # so that bytes bind
BATCH_SECONDS = 30.0  # more than any sink takes to fill a batch
ATTEMPTS = 5  # of processes to join a group together


class NotTogetherError(BenchError):
    """One process of a group had begun before the other had joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run on which topic. `objects`: batches that fill a partition; `settings`: beside what all runs have."""

    module: str
    topic: Topic
    objects: int
    processes: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def batch_bytes(self) -> int:
        """Values of one batch."""
        return self.topic.offsets // self.objects * self.topic.shape.value_bytes

    def environ(self) -> dict[str, str]:
        """The environment variables, as a user would set them."""
        return {
            "BATCH_MAX_BYTES": str(self.batch_bytes),
            "BATCH_MAX_RECORDS": str(UNBOUND_RECORDS),
            "BATCH_MAX_SECONDS": f"{BATCH_SECONDS:g}",
            "LOG_FORMAT": "json",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
            **self.settings,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Of several processes: sums, and the largest memory. `block_*`: upper bounds, None where not told.

    What has a default is 0 where it makes no sense: a reader stores nothing.
    """

    cpu_seconds: float
    wall_seconds: float
    records: int
    value_bytes: int
    peak_memory_bytes: int
    start_cpu_seconds: float
    start_wall_seconds: float = 0.0
    loop_cpu_seconds: float = 0.0
    kafka_cpu_seconds: float = 0.0
    s3_cpu_seconds: float = 0.0
    objects: int = 0
    stored_bytes: int = 0
    block_p999_seconds: float | None = None
    block_longest_seconds: float | None = None

    @property
    def cpu_seconds_per_million(self) -> float:
        return self.cpu_seconds * 1_000_000 / self.records

    @property
    def all_cpu_seconds_per_million(self) -> float:
        """What the broker and the S3 server took included."""
        return (self.cpu_seconds + self.kafka_cpu_seconds + self.s3_cpu_seconds) * 1_000_000 / self.records

    @property
    def records_per_second(self) -> float:
        return self.records / self.wall_seconds

    @property
    def bytes_per_second(self) -> float:
        return self.value_bytes / self.wall_seconds


class Observed:
    """What the lines of a run said so far."""

    def __init__(self, case: Case, ground: Ground, sinks: Mapping[str, MeasuredProcess]) -> None:
        self._case = case
        self._ground = ground
        self._sinks = sinks
        self._ports: dict[str, int] = {}
        self._assigned: dict[str, Line] = {}
        self._servers_before = (0.0, 0.0)
        self._blocks_before: dict[str, loop_blocks.Blocks] = {}
        self._stored = 0

    def follow(self, inbox: queue.SimpleQueue[tuple[str, Line]]) -> Figures:
        """Read until every record is stored; the figures but for what lies in the bucket."""
        for who, line in lines(inbox, list(self._sinks.values())):
            match line.fields.get("event"):
                case "Listening":
                    self._ports[who] = cast("int", line.fields["port"])
                case "Partitions assigned":
                    self._begin(who, line)
                case "Uploaded":
                    self._stored += cast("int", line.fields["records"])
                    if self._stored >= self._case.topic.records:
                        return self._figures(line)
        raise AssertionError  # `lines` ends by raising only

    def _begin(self, who: str, line: Line) -> None:
        share = len(cast("list[int]", line.fields["partitions"]))
        if who in self._assigned or share != PARTITIONS // self._case.processes:
            message = f"{who} was given {share} partitions, {PARTITIONS // self._case.processes} expected once"
            raise NotTogetherError(message)
        self._assigned[who] = line
        self._servers_before = self._ground.cpu_seconds()
        if who in self._ports:
            self._blocks_before[who] = loop_blocks.read(self._ports[who])

    def _figures(self, last: Line) -> Figures:
        used = {who: sink.cpu_seconds() for who, sink in self._sinks.items()}
        kafka, s3 = (now - then for now, then in zip(self._ground.cpu_seconds(), self._servers_before, strict=True))
        if set(self._assigned) != set(self._sinks):
            message = f"only {', '.join(self._assigned)} had partitions"
            raise BenchError(message)
        for sink in self._sinks.values():
            sink.check_childless()
        blocks = loop_blocks.total(
            loop_blocks.read(self._ports[who]) - before for who, before in self._blocks_before.items()
        )
        topic = self._case.topic
        return Figures(
            cpu_seconds=sum(used[who] - line.cpu_seconds for who, line in self._assigned.items()),
            wall_seconds=last.at - max(line.at for line in self._assigned.values()),
            records=topic.records,
            value_bytes=topic.value_bytes,
            peak_memory_bytes=max(sink.peak_memory_bytes() for sink in self._sinks.values()),
            start_cpu_seconds=sum(line.cpu_seconds for line in self._assigned.values()),
            start_wall_seconds=max(line.at - self._sinks[who].started_at for who, line in self._assigned.items()),
            loop_cpu_seconds=sum(
                self._sinks[who].loop_seconds() - line.loop_seconds for who, line in self._assigned.items()
            ),
            kafka_cpu_seconds=kafka,
            s3_cpu_seconds=s3,
            block_p999_seconds=blocks.quantile(0.999),
            block_longest_seconds=blocks.quantile(1.0),
        )


def run(case: Case, ground: Ground) -> Figures:
    """Run the case once. Raises BenchError when the figures would be void."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(NotTogetherError):  # nothing was measured yet
            return _attempt(case, ground)
    return _attempt(case, ground)


def _attempt(case: Case, ground: Ground) -> Figures:
    prefix = f"{unique('run')}/"
    settings = {**ground.settings(case.topic, prefix), **case.environ()}
    inbox: queue.SimpleQueue[tuple[str, Line]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        sinks = {
            who: stack.enter_context(MeasuredProcess(who, [case.module], settings, inbox))
            for who in (f"{case.module} {number}" for number in range(1, case.processes + 1))
        }
        figures = Observed(case, ground, sinks).follow(inbox)
        exit_codes = {who: sink.stop() for who, sink in sinks.items()}
    if any(exit_codes.values()):
        message = f"{exit_codes}: every sink must end with 0 when it is stopped: the figures are void"
        raise BenchError(message)
    stored = ground.check(case.topic, prefix)
    ground.clear(prefix)
    return replace(figures, objects=stored.objects, stored_bytes=stored.bytes)
