"""What follows from the consumer's figures: the README's table, docs/scaling.md: `python -m bench.first_page`.

Owns: which figures stand on the first page. Does not own: the reports they are taken from (docs/benchmarks/*.json), the
words, the scale model (`scaling`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, cast

from bench import scaling
from bench.process import ROOT
from bench.scaling import with_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

README: Final = ROOT / "README.md"
CONSUMER: Final = ROOT / "docs" / "benchmarks" / "consumer.json"
MB: Final = 1_000_000

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A sink of the consumer's report, or what it does with another topic."""

    text: str
    case: str


SINKS: Final = (
    Row(text="**ticklake**, gzip, everything on", case="plain"),
    Row(text="**ticklake**, zstd, everything on", case="zstd"),
    Row(text="**ticklake**, gzip, without validation and hash", case="unvalidated"),
    Row(text="aiokafka + aioboto3, careful lines", case="stock"),
    Row(text="confluent-kafka + boto3", case="confluent"),
    Row(text="Kafka's `ConsumerPerformance` (reads, keeps nothing)", case="read-limit"),
)
TOPICS: Final = (
    Row(text="ticklake, quotes of 1 KiB", case="1kib"),
    Row(text="ticklake, trades of 50 B", case="50b"),
    Row(text="ticklake, 200 B with our producer's seven headers", case="headers"),
    Row(text="ticklake, 200 B in wire batches of five records", case="batches-of-5"),
)


def table(document: Document) -> str:
    """Medians of the runs, a row a sink and a row a topic."""
    cases = cast("Mapping[str, Document]", document["cases"])
    rows = ["| sink | CPU-s per million | records/s | values | peak RSS |", "|---|---:|---:|---:|---:|"]
    rows += [_cells(row, cases[row.case]) for row in (*SINKS, *TOPICS) if row.case in cases]
    return "\n".join(rows)


def _cells(row: Row, case: Document) -> str:
    runs = cast("Sequence[Mapping[str, float]]", case["runs"])
    cpu = median(run["cpu_seconds"] / run["records"] * 1e6 for run in runs)
    rate = median(run["records"] / run["wall_seconds"] for run in runs)
    values = median(run["value_bytes"] / run["wall_seconds"] / MB for run in runs)
    peak = median(run["peak_memory_bytes"] / MB for run in runs)
    return f"| {row.text} | {cpu:.2f} | {rate:,.0f} | {values:.0f} MB/s | {peak:.0f} MB |"


def filled(readme: str, document: Document) -> str:
    """The README with the table in its place."""
    return with_tables(readme, {"consumer": table(document)})


def main() -> int:
    """Write the table into the README, and docs/scaling.md anew, which reckons with the CPU measured."""
    README.write_text(filled(README.read_text(), json.loads(CONSUMER.read_text())))
    scaling.write(scaling.tables(json.loads(scaling.FIGURES.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
