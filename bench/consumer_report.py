"""The report of the consumer's benchmark: for people (Markdown and a chart) and for machines (JSON).

Owns: the tables, which sinks stand beside each other. Does not own: measuring (`consumer_runs`), the goals
(`consumer_goals`), the words (`consumer_words`), what the figures stood on (`provenance`), others' figures
(`products`), the chart's geometry (`chart`).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench import chart
from bench.consumer_goals import (
    CPU,
    GOALS,
    Goal,
    bound,
    cpu_seconds,
    megabytes_per_second,
    number,
    peak_megabytes,
    records_per_second,
    verdict,
)
from bench.consumer_words import CEILING, HOW, INTRODUCTION
from bench.products import PRODUCTS, SOURCE, table
from bench.topics import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.consumer_runs import Case, Figures

TITLE = "CPU-seconds of the sink's process for a million 200-byte quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """One row of the comparison, and its bar on the chart."""

    text: str
    short: str
    case: str
    kind: str


KINDS = {"ours": "ours", "measured": "measured in the same run", "quoted": "measured before, quoted, not run again"}
SINKS = (
    Sink(
        text="**ticklake**, gzip 1 (ISA-L), everything on",
        short="ticklake, gzip",
        case="plain",
        kind="ours",
    ),
    Sink(
        text="**ticklake**, zstd 1, everything on",
        short="ticklake, zstd",
        case="zstd",
        kind="ours",
    ),
    Sink(
        text="**ticklake**, gzip 1, without validation and hash",
        short="ticklake, gzip, not validating",
        case="unvalidated",
        kind="ours",
    ),
    Sink(
        text="aiokafka + aioboto3, careful lines, gzip 6",
        short="aiokafka + aioboto3, gzip 6",
        case="stock",
        kind="measured",
    ),
    Sink(
        text="confluent-kafka + boto3, gzip 6",
        short="confluent-kafka + boto3, gzip 6",
        case="confluent",
        kind="measured",
    ),
    Sink(
        text="Kafka's own ConsumerPerformance: reads, keeps nothing",
        short="Kafka's ConsumerPerformance: reads only",
        case="read-limit",
        kind="measured",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was measured. `figures`: the runs of each case; `cores`: of the machine."""

    cases: Mapping[str, Case]
    figures: Mapping[str, Sequence[Figures]]
    about: Mapping[str, str]
    cores: int

    def write(self, folder: Path) -> None:
        """`consumer.md`, `consumer.json` and `consumer.svg` in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "consumer.md").write_text(self.markdown())
        (folder / "consumer.json").write_text(json.dumps(self.document(), indent=2) + "\n")
        (folder / "consumer.svg").write_text(self.chart())

    def document(self) -> dict[str, object]:
        """The report for machines: every run as it was measured."""
        measured = {
            name: {
                "case": asdict(self.cases[name]) | {"topic": self._topic(name)},
                "runs": [_plain(run) for run in runs],
                "median_cpu_seconds_per_million": round(self.median(name, cpu_seconds), 4),
            }
            for name, runs in self.figures.items()
        }
        quoted = {"source": SOURCE.replace("**", ""), "products": [asdict(product) for product in PRODUCTS]}
        return {"about": dict(self.about), "cases": measured, "quoted": quoted}

    def median(self, case: str, take: Callable[[Figures], float | None]) -> float:
        """Over the runs of a case."""
        return median(value for run in self.figures[case] if (value := take(run)) is not None)

    def markdown(self) -> str:
        """The report as text."""
        runs = max(len(runs) for runs in self.figures.values())
        about = "\n".join(f"- {name}: {value}" for name, value in self.about.items())
        parts = (
            "# The consumer, measured",
            INTRODUCTION.format(runs=runs, command=self.about["command"]),
            f"![{TITLE}](consumer.svg)",
            "## Beside other sinks, in the same run",
            self._comparison(),
            "## Beside products, measured before",
            f"{SOURCE}.",
            table(CPU),
            "## Goals",
            self._goals(),
            "## The topics",
            self._topics(),
            self._how(),
            about + "\n",
        )
        return "\n\n".join(parts)

    def chart(self) -> str:
        """CPU of ours against the others' as SVG."""
        rows = [
            chart.Bar(
                name=sink.short,
                value=(value := self.median(sink.case, cpu_seconds)),
                shown=f"{value:.2f}",
                kind=sink.kind,
            )
            for sink in SINKS
            if sink.case in self.figures
        ]
        rows += [
            chart.Bar(
                name=product.name,
                value=product.cpu_seconds_per_million,
                shown=f"{product.cpu_seconds_per_million:g}",
                kind="quoted",
            )
            for product in PRODUCTS
        ]
        note = f"Less is better. {self.about['machine']}; {self.about['date']}; {self.about['command']}"
        return chart.bars(TITLE, KINDS, sorted(rows, key=lambda row: row.value), note)

    def _comparison(self) -> str:
        found = [
            f"| sink | {CPU} | spread | records/s | spread | MB/s | peak RSS | stored | objects |",
            "|---|---:|---|---:|---|---:|---:|---:|---:|",
        ]
        for sink in SINKS:
            if sink.case not in self.figures:
                continue
            cpu, cpu_spread = self._cells(sink.case, cpu_seconds, 2)
            rate, rate_spread = self._cells(sink.case, records_per_second, 0)
            megabytes, _ = self._cells(sink.case, megabytes_per_second, 0)
            peak, _ = self._cells(sink.case, peak_megabytes, 0)
            first = self.figures[sink.case][0]
            stored = f"{first.stored_bytes / 1e6:.0f} MB" if first.objects else ""
            found.append(
                f"| {sink.text} | {cpu} | {cpu_spread} | {rate} | {rate_spread} | {megabytes} | {peak} MB "
                f"| {stored} | {first.objects or ''} |"
            )
        return "\n".join(found)

    def _goals(self) -> str:
        found = ["| figure | goal | measured | spread | |", "|---|---:|---:|---|---|"]
        for goal in GOALS:
            if goal.case not in self.figures or (goal.over and goal.over not in self.figures):
                continue
            told = self._measured(goal)
            if told is not None:
                found.append(f"| {goal.text} | {bound(goal)} | {told} |")
        return "\n".join(found)

    def _measured(self, goal: Goal) -> str | None:
        """Figure, spread and verdict of a goal as cells; None when no run told it."""
        values = [value for run in self.figures[goal.case] if (value := goal.take(run)) is not None]
        if not values:
            return None
        by = self.median(goal.over, goal.take) if goal.over else 1.0
        low, middle, high = (number(each / by, goal.digits) for each in (min(values), median(values), max(values)))
        kept = verdict(goal, median(values) / by)
        return f"{middle}{f' {goal.unit}' if goal.unit else ''} | {low} … {high} | {kept}"

    def _cells(self, case: str, take: Callable[[Figures], float | None], digits: int) -> tuple[str, str]:
        values = [value for run in self.figures[case] if (value := take(run)) is not None]
        low, middle, high = (number(each, digits) for each in (min(values), median(values), max(values)))
        return middle, f"{low} … {high}"

    def _topic(self, name: str) -> dict[str, object]:
        topic = self.cases[name].topic
        return {
            "name": topic.name,
            "records": topic.records,
            "value_bytes": topic.value_bytes,
            "compression": topic.compression,
            "headers": topic.headers,
            **topic.producer_settings(),
        }

    def _topics(self) -> str:
        found = [
            "| topic | records | bytes a value | compression | headers | wire batch, at most | objects a partition |"
        ]
        found.append("|---|---:|---:|---|---|---|---:|")
        seen = {case.topic: case for name, case in self.cases.items() if name in self.figures}
        for topic, case in seen.items():
            headers = "CloudEvents, as our producer's" if topic.headers else "none"
            found.append(
                f"| {topic.name} | {topic.records:,} | {topic.shape.value_bytes:,} | {topic.compression} | {headers} "
                f"| {topic.batch_records:,} records, {topic.batch_bytes:,} bytes | {case.objects} |"
            )
        return "\n".join(found) + f"\n\nAll have {PARTITIONS} partitions."

    def _how(self) -> str:
        """How it was measured; what the servers took beside ours."""
        case = "plain" if "plain" in self.figures else next(iter(self.figures))
        kafka = self.median(case, lambda run: run.kafka_cpu_seconds * 1e6 / run.records)
        s3 = self.median(case, lambda run: run.s3_cpu_seconds * 1e6 / run.records)
        loop = self.median(case, lambda run: 100 * run.loop_cpu_seconds / run.cpu_seconds)
        busy = self.median(case, lambda run: run.cpu_seconds / run.wall_seconds)
        return HOW.format(
            kafka=number(kafka, 2),
            s3=number(s3, 2),
            ceiling=self._ceiling(),
            loop=number(loop, 0),
            busy=number(busy, 2),
        )

    def _ceiling(self) -> str:
        """What the cores, shared with the servers, leave for two processes; empty where that was not measured."""
        if "two" not in self.figures or "plain" not in self.figures:
            return ""
        together = self.median("two", lambda run: run.all_cpu_seconds_per_million)
        limit = self.cores * 1e6 / together
        ratio = number(limit / self.median("plain", records_per_second), 2)
        return CEILING.format(together=number(together, 2), cores=self.cores, limit=number(limit, 0), ratio=ratio)


def _plain(figures: Figures) -> dict[str, object]:
    """For JSON, which has no infinity: a block beyond the histogram's last bound."""
    return {name: "inf" if value == math.inf else value for name, value in asdict(figures).items()}
