"""One measured run of a consumer that writes small or timely objects: a topic and a bucket of its own.

Owns: what is counted from which moment to which, when a run is void. Does not own: the process (`process`), the records
(`latency_load`), the list of cases and the table (`latency`, `latency_report`).

A record's latency: from the moment it is handed to the Kafka client of the bench to the moment the bench has read the
line `Uploaded` of its object, which is logged after the store has answered. Broker, pipes and the bench itself are
in it, so it errs on the high side.
Invariants: flat out, CPU and objects a second are slopes, from the first line after the warm-up to the last: start-up
is apart. Figures are void (BenchError) unless the bucket then holds every record exactly once and the process ends with
exit code 0.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, cast

from bench.latency_load import Pacer, lay_down
from bench.process import BenchError, Line, MeasuredProcess, lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.servers import S3, Kafka

OURS, STOCK = "consumer", "bench.baselines.original_sink"
ORIGINAL: Mapping[str, str] = {
    "BATCH_MAX_RECORDS": "1",
    "RECORD_FORMAT": "value",
    "COMPRESSION": "none",
    "S3_KEY_TEMPLATE": "stock_market_{unix}_{partition}_{start}.{ext}",
}
PLAIN: Mapping[str, str] = {"COMPRESSION": "none", "S3_KEY_TEMPLATE": "quotes_{unix}_{partition}_{start}.{ext}"}
_KEY = re.compile(r"(?:stock_market|quotes)_\d+_(\d+)_(\d+)\.jsonl?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run. `per_second` None = flat out, the topic is full at the start. `warm_up` records are not counted."""

    module: str
    settings: Mapping[str, str]
    partitions: int
    records: int
    warm_up: int
    per_second: float | None = None

    @property
    def one_a_record(self) -> bool:
        return self.settings.get("BATCH_MAX_RECORDS") == "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Latencies in seconds, None when flat out; CPU of the whole process, of the records after the warm-up."""

    objects: int
    objects_per_second: float
    cpu_seconds_per_object: float
    p50_seconds: float | None
    p99_seconds: float | None
    longest_seconds: float | None
    peak_memory_bytes: int


@dataclass(slots=True)
class _Observed:
    """What the lines of a run said."""

    case: Case
    stored: dict[tuple[int, int], float] = field(default_factory=dict)  # (partition, offset) → when
    objects: int = 0
    counted_from: tuple[int, float, float] | None = None  # objects, when, the subject's CPU then
    counted_to: tuple[int, float, float] = (0, 0.0, 0.0)

    def hear_until(self, records: int, heard: Iterator[tuple[str, Line]]) -> None:
        """Take in lines until that many records are stored."""
        while len(self.stored) < records:
            _, line = next(heard)
            self._take(line)

    def _take(self, line: Line) -> None:
        fields = line.fields
        if fields.get("event") != "Uploaded":
            return
        found = _KEY.fullmatch(str(fields["key"]))
        if found is None:
            message = f"an object of another name: {fields['key']}"
            raise BenchError(message)
        self.objects += 1
        for offset in range(cast("int", fields["start"]), cast("int", fields["next"])):
            self.stored[int(found[1]), offset] = line.at
        if len(self.stored) >= self.case.records or (
            self.counted_from is None and len(self.stored) >= self.case.warm_up
        ):
            self.counted_to = (self.objects, line.at, line.cpu_seconds)
            self.counted_from = self.counted_from or self.counted_to

    def figures(self, sent: Mapping[tuple[int, int], float], peak_memory_bytes: int) -> Figures:
        objects_before, began, cpu_before = self.counted_from or self.counted_to
        objects, ended, cpu = self.counted_to
        counted = objects - objects_before
        waits = [self.stored[place] - at for place, at in sent.items()]
        percentiles = quantiles(waits, n=100) if waits else None
        return Figures(
            objects=objects,
            objects_per_second=counted / (ended - began),
            cpu_seconds_per_object=(cpu - cpu_before) / counted,
            p50_seconds=percentiles[49] if percentiles else None,
            p99_seconds=percentiles[98] if percentiles else None,
            longest_seconds=max(waits) if waits else None,
            peak_memory_bytes=peak_memory_bytes,
        )


def run(case: Case, kafka: Kafka, s3: S3) -> Figures:
    """Run the case once. Raises BenchError when the figures would be void."""
    topic, bucket = asyncio.run(_prepare(case, kafka, s3))
    inbox: queue.SimpleQueue[tuple[str, Line]] = queue.SimpleQueue()
    settings = {
        **s3.environ(),
        **case.settings,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": topic,
        "S3_BUCKET": bucket,
        "LOG_FORMAT": "json",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": "0",
    }
    observed, sent = _Observed(case), {}
    with MeasuredProcess(case.module, [case.module], settings, inbox) as subject:
        heard = lines(inbox, [subject])
        if case.per_second is None:
            observed.hear_until(case.records, heard)
        else:  # what is measured is sent when all before it is stored: a slow start is no latency
            pacer = partial(Pacer, kafka, topic, partitions=case.partitions, per_second=case.per_second)
            with pacer(numbers=range(case.warm_up)):
                observed.hear_until(case.warm_up, heard)
            with pacer(numbers=range(case.warm_up, case.records)) as measured:
                observed.hear_until(case.records, heard)
            sent = measured.sent
        peak = subject.peak_memory_bytes()
        exit_code = subject.stop()
    if exit_code:
        message = f"{case.module} ended with exit code {exit_code}: the figures are void"
        raise BenchError(message)
    check_objects(case, s3.folder(bucket))
    return observed.figures(sent, peak)


async def _prepare(case: Case, kafka: Kafka, s3: S3) -> tuple[str, str]:
    topic = await kafka.create_topic(case.partitions)
    if case.per_second is None:
        await lay_down(kafka, topic, partitions=case.partitions, records=case.records)
    return topic, await s3.create_bucket()


def check_objects(case: Case, folder: Path) -> None:
    """Raises BenchError unless every record is in one object and in one only.

    Read from the folder in which the server keeps its bucket, which is much faster than by GET.
    """
    numbers: Counter[int] = Counter()
    objects = [path for path in folder.iterdir() if _KEY.fullmatch(path.name)]
    for path in objects:
        numbers.update(json.loads(line)["number"] for line in path.read_bytes().splitlines())
    missing = case.records - len(numbers)
    doubled = sum(count - 1 for count in numbers.values())
    crowded = case.one_a_record and len(objects) != case.records
    if missing or doubled or crowded:
        message = (
            f"{case.module}: of {case.records:,} records {missing:,} are missing and {doubled:,} doubled, in "
            f"{len(objects):,} objects: the figures are void"
        )
        raise BenchError(message)


def original(module: str, *, records: int, warm_up: int, per_second: float | None = None) -> Case:
    """An object a record, 8 partitions."""
    return Case(
        module=module,
        settings=ORIGINAL,
        partitions=8,
        records=records,
        warm_up=warm_up,
        per_second=per_second,
    )


def timed(*, records: int, warm_up: int, per_second: float, seconds: float) -> Case:
    """Batches that end by time alone, 8 partitions."""
    settings = {**PLAIN, "BATCH_MAX_SECONDS": f"{seconds:g}"}
    return Case(module=OURS, settings=settings, partitions=8, records=records, warm_up=warm_up, per_second=per_second)
