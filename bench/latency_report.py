"""The report of objects that are small or timely, for people (Markdown) and for machines (JSON).

Owns: the goals, the table, the words. Does not own: measuring (`latency_runs`), what the machine is (`provenance`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import provenance
from bench.ground import s3_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.latency_runs import Case, Figures

COMMAND: Final = "make bench-latency"
LIBRARIES: Final = ("aioboto3", "aiobotocore", "aiohttp", "aiokafka", "uvloop")
FLAT: Final = "flat"
PACED: Final = "paced"
TIMED: Final = "timed"
BATCH_SECONDS: Final = 2.0
PER_SECOND: Final = 50
MB: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One figure of the table: of which case, how it is taken from a run, its unit, its goal if it has one."""

    text: str
    case: str
    take: Callable[[Figures], float | None]
    unit: str
    digits: int = 0
    goal: str = ""


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


ROWS: Final = (
    _Row(
        text=f"an object a record, {PER_SECOND} records/s: record to object, p50",
        case=PACED,
        take=lambda run: _ms(run.p50_seconds),
        unit="ms",
        digits=1,
        goal="≤ 15 ms",
    ),
    _Row(text="the same, p99", case=PACED, take=lambda run: _ms(run.p99_seconds), unit="ms", digits=1, goal="≤ 60 ms"),
    _Row(text="the same, the longest of a run", case=PACED, take=lambda run: _ms(run.longest_seconds), unit="ms"),
    _Row(
        text="the same, CPU an object",
        case=PACED,
        take=lambda run: _ms(run.cpu_seconds_per_object),
        unit="ms",
        digits=2,
    ),
    _Row(
        text="an object a record, flat out: objects a second",
        case=FLAT,
        take=lambda run: run.objects_per_second,
        unit="/s",
        goal="≥ 400 /s",
    ),
    _Row(
        text="the same, CPU an object",
        case=FLAT,
        take=lambda run: _ms(run.cpu_seconds_per_object),
        unit="ms",
        digits=2,
        goal="≤ 2.5 ms",
    ),
    _Row(text="the same, peak RSS", case=FLAT, take=lambda run: run.peak_memory_bytes / MB, unit="MB"),
    _Row(
        text=f"batches of {BATCH_SECONDS:g} s, {PER_SECOND} records/s: record to object, p99",
        case=TIMED,
        take=lambda run: run.p99_seconds,
        unit="s",
        digits=2,
        goal=f"≤ {BATCH_SECONDS + 0.5:g} s",
    ),
    _Row(text="the same, the longest of a run", case=TIMED, take=lambda run: run.longest_seconds, unit="s", digits=2),
)

INTRODUCTION: Final = f"""\
Made by `{COMMAND}`: medians of {{runs}} runs and their spread. The stock loop is `bench/baselines/original_sink.py`:
aiokafka and aioboto3 as careful people write an object a record, four puts at a time and a commit after them. It takes
turns with ours on the same servers, topic for topic. It does less: no condition on the put, no validation, no hash, no
checksum, no metadata, and a record is put twice after a crash."""
HOW: Final = """\
*Record to object*: from the moment the bench hands a record to its Kafka client to the moment it has read the line
`Uploaded` of the record's object, which is logged after the store has answered. Broker, pipe and the bench itself are
in it, so it errs on the high side. *Flat out*: the topic is full when the consumer starts; objects a second and CPU
are counted from the first line after the warm-up to the last line, start-up apart. *CPU*: user and system time of the
process, all threads. Everything runs on one machine: flat out, broker, S3 server and bench share its cores with what
is measured, so objects a second say what was left of them; CPU an object says what a core would bear. 8 partitions,
records of about 200 bytes. A run counts only when its bucket then holds every record in exactly one object and the
process ends with exit code 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured. `figures`: the runs of each case."""

    cases: Mapping[str, Case]
    figures: Mapping[str, Sequence[Figures]]
    about: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """`latency.md` and `latency.json` in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "latency.md").write_text(self.markdown())
        measured = {
            name: {"case": asdict(self.cases[name]), "runs": [asdict(run) for run in runs]}
            for name, runs in self.figures.items()
        }
        (folder / "latency.json").write_text(
            json.dumps({"about": dict(self.about), "cases": measured}, indent=2) + "\n"
        )

    def markdown(self) -> str:
        """The report as text."""
        runs = min(len(runs) for runs in self.figures.values())
        table = [
            "| figure | goal | ours | spread | stock loop | spread |",
            "|---|---:|---:|---|---:|---|",
            *(self._row(row) for row in ROWS if row.case in self.figures),
        ]
        parts = ("# Small and timely objects, measured", INTRODUCTION.format(runs=runs), "\n".join(table), HOW)
        return "\n\n".join((*parts, "\n".join(f"- {name}: {value}" for name, value in self.about.items()) + "\n"))

    def _row(self, row: _Row) -> str:
        ours, stock = self._cells(row, row.case), self._cells(row, stock_of(row.case))
        return f"| {row.text} | {row.goal} | {' | '.join(ours)} | {' | '.join(stock)} |"

    def _cells(self, row: _Row, case: str) -> tuple[str, str]:
        values = [value for run in self.figures.get(case, ()) if (value := row.take(run)) is not None]
        if not values:
            return "", ""
        middle, low, high = (f"{of(values):,.{row.digits}f}" for of in (median, min, max))
        return f"{middle} {row.unit}", f"{low} … {high}"


def stock_of(case: str) -> str:
    """The name of the same case run by the stock loop."""
    return f"{case}-stock"


def about(s3: str) -> dict[str, str]:
    """What the figures stood on."""
    return provenance.about(f"TEST_S3={s3} {COMMAND}", LIBRARIES, s3=s3_name(s3))


def line(run: Figures) -> str:
    """A run in one line."""
    waits = ""
    if run.p50_seconds is not None and run.p99_seconds is not None:
        waits = f"p50 {1000 * run.p50_seconds:.1f} ms, p99 {1000 * run.p99_seconds:.1f} ms, "
    cpu = f"{1000 * run.cpu_seconds_per_object:.2f} CPU-ms an object"
    return f"{waits}{run.objects_per_second:.0f} objects/s, {cpu}, peak {run.peak_memory_bytes / MB:.0f} MB"
