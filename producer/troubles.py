"""What keeps one topic's records from being acknowledged, and since when: for readiness and the log.

Owns: the memory of it, one log line when it begins or changes and one a minute. Does not own: what is trouble (`feed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from producer.surroundings import rfc3339
from shared import logs

if TYPE_CHECKING:
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)


class Kind(Enum):
    """Each may last while the other comes and goes."""

    WAITING = auto()  # for a broker, the topic, a leader
    REFUSED = auto()  # until the next acknowledgement


@dataclass(slots=True, kw_only=True)
class _Trouble:
    text: str
    since: float  # wall time
    reminded: float  # monotonic


class Troubles:
    """Of one topic. In trouble from the start, with a reason nobody needs to read in the log."""

    def __init__(self, topic: str, brokers: str, surroundings: Surroundings) -> None:
        self._topic = topic
        self._brokers = brokers
        self._surroundings = surroundings
        self._troubles: dict[Kind, _Trouble] = {}
        self.note(Kind.WAITING, f"not connected to {brokers} yet")

    def note(self, kind: Kind, text: str) -> None:
        """Keep the reason, which is logged elsewhere."""
        trouble = self._troubles.get(kind)
        if trouble is None:
            since = self._surroundings.wall()
            self._troubles[kind] = _Trouble(text=text, since=since, reminded=float("-inf"))
        else:
            trouble.text = text

    def say(self, kind: Kind, text: str) -> None:
        """Keep the reason; log it when it is new and once a minute."""
        known = self._troubles.get(kind)
        said = None if known is None else known.text
        self.note(kind, text)
        trouble, now = self._troubles[kind], self._surroundings.monotonic()
        if text != said or now - trouble.reminded >= logs.REMIND_SECONDS:
            log.warning("Kafka is not ready", topic=self._topic, reason=text)
            trouble.reminded = now

    def clear(self, kind: Kind) -> None:
        """It is over."""
        if self._troubles.pop(kind, None) is not None and not self._troubles:
            log.info("Kafka is ready", brokers=self._brokers, topic=self._topic)

    def reasons(self) -> list[str]:
        """Empty when all is well."""
        return [reason(self._topic, each.since, each.text) for each in self._troubles.values()]


def reason(topic: str, since: float, text: str) -> str:
    """Why a topic's records are not acknowledged, as readiness tells it. `since` in wall time."""
    return f"topic {topic} since {rfc3339(since)}: {text}"
