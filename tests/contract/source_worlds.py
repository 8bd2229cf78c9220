"""The two Kafkas that the contract of ports.Source is checked on: the one in memory and the real one.

Owns: what a test does to a topic and a group beside the source under test, the same words for both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiokafka import AIOKafkaClient, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.protocol.group import LeaveGroupRequest

from consumer.ports import Source
from consumer.source import KafkaSource
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.servers import Kafka, Produced, unique

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from consumer.ports import Listener


class LivingSource(Source, Protocol):
    """ports.Source with the life that both kinds have."""

    async def connect(self) -> None: ...
    def join(self, listener: Listener) -> None: ...
    async def leave(self) -> None: ...
    async def group_has_members(self) -> bool: ...


class World(Protocol):
    async def create_topic(self, partitions: int = 1, *, compacted: bool = False) -> None: ...
    def source(self) -> LivingSource:
        """A new source of the world's topic and group; the caller connects and leaves it."""
        ...

    async def produce(self, partition: int, values: Sequence[bytes]) -> None:
        """One wire batch."""
        ...

    async def produce_aborted(self, partition: int, count: int) -> None: ...
    async def open_transaction(self, partition: int, count: int) -> None:
        """Records that stay undecided."""
        ...

    async def delete_records(self, partition: int, before: int) -> None: ...
    async def evict(self, source: LivingSource) -> None:
        """The group puts the member out, who does not know yet."""
        ...

    async def exists(self) -> bool: ...
    async def close(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self._log = FakeLog(0, topic_id=None)
        self._group = FakeGroup(self._log)

    async def create_topic(self, partitions: int = 1, *, compacted: bool = False) -> None:
        self._log.add_partitions(partitions)
        self._log.topic_id = "topic-1"
        self._log.compacted = compacted

    def source(self) -> LivingSource:
        return FakeSource(self._group)

    async def produce(self, partition: int, values: Sequence[bytes]) -> None:
        self._log.append(partition, values)

    async def produce_aborted(self, partition: int, count: int) -> None:
        self._log.append_hidden(partition, count)
        self._log.append_hidden(partition)

    async def open_transaction(self, partition: int, count: int) -> None:
        self._log.hold(partition, self._log.range(partition).high_watermark)
        self._log.append(partition, [b"undecided"] * count)

    async def delete_records(self, partition: int, before: int) -> None:
        self._log.move_start(partition, before)

    async def evict(self, source: LivingSource) -> None:
        assert isinstance(source, FakeSource)
        self._group.evict(source)

    async def exists(self) -> bool:
        return self._log.topic_id is not None

    async def close(self) -> None:
        pass


class KafkaWorld:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._topic = unique("topic")
        self._group = unique("group")
        self._producers: list[AIOKafkaProducer] = []

    async def create_topic(self, partitions: int = 1, *, compacted: bool = False) -> None:
        config = {"cleanup.policy": "compact,delete"} if compacted else {}
        await self._kafka.create_topic(partitions, config, self._topic)

    def source(self) -> LivingSource:
        return KafkaSource(
            topic=self._topic,
            group=self._group,
            connection={"bootstrap_servers": self._kafka.bootstrap_servers},
            session_timeout_seconds=10,
            rebalance_timeout_seconds=30,
        )

    async def produce(self, partition: int, values: Sequence[bytes]) -> None:
        await self._kafka.produce(self._topic, [Produced(value=value, partition=partition) for value in values])

    async def produce_aborted(self, partition: int, count: int) -> None:
        producer = await self._transaction(partition, count)
        await producer.abort_transaction()

    async def open_transaction(self, partition: int, count: int) -> None:
        await self._transaction(partition, count)

    async def _transaction(self, partition: int, count: int) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            transactional_id=unique("transaction"),
            request_timeout_ms=60_000,
        )
        await producer.start()
        self._producers.append(producer)
        await producer.begin_transaction()
        sent = [await producer.send(self._topic, b"undecided", partition=partition) for _ in range(count)]
        await asyncio.gather(*sent)
        return producer

    async def delete_records(self, partition: int, before: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self._topic, partition): RecordsToDelete(before)})
        finally:
            await admin.close()

    async def evict(self, source: LivingSource) -> None:
        assert isinstance(source, KafkaSource)
        assert source._consumer is not None
        coordinator = source._consumer._coordinator
        client = AIOKafkaClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await client.bootstrap()
        try:
            # As if its session had ended: the group strikes it off, and nobody tells it.
            farewell = LeaveGroupRequest(self._group, coordinator.member_id)
            answer = await client.send(coordinator.coordinator_id, farewell)
            assert answer.error_code == 0
        finally:
            await client.close()

    async def exists(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await admin.start()
        try:
            return self._topic in await admin.list_topics()
        finally:
            await admin.close()

    async def close(self) -> None:
        for producer in self._producers:
            await producer.stop()


class Notes:
    """ports.Listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[int]]] = []
        self.assigned: list[int] | None = None

    async def on_revoked(self, partitions: Collection[int]) -> None:
        self.told.append(("revoked", sorted(partitions)))
        self.assigned = None

    async def on_assigned(self, partitions: Collection[int]) -> None:
        self.told.append(("assigned", sorted(partitions)))
        self.assigned = sorted(partitions)
