"""At the end of a run: what was explored, world by world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.exploration.runs import HEAD, line, total

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    rows = [dict(report.user_properties)["explored"] for report in passed if "explored" in dict(report.user_properties)]
    if rows:
        terminalreporter.section("explored exhaustively")
        terminalreporter.write_line(HEAD)
        for row in sorted(rows):
            terminalreporter.write_line(line(*row))
        terminalreporter.write_line(total([tuple(row[1:]) for row in rows]))
