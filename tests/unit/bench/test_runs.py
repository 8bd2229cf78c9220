"""Which topics are loaded, when a run is void, what the smoke judges."""

from __future__ import annotations

import pytest

from bench import producer_report, read_limit, smoke
from bench.consumer import BATCH_BYTES, QUOTES, arguments, cases
from bench.process import BenchError
from bench.producer import cases as producer_cases
from bench.producer_runs import Figures as ProducerFigures
from bench.producer_runs import check

SAID = """\
start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, \
fetch.MB.sec, fetch.nMsg.sec
2026-11-25 20:00:00:000, 2026-11-25 20:00:02:000, 80.0, 40.0, 400000, 200000, 500, 1500, 53.3, 266666
"""


@pytest.mark.parametrize("records", [QUOTES, 700_000, 20_000])
def test_the_records_of_every_topic_fill_their_batches_to_the_byte(records: int) -> None:
    for name, case in cases(records).items():
        assert case.batch_bytes <= BATCH_BYTES, name
        assert case.batch_bytes * case.objects == case.topic.offsets * case.topic.shape.value_bytes, name
        assert int(case.environ()["BATCH_MAX_BYTES"]) == case.batch_bytes


def test_a_batch_takes_at_most_a_quarter_of_a_small_memory() -> None:
    small = cases()["small-memory"]
    assert small.batch_bytes * 4 <= int(small.environ()["MEMORY_LIMIT_BYTES"])


def test_the_figures_of_two_million_quotes_stand_on_about_as_many() -> None:
    assert abs(cases()["plain"].topic.records - QUOTES) < 0.01 * QUOTES
    assert arguments([]).records == QUOTES


def test_a_reader_that_did_not_read_everything_voids_its_figures() -> None:
    assert read_limit.fetch_seconds(SAID, 400_000) == 1.5
    assert read_limit.fetch_seconds("WARN something\n" + SAID, 400_000) == 1.5
    with pytest.raises(BenchError, match="read 400,000 of 400,001 records"):
        read_limit.fetch_seconds(SAID, 400_001)
    with pytest.raises(BenchError, match="says what nobody expects"):
        read_limit.fetch_seconds("Exception in thread main", 1)


def test_the_smoke_judges_the_ratio_of_medians() -> None:
    assert smoke.fault("consumer", [1.0, 9.0, 1.0], [5.0, 5.2], 5.0) is None
    assert smoke.fault("consumer", [1.0], [4.9], 5.0) == (
        "the consumer takes 4.90 times less CPU than the stock loop in the same run, 5 times is promised"
    )


@pytest.mark.parametrize(("records", "exit_code"), [(39_999, 0), (40_001, 0), (40_000, 1)])
def test_a_producers_figures_are_void_when_the_topic_does_not_hold_what_was_polled(
    records: int, exit_code: int
) -> None:
    case = producer_cases(quick=True)["all"]
    check(case, case.expected_records, 0)
    with pytest.raises(BenchError, match=f"{records:,} records in the topic after 4 polls, 40,000 expected"):
        check(case, records, exit_code)


def test_the_producers_report_has_ours_beside_the_stock_loop() -> None:
    run = ProducerFigures(
        cpu_seconds_per_poll=0.16,
        core_percent=16.0,
        publish_median_seconds=0.15,
        publish_longest_seconds=0.19,
        start_cpu_seconds=0.5,
        start_memory_bytes=71_000_000,
        peak_memory_bytes=98_000_000,
        records=40_000,
        plain_bytes=5_800_000,
        gzipped_bytes=1_000_000,
    )
    report = producer_report.Report(
        cases=producer_cases(quick=True), figures={"all": [run], "all-stock": [run]}, about=producer_report.about()
    )
    text = report.markdown()
    assert "| `all`: CPU a poll | ≤ 250 ms | 160 ms | 160 … 160 | 160 ms | 160 … 160 |" in text
    assert "5,800,000 bytes, 1,000,000 of them on the wire" in text
