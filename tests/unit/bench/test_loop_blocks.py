from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bench import loop_blocks
from bench.process import BenchError
from consumer.report import Report


def exported(*seconds: float) -> loop_blocks.Blocks:
    registry = CollectorRegistry()
    report = Report(registry, each_record=False)
    for each in seconds:
        report.loop_block_seconds.observe(each)
    return loop_blocks.parse(generate_latest(registry).decode())


def test_a_quantile_is_the_bound_that_the_consumers_own_histogram_gives() -> None:
    blocks = exported(*[0.0008] * 997, 0.004, 0.022, 9.0)
    assert blocks.quantile(0.5) == 0.001
    assert blocks.quantile(0.998) == 0.005
    assert blocks.quantile(0.999) == 0.025
    assert blocks.quantile(1.0) == math.inf


def test_what_was_observed_before_a_window_does_not_count() -> None:
    assert (exported(9.0, 0.022) - exported(9.0)).quantile(1.0) == 0.025


def test_several_processes_are_added() -> None:
    added = loop_blocks.total([exported(0.0008), exported(0.0008), exported(0.2)])
    assert (added.quantile(0.6), added.quantile(1.0)) == (0.001, 0.25)
    assert loop_blocks.total([]).quantile(1.0) is None


def test_a_page_without_the_metric_is_refused() -> None:
    with pytest.raises(BenchError, match="has no ticklake_consumer_loop_block_seconds"):
        loop_blocks.parse("# nothing")
