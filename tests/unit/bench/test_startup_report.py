"""The report of the starts: medians and spread of every figure, with its goal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench import startup_report
from bench.startup import MARKS, Figures, Imported, Moment

if TYPE_CHECKING:
    from pathlib import Path


def started(seconds: float) -> dict[str, Moment]:
    return {
        event: Moment(seconds=seconds + number, cpu_seconds=seconds / 2, memory_bytes=80_000_000 + number)
        for number, event in enumerate(MARKS)
    }


def imported(seconds: float) -> Imported:
    return Imported(cpu_seconds=seconds, memory_bytes=70_000_000)


def test_the_report_has_the_goals_beside_the_median_and_the_spread_of_the_runs(tmp_path: Path) -> None:
    cases = ("first", "again", "first-default-broker", "again-default-broker")
    figures = Figures(
        starts={case: [started(0.5), started(0.25), started(0.75)] for case in cases},
        imports={"consumer": [(imported(ours), imported(0.6)) for ours in (0.7, 0.72, 0.6)]},
    )
    startup_report.write(figures, tmp_path)
    text = (tmp_path / "startup.md").read_text()
    assert "| start to first fetch: layout and group are there | ≤ 4 s | 3.50 s | 3.25 … 3.75 |" in text
    assert "| imports of the consumer: ours more | ≤ 0.15 s | 0.10 s | 0.00 … 0.12 |" in text
    assert "| joined the group | 2.50 s (2.25 … 2.75) | 0.25 CPU-s (0.12 … 0.38) | 80 MB (80 … 80) |" in text
    document = json.loads((tmp_path / "startup.json").read_text())
    assert document["starts"]["again"][2]["Uploaded"]["seconds"] == 4.75
    assert document["about"]["command"] == "make bench-startup"
