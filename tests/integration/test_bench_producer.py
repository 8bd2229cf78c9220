"""The benchmark of the producer, in its quickest form. Ratios only: no machine's speed is tested."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench import producer_report
from bench.process import BenchError
from bench.producer import measure
from bench.producer_runs import OURS, STOCK, original, quotes, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Kafka

CHEAPER = 1.5  # measured: above 3


def test_a_poll_of_10000_quotes_costs_much_less_than_in_the_stock_loop(kafka: Kafka, tmp_path: Path) -> None:
    cases = {
        "all": quotes(OURS, "all", warm_up=1, measured=3),
        "all-stock": quotes(STOCK, "all", warm_up=1, measured=2),
    }
    said: list[str] = []
    found = measure(kafka, cases, 1, said.append)
    (ours,), (stock,) = found["all"], found["all-stock"]
    assert (ours.records, stock.records) == (40_000, 30_000)
    assert ours.cpu_seconds_per_poll * CHEAPER <= stock.cpu_seconds_per_poll
    assert len(said) == 2
    report = producer_report.Report(cases=cases, figures=found, about=producer_report.about())
    report.write(tmp_path)
    assert "| `all`: CPU a poll | ≤ 250 ms | " in (tmp_path / "producer.md").read_text()
    assert json.loads((tmp_path / "producer.json").read_text())["cases"]["all"]["runs"][0]["records"] == 40_000


def test_figures_are_void_when_the_topic_does_not_hold_what_was_polled(kafka: Kafka) -> None:
    case = original(OURS, warm_up=1, measured=1)
    with pytest.raises(BenchError, match="2 records in the topic after 2 polls, 502 expected"):
        run(replace(case, later_records=501), kafka)
