from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from bench import provenance
from bench.consumer import cases
from bench.consumer_report import Report
from bench.products import PRODUCTS
from tests.unit.bench.figures import figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.consumer_runs import Figures


def report(**measured: Sequence[Figures]) -> Report:
    about = provenance.about("make bench", ["aiokafka"])
    return Report(cases=cases(), figures=measured, about=about, cores=2)


THREE = [
    figures(1.4, block_p999_seconds=0.01),
    figures(1.2, block_p999_seconds=0.05, block_longest_seconds=math.inf),
    figures(1.9),
]


def test_the_median_stands_beside_its_spread_and_its_goal() -> None:
    text = report(plain=THREE).markdown()
    assert "| gzip, everything on: CPU-s per million | ≤ 1.5 | 1.40 | 1.20 … 1.90 | met |" in text
    assert "| gzip: records/s, one process | ≥ 600,000 | 500,000 | 500,000 … 500,000 | missed |" in text
    assert "| gzip: loop's block, p99.9, at most | ≤ 25 ms | 35 ms | 15 … 55 | missed |" in text


def test_two_processes_are_told_as_a_ratio_to_one() -> None:
    faster = [replace(run, wall_seconds=1.0) for run in THREE]
    text = report(plain=THREE, two=faster).markdown()
    assert "| 2 processes against 1: records/s | ≥ 1.7 times | 2.00 times | 2.00 … 2.00 | met |" in text
    assert "2 processes" not in report(two=faster).markdown().partition("## The topics")[0]


def test_what_the_cores_leave_for_two_processes_is_told() -> None:
    together = figures(1.5, kafka_cpu_seconds=0.3, s3_cpu_seconds=0.2)
    text = report(plain=THREE, two=[together]).markdown()
    assert "2.00 CPU-seconds in all, of which 2 cores give at most 1,000,000 records/s: more than 2.00 times" in text


def test_what_was_not_measured_is_not_in_the_table() -> None:
    text = report(plain=THREE).markdown()
    assert "zstd objects" not in text
    assert "aioboto3, careful" not in text
    assert "2,013,216 | 200 | none" in text


def test_products_are_quoted_as_not_run_again() -> None:
    text = report(plain=THREE).markdown()
    assert all(f"| {product.name} | {product.cpu_seconds_per_million:g} |" in text for product in PRODUCTS)
    assert "**not** run again" in text


def test_machines_get_every_run_as_it_was(tmp_path: Path) -> None:
    report(plain=THREE, stock=[figures(8.0)]).write(tmp_path)
    told = json.loads((tmp_path / "consumer.json").read_text(), parse_constant=pytest.fail)
    assert [run["cpu_seconds"] for run in told["cases"]["plain"]["runs"]] == [1.4, 1.2, 1.9]
    assert told["cases"]["plain"]["median_cpu_seconds_per_million"] == 1.4
    assert told["about"]["command"] == "make bench"
    assert (tmp_path / "consumer.md").read_text().startswith("# The consumer, measured")


def test_the_charts_bars_are_as_long_as_their_numbers_and_stay_on_it() -> None:
    drawn = ET.fromstring(report(plain=THREE, stock=[figures(8.0)]).chart())
    space = "{http://www.w3.org/2000/svg}"
    bars = [each for each in drawn.iter(f"{space}rect") if each.get("height") == "16"]
    assert len(bars) == 2 + len(PRODUCTS)
    kinds = [bar.get("class") for bar in bars]
    assert (kinds.count("ours"), kinds.count("measured")) == (1, 1)
    (ours,), longest = [bar for bar in bars if bar.get("class") == "ours"], bars[-1]
    shares = float(ours.get("width", "0")) / float(longest.get("width", "0"))
    assert abs(shares - 1.4 / 38) < 0.001
    right = float(longest.get("x", "0")) + float(longest.get("width", "0"))
    assert right < float(drawn.get("width", "0")) - 40
    assert {"1.40", "8.00", "38"} <= {each.text for each in drawn.iter(f"{space}text")}
