"""The producer's metrics (design §7) and the registry they live in.

Owns: names, help texts, labels. Does not own: when they move. No module-global state: one instance a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable

OUTCOMES = ("ok", "throttled", "unreachable", "refused", "unusable", "api_error")
SKIP_REASONS = ("overrun", "throttled", "unacked")
SET_ASIDE_REASONS = ("not_an_object", "nested_too_deep", "too_large")


class Metrics:
    """Every label value is there from the start, at zero, so that an alert on it can be written before it happens."""

    def __init__(self, *, unacked_bytes: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.ticks = Counter(
            "ticklake_producer_ticks", "Ticks that ran, by how they ended.", ["outcome"], registry=self.registry
        )
        self.ticks_skipped = Counter(
            "ticklake_producer_ticks_skipped",
            "Ticks that came due and did not run.",
            ["reason"],
            registry=self.registry,
        )
        self.records_published = Counter(
            "ticklake_producer_records_published", "Records acknowledged by Kafka.", registry=self.registry
        )
        self.records_set_aside = Counter(
            "ticklake_producer_set_aside", "Records not published.", ["reason"], registry=self.registry
        )
        self.unacked_bytes = Gauge(
            "ticklake_producer_unacked_bytes", "Selected and not yet acknowledged by Kafka.", registry=self.registry
        )
        self.unacked_bytes.set_function(unacked_bytes)
        self.last_success = Gauge(
            "ticklake_producer_last_success_timestamp_seconds",
            "When a tick last succeeded; 0 before the first.",
            registry=self.registry,
        )
        for outcome in OUTCOMES:
            self.ticks.labels(outcome)
        for reason in SKIP_REASONS:
            self.ticks_skipped.labels(reason)
        for reason in SET_ASIDE_REASONS:
            self.records_set_aside.labels(reason)
