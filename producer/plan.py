"""What the loop of one endpoint does, from its settings.

Owns: the values and what follows from them. Does not own: reading them (`settings`), doing it (`poller`). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer import pacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from producer.endpoint import Endpoint
    from producer.pointer import Pointer
    from producer.selection import Select


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`name` is the endpoint's in metrics and readiness; seconds and bytes as in the settings of the same names.

    `called`: what the user calls a member, for messages (`setting`), where that is not the member's own name.
    """

    name: str
    endpoint: Endpoint
    topic: str
    records_pointer: Pointer
    next_pointer: Pointer | None
    key_pointer: Pointer | None
    select: Select
    interval_seconds: float
    timeout_seconds: float
    rate_limit_per_minute: int | None
    max_body_bytes: int
    max_records: int
    called: Mapping[str, str] = field(default_factory=dict)

    def setting(self, member: str) -> str:
        """How a message names a member: API_RECORDS_POINTER, or records_pointer of endpoint 'quotes'."""
        return self.called.get(member, member)

    @property
    def source(self) -> str:
        """What the events of this endpoint name as theirs: its URL without anything secret."""
        return self.endpoint.source

    @property
    def period_seconds(self) -> float:
        """Between two ticks: the interval, stretched to what the rate limit allows."""
        return pacing.stretched_period(self.interval_seconds, self.rate_limit_per_minute)

    @property
    def budget_seconds(self) -> float:
        """How long one tick may take, attempts, waits and pages included."""
        return pacing.tick_budget(self.period_seconds, self.timeout_seconds)
