"""Metric names and labels are what dashboards and alerts are written against: they are those of the design."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry

from consumer.report import Report
from producer.metrics import Metrics

if TYPE_CHECKING:
    from prometheus_client.metrics import MetricWrapperBase

PRODUCER = {
    "ticklake_producer_ticks_total": ("outcome", "endpoint"),
    "ticklake_producer_ticks_skipped_total": ("reason", "endpoint"),
    "ticklake_producer_records_published_total": (),
    "ticklake_producer_set_aside_total": ("reason",),
    "ticklake_producer_unacked_bytes": (),
    "ticklake_producer_last_success_timestamp_seconds": ("endpoint",),
    "ticklake_producer_clients_replaced_total": (),
    "ticklake_producer_records_resent_total": (),
}
CONSUMER = {
    "ticklake_consumer_records_stored_total": (),
    "ticklake_consumer_records_quarantined_total": ("reason",),
    "ticklake_consumer_objects_total": ("outcome",),
    "ticklake_consumer_put_seconds": (),
    "ticklake_consumer_put_retries_total": ("reason",),
    "ticklake_consumer_buffered_bytes": (),
    "ticklake_consumer_lag_records": ("partition",),
    "ticklake_consumer_position_lag_records": ("partition",),
    "ticklake_consumer_stalled_since_timestamp_seconds": ("partition",),
    "ticklake_consumer_commits_total": ("outcome",),
    "ticklake_consumer_rebalances_total": (),
    "ticklake_consumer_loop_block_seconds": (),
}


def test_the_producers_metrics_are_those_of_the_design() -> None:
    assert described(Metrics(unacked_bytes=lambda: 0).registry) == PRODUCER


def test_the_consumers_metrics_are_those_of_the_design() -> None:
    assert described(Report(CollectorRegistry(), each_record=False).registry) == CONSUMER


def described(registry: CollectorRegistry) -> dict[str, tuple[str, ...]]:
    """Labels by the name under which a metric is scraped."""
    metrics = {cast("MetricWrapperBase", collector) for collector in registry._names_to_collectors.values()}
    return {
        name: metric._labelnames
        for metric in metrics
        for family in metric.describe()
        for name in [f"{family.name}_total" if family.type == "counter" else family.name]
    }
