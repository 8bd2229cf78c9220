"""The request of Kafka's protocol that carries records, and answers to it that no broker gave.

Owns: what a test wants to know of a request, its refusal in whole or in part. Does not own: connections and the choice
of what becomes of a request (`kafka_proxy`). Pure. The versions known are aiokafka's: https://kafka.apache.org/protocol.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.produce import ProduceRequest

PRODUCE = 0
COUNT_OFFSET = 57  # of the number of records in a batch's head
_VERSIONS = {each.API_VERSION: each for each in ProduceRequest._CLASSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Produce:
    """A request that carries records; `number` from 0 on, over all connections."""

    number: int
    bytes: int
    records: int
    decoded: Any  # aiokafka's ProduceRequest of the version that was sent
    correlation: int

    @property
    def partitions(self) -> list[tuple[str, int]]:
        """Topic and partition of each batch that it carries."""
        return [(topic, number) for topic, batches in self.decoded.topics for number, _ in batches]


def read_produce(number: int, frame: bytes) -> Produce:
    """The request in a frame, which has no length before it."""
    stream = BytesIO(frame)
    _, version, correlation, _ = RequestHeader_v1.SCHEMA.decode(stream)
    assert version in _VERSIONS, f"the client sends records by Produce v{version}: teach this proxy that version"
    decoded = _VERSIONS[version].decode(stream)
    batches = [batch for _, partitions in decoded.topics for _, batch in partitions]
    records = sum(struct.unpack_from(">i", batch, COUNT_OFFSET)[0] for batch in batches)
    return Produce(number=number, bytes=len(frame), records=records, decoded=decoded, correlation=correlation)


def refusal(request: Produce, error: int) -> bytes:
    """The answer of a broker that refuses every batch of the request."""
    version = int(request.decoded.API_VERSION)
    assert version >= 5, f"the client sends records by Produce v{version}: teach this proxy how to refuse those"
    says_which: tuple[object, ...] = ([], None) if version >= 8 else ()
    topics = [
        (topic, [(partition, error, -1, -1, -1, *says_which) for partition, _ in partitions])
        for topic, partitions in request.decoded.topics
    ]
    answer = request.decoded.RESPONSE_TYPE(topics=topics, throttle_time_ms=0)
    return struct.pack(">i", request.correlation) + bytes(answer.encode())


def refusal_in_part(frame: bytes, request: Produce, error: int) -> bytes:
    """The broker's answer, but for the first batch of the request."""
    answer = request.decoded.RESPONSE_TYPE.decode(BytesIO(frame[4:]))
    refused = request.partitions[0]
    topics = [
        (topic, [(place[0], error if (topic, place[0]) == refused else place[1], *place[2:]) for place in partitions])
        for topic, partitions in answer.topics
    ]
    changed = request.decoded.RESPONSE_TYPE(topics=topics, throttle_time_ms=answer.throttle_time_ms)
    return frame[:4] + bytes(changed.encode())
