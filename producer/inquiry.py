"""Asks what a topic takes: with every new client, then every few minutes.

Owns: when it is asked, what is said when the broker does not tell, what refusals teach when its answer does not explain
them. Does not own: the request (`courier`), the rules (`limits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownError

from producer.courier import NotTold
from producer.limits import ASKED, Limits
from shared import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from producer.courier import Courier
    from producer.limits import Size
    from producer.shipment import Bundle
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

AGE_SECONDS = 300.0
RETRY_SECONDS = 1.0
ATTEMPTS = 3


@dataclass(slots=True, kw_only=True)
class Refusal:
    """A batch that Kafka would not have."""

    bundle: Bundle
    size: Size
    error: BaseException


class Inquiry:
    """About one topic. `limits` is what is known by now."""

    def __init__(self, topic: str, surroundings: Surroundings) -> None:
        self.limits = Limits()
        self._topic = topic
        self._surroundings = surroundings
        self._asked = float("-inf")
        self._said = ""
        self._refusals: list[Refusal] = []

    def refused(self, refusal: Refusal) -> None:
        """Kept until the topic's settings have been asked again, which explain it or not."""
        self._refusals.append(refusal)

    def begin(self) -> None:
        """With another client, whatever the last answer's age."""
        self._asked = float("-inf")

    async def ask(self, courier: Courier) -> bool:
        """Have an answer that is fresh enough, or go on without; False = the topic is gone."""
        now = self._surroundings.monotonic()
        if now - self._asked < AGE_SECONDS:
            return True
        told: Mapping[str, str] | None = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                told = await courier.topic_settings(self._topic, ASKED)
                break
            except NotTold as error:
                self._tell(str(error))
                break
            except (KafkaError, TimeoutError) as error:
                if not courier.partitions(self._topic):
                    return False
                if attempt == ATTEMPTS:
                    self._tell(f"{type(error).__name__}: {error}".rstrip(": "))
                else:
                    await self._surroundings.sleep(RETRY_SECONDS)
        self._asked = now
        self._learn(explained=self.limits.told(told))
        return True

    def _learn(self, *, explained: bool) -> None:
        for refusal in self._refusals:
            if isinstance(refusal.error, MessageSizeTooLargeError):
                if not explained or self.limits.takes(refusal.size):
                    self.limits.refused(refusal.size)
            # INVALID_RECORD, which aiokafka has no name for
            elif isinstance(refusal.error, UnknownError) and any(item.key is None for _, item in refusal.bundle.items):
                self.limits.keyless_refused()
        self._refusals.clear()

    def _tell(self, why: str) -> None:
        """What is assumed, once."""
        if why != self._said:
            self._said = why
            log.warning(
                "Topic settings not told",
                topic=self._topic,
                reason=why,
                assumed_max_message_bytes=self.limits.allowed_bytes,
            )
