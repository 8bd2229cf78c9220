"""The benchmark of small and timely objects, in its quickest form: that it works, and that it does not lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench import latency_report
from bench.latency import measure
from bench.latency_load import quote
from bench.latency_report import FLAT, PACED, stock_of
from bench.latency_runs import OURS, STOCK, check_objects, original
from bench.process import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import S3, Kafka


def test_small_objects_are_measured_beside_the_stock_loop(kafka: Kafka, s3: S3, tmp_path: Path) -> None:
    cases = {
        PACED: original(OURS, records=60, warm_up=10, per_second=50),
        stock_of(FLAT): original(STOCK, records=60, warm_up=10),
    }
    said: list[str] = []
    found = measure(kafka, s3, cases, 1, said.append)
    (ours,), (stock,) = found[PACED], found[stock_of(FLAT)]
    assert (ours.objects, stock.objects, len(said)) == (60, 60, 2)
    assert ours.p50_seconds is not None
    assert ours.longest_seconds is not None
    assert 0 < ours.p50_seconds <= ours.longest_seconds
    assert stock.p50_seconds is None
    report = latency_report.Report(cases=cases, figures=found, about=latency_report.about("ministack"))
    report.write(tmp_path)
    assert "records/s: record to object, p50 | ≤ 15 ms | " in (tmp_path / "latency.md").read_text()
    assert json.loads((tmp_path / "latency.json").read_text())["cases"][PACED]["runs"][0]["objects"] == 60


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([[0], [1]], None),
        ([[0]], "1 are missing and 0 doubled, in 1 objects"),
        ([[0], [1], [1]], "0 are missing and 1 doubled, in 3 objects"),
        ([[0, 1]], "0 are missing and 0 doubled, in 1 objects"),
    ],
)
def test_figures_are_void_unless_each_record_is_one_object(
    objects: list[list[int]], said: str | None, tmp_path: Path
) -> None:
    for place, numbers in enumerate(objects):
        lines = b"".join(quote(number) + b"\n" for number in numbers)
        (tmp_path / f"stock_market_1764062405_0_{place}.json").write_bytes(lines)
    case = original(OURS, records=2, warm_up=0)
    if said is None:
        check_objects(case, tmp_path)
        return
    with pytest.raises(BenchError, match=said):
        check_objects(case, tmp_path)
