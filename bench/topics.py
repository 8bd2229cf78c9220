"""Fills the topics that the consumer's benchmarks read, by confluent-kafka, the quickest loader at hand.

Owns: which topics there are and how their records were produced. Does not own: the values (`quotes`), the broker.

Invariants: a topic holds `offsets` records in each partition, the one at an offset being the one that `quotes` has for
it; it is loaded once and never expires. Records come in turns of all partitions, as from a producer that is busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

from bench import quotes
from bench.process import BenchError
from shared.schemas import EventHeaders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers import Kafka

PARTITIONS = 8
TURN = 5_000  # records of a partition in a row
TOPIC_CONFIG = {"retention.ms": "-1"}  # the records say that they are old
SOURCE, RECEIVED = "https://api.market.example/v3/snapshot", "2025-11-25T10:00:00.123456Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What a topic holds and how it was produced: `linger_ms` and `batch_*` as librdkafka has them."""

    name: str
    shape: quotes.Shape
    offsets: int
    compression: str = "none"
    headers: bool = False
    batch_records: int = 10_000
    batch_bytes: int = 1_000_000

    @property
    def records(self) -> int:
        """In all partitions."""
        return self.offsets * PARTITIONS

    @property
    def value_bytes(self) -> int:
        """Of all records, before compression."""
        return self.records * self.shape.value_bytes

    def producer_settings(self) -> Mapping[str, str | int | bool]:
        """How librdkafka is told so. Idempotent: nothing doubles while loading."""
        return {
            "enable.idempotence": True,
            "compression.type": self.compression,
            "batch.num.messages": self.batch_records,
            "batch.size": self.batch_bytes,
            "linger.ms": 100,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1 << 20,
        }


async def load(kafka: Kafka, topic: Topic) -> str:
    """Make and fill it; its name on the broker. Raises BenchError when not every record was acknowledged."""
    name = await kafka.create_topic(PARTITIONS, TOPIC_CONFIG)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **topic.producer_settings()})
    for first in range(0, topic.offsets, TURN):
        for partition in range(PARTITIONS):
            _produce(producer, topic, name, partition, first)
    waiting = producer.flush(120)
    ends = await kafka.end_offsets(name)
    if waiting or set(ends.values()) != {topic.offsets}:
        message = f"topic {topic.name}: {waiting:,} records unacknowledged, its partitions end at {ends}"
        raise BenchError(message)
    return name


def _produce(producer: Producer, topic: Topic, name: str, partition: int, first: int) -> None:
    count = min(TURN, topic.offsets - first)
    keys = quotes.keys(partition, first, count)
    values = quotes.values(topic.shape, partition, first, count)
    written = EventHeaders(source=SOURCE, time=RECEIVED)
    for offset, (key, value) in enumerate(zip(keys, values, strict=True), first):
        headers: list[tuple[str, str | bytes | None]] = [*written.of(key, value)] if topic.headers else []
        timestamp = quotes.timestamp_ms(offset)
        while True:
            try:
                producer.produce(name, value, key, partition, timestamp=timestamp, headers=headers)
                break
            except BufferError:  # a million wait already
                producer.poll(0.1)
            except KafkaException as error:
                message = f"topic {topic.name}: {error}"
                raise BenchError(message) from error
    producer.poll(0)
