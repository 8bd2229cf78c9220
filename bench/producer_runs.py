"""One measured run of a producer: an API of its own, a topic of its own, an exact number of polls.

Owns: what is counted from which moment to which, when a run is void. Does not own: the process (`process`), the list of
cases and the table (`producer`, `producer_report`).

Invariants: CPU a poll is a slope: from the arrival of the first request after the warm-up to the arrival of the first
request after the measured polls, whole cycles, waits between polls included, start-up not. Figures are void
(BenchError) unless the topic then holds exactly the records of all polls and the process ends with exit code 0.
"""

from __future__ import annotations

import asyncio
import queue
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, cast

from bench.process import BenchError, Line, MeasuredProcess, lines
from bench.quotes_api import PRICES, TICKERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.servers import Kafka

PARTITIONS = 6
OURS, STOCK = "producer", "bench.baselines.stock_producer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run. `first_records`: published by the first poll; `later_records`: by each one after it."""

    module: str
    path: str
    select: str
    api_records: int
    first_records: int
    later_records: int
    period_seconds: float
    warm_up_polls: int
    measured_polls: int
    validators: bool = False

    @property
    def polls(self) -> int:
        """All polls that are answered with records."""
        return self.warm_up_polls + self.measured_polls

    @property
    def expected_records(self) -> int:
        """What the topic must hold at the end."""
        return self.first_records + (self.polls - 1) * self.later_records

    @property
    def expected_lines(self) -> int:
        """How many polls log a `Message sent`."""
        return self.polls if self.later_records else 1

    def settings(self, url: str, kafka: str, topic: str) -> dict[str, str]:
        """The environment variables, as a user would set them."""
        pointer, key = ("/tickers", "/ticker") if self.path == TICKERS else ("", "/symbol")
        return {
            "API_URL": url,
            "API_RECORDS_POINTER": pointer,
            "RECORD_KEY_POINTER": key,
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "KAFKA_TOPIC": topic,
            "POLL_INTERVAL_SECONDS": f"{self.period_seconds:g}",
            "SELECT": self.select,
            "LOG_FORMAT": "json",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. `publish_seconds`: last byte of an answer given to the kernel → the line that says all is acknowledged
    read by the bench; the median and the longest of the measured polls, None where polls publish nothing.
    """

    cpu_seconds_per_poll: float
    core_percent: float
    publish_median_seconds: float | None
    publish_longest_seconds: float | None
    start_cpu_seconds: float
    start_memory_bytes: int
    peak_memory_bytes: int
    records: int
    plain_bytes: int
    gzipped_bytes: int


@dataclass(slots=True)
class _Observed:
    """What the lines of a run said."""

    case: Case
    asked: dict[int, tuple[float, float]] = field(default_factory=dict)  # request → when, the subject's CPU then
    written: dict[int, float] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    start_memory_bytes: int = 0

    def take(self, who: str, line: Line, subject: MeasuredProcess) -> None:
        fields = line.fields
        if who == "api" and "asked" in fields:
            number = cast("int", fields["request"])
            self.asked[number] = (cast("float", fields["asked"]), subject.cpu_seconds())
            if number == 1:
                self.start_memory_bytes = subject.peak_memory_bytes()
        elif who == "api" and "written" in fields:
            self.written[cast("int", fields["request"])] = cast("float", fields["written"])
        elif fields.get("event") == "Message sent":
            self.sent.append(line.at)

    @property
    def complete(self) -> bool:
        return self.case.polls + 1 in self.asked and len(self.sent) >= self.case.expected_lines

    def figures(self, peak_memory_bytes: int, records: int, body: Mapping[str, object]) -> Figures:
        case = self.case
        began, cpu_began = self.asked[case.warm_up_polls + 1]
        ended, cpu_ended = self.asked[case.polls + 1]
        waits: Sequence[float] = ()
        if case.later_records:
            numbers = range(case.warm_up_polls + 1, case.polls + 1)
            waits = [self.sent[number - 1] - self.written[number] for number in numbers]
        return Figures(
            cpu_seconds_per_poll=(cpu_ended - cpu_began) / case.measured_polls,
            core_percent=100 * (cpu_ended - cpu_began) / (ended - began),
            publish_median_seconds=median(waits) if waits else None,
            publish_longest_seconds=max(waits) if waits else None,
            start_cpu_seconds=self.asked[1][1],
            start_memory_bytes=self.start_memory_bytes,
            peak_memory_bytes=peak_memory_bytes,
            records=records,
            plain_bytes=cast("int", body["plain_bytes"]),
            gzipped_bytes=cast("int", body["gzipped_bytes"]),
        )


def run(case: Case, kafka: Kafka) -> Figures:
    """Run the case once. Raises BenchError when the figures would be void."""
    topic = asyncio.run(kafka.create_topic(PARTITIONS))
    inbox: queue.SimpleQueue[tuple[str, Line]] = queue.SimpleQueue()
    command = ["bench.quotes_api", "--path", case.path, "--records", str(case.api_records)]
    command += ["--answers", str(case.polls)] + (["--validators"] if case.validators else [])
    with MeasuredProcess("api", command, {}, inbox) as api:
        _, ready = next(lines(inbox, [api]))
        settings = case.settings(str(ready.fields["url"]), kafka.bootstrap_servers, topic)
        with MeasuredProcess(case.module, [case.module], settings, inbox) as subject:
            observed = _Observed(case)
            for who, said in lines(inbox, [api, subject]):
                observed.take(who, said, subject)
                if observed.complete:
                    break
            peak = subject.peak_memory_bytes()
            exit_code = subject.stop()
    records = sum(asyncio.run(kafka.end_offsets(topic)).values())
    check(case, records, exit_code)
    return observed.figures(peak, records, ready.fields)


def check(case: Case, records: int, exit_code: int) -> None:
    """Raises BenchError unless the topic holds exactly the records of all polls and the process ended well."""
    if exit_code or records != case.expected_records:
        message = (
            f"{case.module}, {case.select}: {records:,} records in the topic after {case.polls} polls, "
            f"{case.expected_records:,} expected; exit code {exit_code}: the figures are void"
        )
        raise BenchError(message)


def quotes(module: str, select: str, *, warm_up: int, measured: int, validators: bool = False) -> Case:
    """A snapshot of 10,000 quotes, polled every second."""
    count = 10_000
    return Case(
        module=module,
        path=TICKERS,
        select=select,
        api_records=count,
        first_records=count,
        later_records=count if select == "all" else 0,
        period_seconds=1.0,
        warm_up_polls=warm_up,
        measured_polls=measured,
        validators=validators,
    )


def original(module: str, *, warm_up: int, measured: int) -> Case:
    """The original system: one random record of a bare array every 2 s."""
    return Case(
        module=module,
        path=PRICES,
        select="random",
        api_records=500,
        first_records=1,
        later_records=1,
        period_seconds=2.0,
        warm_up_polls=warm_up,
        measured_polls=measured,
    )
