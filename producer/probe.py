"""What the producer tells of itself on its side-port.

Owns: the rules of readiness and liveness (design §4) and the page's contents. Does not own: the server
(`shared.health`), the facts (`poller`, `publisher`, `ledger`).

Invariant: nothing shown holds a secret: reasons come masked, the API is named by its `source`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from producer.surroundings import rfc3339
from shared.health import Status, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producer.ledger import Ledger
    from producer.poller import Poller
    from producer.publisher import Publisher


class ProducerProbe:
    """Ready = every endpoint's last tick succeeded and the broker acknowledges. Alive = the loops turn."""

    def __init__(self, pollers: Sequence[Poller], publisher: Publisher, ledger: Ledger, topics: Sequence[str]) -> None:
        self._pollers = pollers
        self._publisher = publisher
        self._ledger = ledger
        self._topics = topics

    def not_alive(self) -> str | None:
        """Red when a loop stopped turning. The API or Kafka being away is never a reason."""
        overdue = max(poller.overdue_seconds() for poller in self._pollers)
        return f"the poll loop is overdue by {overdue:.0f} s" if overdue > 0 else None

    def not_ready(self) -> Sequence[str]:
        """Each reason with what it waits for."""
        reasons = self._publisher.not_ready()
        several = len(self._pollers) > 1
        for poller in self._pollers:
            if poller.failure is not None:
                who = f"endpoint {poller.plan.name}, {poller.plan.source}," if several else poller.plan.source
                reasons.append(f"{who} since {rfc3339(poller.failing_since)}: {poller.failure}")
        return reasons

    def status(self) -> Status:
        """For the page."""
        topics = ", ".join(self._topics)
        facts = {
            "Kafka": f"{self._publisher.brokers}, {'topics' if len(self._topics) > 1 else 'topic'} {topics}",
            "Waiting for Kafka": f"{self._ledger.unacked_records} records, {self._ledger.unacked_bytes} bytes",
        }
        columns = ("endpoint", "URL", "every", "topic", "last successful poll", "records of that poll", "state")
        rows = [
            (
                poller.plan.name,
                poller.plan.source,
                f"{poller.plan.period_seconds:g} s, {poller.plan.select.value}",
                poller.plan.topic,
                "none yet" if poller.last_success is None else rfc3339(poller.last_success),
                poller.last_records,
                poller.failure or "ok",
            )
            for poller in self._pollers
        ]
        return Status(facts=facts, tables=(Table(title="Endpoints", columns=columns, rows=rows),))
