"""What the producer tells of itself on its side-port.

Owns: the rules of readiness and liveness (design §4) and the page's contents. Does not own: the server
(`shared.health`), the facts (`poller`, `publisher`, `ledger`).

Invariant: nothing shown holds a secret: reasons come masked, the API is named by its `source`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from producer.surroundings import rfc3339
from shared.health import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producer.ledger import Ledger
    from producer.poller import Plan, Poller
    from producer.publisher import Publisher


class ProducerProbe:
    """Ready = the last tick succeeded and the broker acknowledges. Alive = the loop turns."""

    def __init__(self, plan: Plan, poller: Poller, publisher: Publisher, ledger: Ledger, topic: str) -> None:
        self._plan = plan
        self._poller = poller
        self._publisher = publisher
        self._ledger = ledger
        self._topic = topic

    def not_alive(self) -> str | None:
        """Red when the loop stopped turning. The API or Kafka being away is never a reason."""
        overdue = self._poller.overdue_seconds()
        return f"the poll loop is overdue by {overdue:.0f} s" if overdue > 0 else None

    def not_ready(self) -> Sequence[str]:
        """Each reason with what it waits for."""
        reasons = self._publisher.not_ready()
        if self._poller.failure is not None:
            since = rfc3339(self._poller.failing_since)
            reasons.append(f"{self._plan.source} since {since}: {self._poller.failure}")
        return reasons

    def status(self) -> Status:
        """For the page."""
        last = self._poller.last_success
        return Status(
            facts={
                "API": self._plan.source,
                "Every": f"{self._plan.period_seconds:g} s, {self._plan.select.value}",
                "Kafka": f"{self._publisher.brokers}, topic {self._topic}",
                "Last successful poll": "none yet" if last is None else rfc3339(last),
                "Records of that poll": self._poller.last_records,
                "Waiting for Kafka": f"{self._ledger.unacked_records} records, {self._ledger.unacked_bytes} bytes",
            }
        )
