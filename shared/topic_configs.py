"""What a topic is set to, asked of the broker and read from its answer.

Owns: the DescribeConfigs request and deciphering its answer; no I/O. Does not own: whom to ask, and asking again. An
error code in the answer is raised as aiokafka's exception for it.

The layouts: https://kafka.apache.org/protocol.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOPIC: Final = 2  # the kind of configured resource


class DescribeConfigsAnswer(Protocol):
    """To `describe_topic`: error code and text, type, name, entries of name, value and more."""

    resources: Sequence[tuple[int, str | None, int, str, Sequence[tuple[object, ...]]]]


def describe_topic(topic: str, names: Sequence[str]) -> object:
    """Answered by any broker, read by `topic_settings`. Needs DescribeConfigs on the topic."""
    return DescribeConfigsRequest([(_TOPIC, topic, list(names))])


def topic_settings(answer: DescribeConfigsAnswer) -> dict[str, str]:
    """Value by name, the broker's defaults included. TopicAuthorizationFailedError without the right to ask."""
    found: dict[str, str] = {}
    for error_code, _message, _type, _name, entries in answer.resources:
        if error_code:
            error: KafkaError = for_code(error_code)()
            raise error
        for name, value, *_more in entries:
            found[str(name)] = str(value)
    return found
