"""The report of the producer's benchmark, for people (Markdown) and for machines (JSON).

Owns: the goals, the tables, what the figures stood on. Does not own: measuring (`producer_runs`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench import provenance
from bench.producer_runs import PARTITIONS
from bench.quotes_api import TICKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.producer_runs import Case, Figures

COMMAND = "make bench-producer"
LIBRARIES = ("aiokafka", "httpx", "msgspec", "uvloop")
MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One figure of the table: of which case, how it is taken from a run, its unit, its goal if it has one."""

    text: str
    case: str
    take: Callable[[Figures], float | None]
    unit: str
    digits: int = 0
    goal: float | None = None


def _publish_ms(figures: Figures) -> float | None:
    return None if figures.publish_median_seconds is None else 1000 * figures.publish_median_seconds


def _publish_longest_ms(figures: Figures) -> float | None:
    return None if figures.publish_longest_seconds is None else 1000 * figures.publish_longest_seconds


def _cpu_ms(figures: Figures) -> float:
    return 1000 * figures.cpu_seconds_per_poll


def _peak_mb(figures: Figures) -> float:
    return figures.peak_memory_bytes / MB


ROWS = (
    _Row(text="`all`: last byte → all acknowledged", case="all", take=_publish_ms, unit="ms", goal=300),
    _Row(text="`all`: the same, slowest poll of a run", case="all", take=_publish_longest_ms, unit="ms"),
    _Row(text="`all`: CPU a poll", case="all", take=_cpu_ms, unit="ms", goal=250),
    _Row(text="`all`: peak RSS", case="all", take=_peak_mb, unit="MB", digits=1, goal=120),
    _Row(text="`changed`, nothing changed: CPU a poll", case="changed", take=_cpu_ms, unit="ms", goal=60),
    _Row(text="`changed`, nothing changed: peak RSS", case="changed", take=_peak_mb, unit="MB", digits=1),
    _Row(text="`changed`, nothing changed, ETag: CPU a poll", case="changed-etag", take=_cpu_ms, unit="ms", digits=1),
    _Row(
        text="original mode every 2 s: share of a core",
        case="original",
        take=lambda figures: figures.core_percent,
        unit="%",
        digits=2,
        goal=1,
    ),
    _Row(text="original mode: peak RSS", case="original", take=_peak_mb, unit="MB", digits=1),
    _Row(
        text="start to first request: CPU",
        case="all",
        take=lambda figures: 1000 * figures.start_cpu_seconds,
        unit="ms",
    ),
    _Row(
        text="start to first request: peak RSS",
        case="all",
        take=lambda figures: figures.start_memory_bytes / MB,
        unit="MB",
        digits=1,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured. `figures`: the runs of each case."""

    cases: Mapping[str, Case]
    figures: Mapping[str, Sequence[Figures]]
    about: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """`producer.md` and `producer.json` in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "producer.md").write_text(self.markdown())
        measured = {
            name: {"case": asdict(self.cases[name]), "runs": [asdict(run) for run in runs]}
            for name, runs in self.figures.items()
        }
        document = {"about": dict(self.about), "cases": measured}
        (folder / "producer.json").write_text(json.dumps(document, indent=2) + "\n")

    def markdown(self) -> str:
        """The report as text."""
        runs = max(len(runs) for runs in self.figures.values())
        snapshot = next((runs[0] for name, runs in self.figures.items() if self.cases[name].path == TICKERS), None)
        body = (
            f", {snapshot.plain_bytes:,} bytes, {snapshot.gzipped_bytes:,} of them on the wire, gzipped"
            if snapshot
            else ""
        )
        table = [
            "| figure | goal | ours | spread | stock loop | spread |",
            "|---|---:|---:|---|---:|---|",
            *self._rows(),
        ]
        return "\n\n".join(
            (
                "# The producer, measured",
                INTRODUCTION.format(runs=runs),
                "\n".join(table),
                f"The body: 10,000 quotes in the vendor's snapshot shape{body}. The topic has {PARTITIONS} partitions.",
                HOW,
                "\n".join(f"- {name}: {value}" for name, value in self.about.items()) + "\n",
            )
        )

    def _rows(self) -> list[str]:
        found = []
        for row in ROWS:
            if row.case not in self.figures:
                continue
            goal = "" if row.goal is None else f"≤ {_number(row.goal, row.digits)} {row.unit}"
            ours = self._cells(row, row.case)
            stock = self._cells(row, f"{row.case}-stock")
            found.append(f"| {row.text} | {goal} | {' | '.join(ours)} | {' | '.join(stock)} |")
        return found

    def _cells(self, row: _Row, case: str) -> tuple[str, str]:
        values = [value for run in self.figures.get(case, ()) if (value := row.take(run)) is not None]
        if not values:
            return "", ""
        low, high = _number(min(values), row.digits), _number(max(values), row.digits)
        return f"{_number(median(values), row.digits)} {row.unit}", f"{low} … {high}"


INTRODUCTION = f"""\
Made by `{COMMAND}`: the median of {{runs}} runs and their spread. The stock loop is
`bench/baselines/stock_producer.py`: httpx and aiokafka as people write it, with the same settings, run in turn with
ours."""
HOW = """\
*Last byte → all acknowledged*: from the moment the API's process has given the last byte of an answer to the kernel
to the moment the bench reads the line `Message sent`, which is logged when all records of the poll are acknowledged;
the median of a run's polls. The broker is one process on the same machine. What lies in socket buffers is counted, so
the figure errs on the high side. *CPU a poll*: user and system time of the process, all threads, between the arrival
of the first request after the warm-up and of the first one after the measured polls, divided by the polls: whole
periods, with whatever the process does between polls. *Peak RSS*: the kernel's VmHWM at the end of a run. *Nothing
changed*: every answer brings the same quotes under another request id; with *ETag* the API answers 304. A run counts
only when the topic then holds every record of every poll exactly once and the process ends with exit code 0."""


def about() -> dict[str, str]:
    """What the figures stood on."""
    return provenance.about(COMMAND, LIBRARIES)


def line(figures: Figures) -> str:
    """A run in one line."""
    publish = _publish_ms(figures)
    shown = "" if publish is None else f", {publish:.0f} ms to all acknowledged"
    return (
        f"{_cpu_ms(figures):.1f} ms CPU a poll ({figures.core_percent:.2f} %){shown}, "
        f"peak {_peak_mb(figures):.1f} MB, {figures.records:,} records"
    )


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"
