"""The goals of the consumer's benchmark, and how each figure is taken from a run.

Owns: what is promised, in numbers, and whether a figure keeps it. Does not own: the runs (`consumer_runs`), the tables
(`consumer_report`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.health import LoopMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.consumer_runs import Figures

MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure with a goal: of which case, how it is taken from a run, which way is better.

    `over`: another case; the figure is then the ratio of the two medians.
    """

    text: str
    case: str
    take: Callable[[Figures], float | None]
    unit: str = ""
    digits: int = 2
    at_most: float | None = None
    at_least: float | None = None
    over: str | None = None


def cpu_seconds(figures: Figures) -> float:
    """A million records'."""
    return figures.cpu_seconds_per_million


def records_per_second(figures: Figures) -> float:
    """Of the window."""
    return figures.records_per_second


def megabytes_per_second(figures: Figures) -> float:
    """Values, before compression."""
    return figures.bytes_per_second / MB


def peak_megabytes(figures: Figures) -> float:
    """VmHWM."""
    return figures.peak_memory_bytes / MB


def block_ms(figures: Figures) -> float | None:
    """The bound below which 99.9 % of the loop's turns were late, its error added; None where the sink tells none."""
    if figures.block_p999_seconds is None:
        return None
    return 1000 * (figures.block_p999_seconds + LoopMonitor.BUSY_SECONDS)


CPU = "CPU-s per million"
GOALS = (
    Goal(text=f"gzip, everything on: {CPU}", case="plain", take=cpu_seconds, at_most=1.5),
    Goal(text=f"gzip, without validation and hash: {CPU}", case="unvalidated", take=cpu_seconds, at_most=1.15),
    Goal(text=f"zstd objects, everything on: {CPU}", case="zstd", take=cpu_seconds, at_most=1.6),
    Goal(text="gzip: records/s, one process", case="plain", take=records_per_second, digits=0, at_least=600_000),
    Goal(
        text="gzip: values, one process", case="plain", take=megabytes_per_second, unit="MB/s", digits=0, at_least=120
    ),
    Goal(text="gzip: peak RSS, 16 MiB batches", case="plain", take=peak_megabytes, unit="MB", digits=0, at_most=220),
    Goal(text="`MEMORY_LIMIT_BYTES` = 64 MiB: peak RSS", case="small-memory", take=peak_megabytes, unit="MB", digits=0),
    Goal(text=f"`MEMORY_LIMIT_BYTES` = 64 MiB: {CPU}", case="small-memory", take=cpu_seconds),
    Goal(
        text="2 processes against 1: records/s",
        case="two",
        over="plain",
        take=records_per_second,
        unit="times",
        at_least=1.7,
    ),
    Goal(text=f"1 KiB: {CPU}", case="1kib", take=cpu_seconds, at_most=6),
    Goal(text="1 KiB: values", case="1kib", take=megabytes_per_second, unit="MB/s", digits=0, at_least=150),
    Goal(text=f"50 B: {CPU}", case="50b", take=cpu_seconds, at_most=0.45),
    Goal(text="50 B: records/s", case="50b", take=records_per_second, digits=0, at_least=2_000_000),
    Goal(text=f"200 B, zstd topic: {CPU}", case="zstd-topic", take=cpu_seconds),
    Goal(text=f"200 B, zstd topic, our producer's headers: {CPU}", case="headers", take=cpu_seconds, at_most=2.2),
    Goal(text=f"200 B, wire batches of 16 KiB (Java's default): {CPU}", case="batches-of-16-kib", take=cpu_seconds),
    Goal(text=f"200 B, wire batches of 5 records: {CPU}", case="batches-of-5", take=cpu_seconds, at_most=6),
    Goal(text="200 B, zstd topic: peak RSS", case="zstd-topic", take=peak_megabytes, unit="MB", digits=0),
    Goal(text="200 B, zstd topic, headers: peak RSS", case="headers", take=peak_megabytes, unit="MB", digits=0),
    Goal(text="gzip: loop's block, p99.9, at most", case="plain", take=block_ms, unit="ms", digits=0, at_most=25),
    Goal(text="200 B, zstd topic, headers: the same", case="headers", take=block_ms, unit="ms", digits=0),
    Goal(text="200 B, wire batches of 5 records: the same", case="batches-of-5", take=block_ms, unit="ms", digits=0),
)


def bound(goal: Goal) -> str:
    """The goal as a cell; empty when there is none."""
    unit = f" {goal.unit}" if goal.unit else ""
    if goal.at_most is not None:
        return f"≤ {goal.at_most:,g}{unit}"
    return "" if goal.at_least is None else f"≥ {goal.at_least:,.{0 if goal.at_least >= 10 else 1}f}{unit}"  # noqa: PLR2004


def verdict(goal: Goal, value: float) -> str:
    """Whether the value keeps the goal; empty when there is none."""
    if goal.at_most is None and goal.at_least is None:
        return ""
    met = value <= goal.at_most if goal.at_most is not None else value >= (goal.at_least or 0.0)
    return "met" if met else "missed"


def number(value: float, digits: int) -> str:
    """As the tables show it."""
    return f"{value:,.{digits}f}"
