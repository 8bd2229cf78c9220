"""The producer's metrics (design §7) and the registry they live in.

Owns: names, help texts, labels. Does not own: when they move. No module-global state: one instance a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OUTCOMES = ("ok", "throttled", "unreachable", "refused", "unusable", "api_error")
SKIP_REASONS = ("overrun", "throttled", "unacked")
SET_ASIDE_REASONS = ("not_an_object", "nested_too_deep", "too_large", "no_key")


class Metrics:
    """Every label value is there from the start, at zero, so that an alert on it can be written before it happens."""

    def __init__(self, *, unacked_bytes: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._ticks = Counter(
            "ticklake_producer_ticks",
            "Ticks that ran, by how they ended.",
            ["outcome", "endpoint"],
            registry=self.registry,
        )
        self._ticks_skipped = Counter(
            "ticklake_producer_ticks_skipped",
            "Ticks that came due and did not run.",
            ["reason", "endpoint"],
            registry=self.registry,
        )
        self._last_success = Gauge(
            "ticklake_producer_last_success_timestamp_seconds",
            "When a tick last succeeded; 0 before the first.",
            ["endpoint"],
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
        self.clients_replaced = Counter(
            "ticklake_producer_clients_replaced",
            "Kafka clients given up because they could send no more.",
            registry=self.registry,
        )
        self.records_resent = Counter(
            "ticklake_producer_records_resent",
            "Records sent again after their client was replaced; those may stand in the topic twice.",
            registry=self.registry,
        )
        for reason in SET_ASIDE_REASONS:
            self.records_set_aside.labels(reason)

    def endpoint(self, name: str) -> EndpointMetrics:
        """The part of one endpoint."""
        return EndpointMetrics(
            ticks={outcome: self._ticks.labels(outcome, name) for outcome in OUTCOMES},
            ticks_skipped={reason: self._ticks_skipped.labels(reason, name) for reason in SKIP_REASONS},
            last_success=self._last_success.labels(name),
            records_set_aside=self.records_set_aside,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointMetrics:
    """What the loop of one endpoint counts: ticks by outcome, skipped ones by reason, set aside records by reason."""

    ticks: Mapping[str, Counter]
    ticks_skipped: Mapping[str, Counter]
    last_success: Gauge
    records_set_aside: Counter
