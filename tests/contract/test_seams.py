"""Batch views give what aiokafka's own path gives: the same records, the same positions, on the same topics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import aiokafka
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords

from consumer import frames, seams
from consumer.ports import Record
from consumer.views import BatchView
from shared.rebinding import rebound
from tests.servers import Kafka, Produced, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiokafka.protocol.fetch import FetchRequest

    from consumer.views import Item


class Consumer(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, partitions: Sequence[object]) -> None: ...
    def seek(self, partition: object, offset: int) -> None: ...
    async def getmany(self, *, timeout_ms: int) -> Mapping[object, Sequence[object]]: ...
    async def position(self, partition: object) -> int: ...


@dataclass(frozen=True)
class Seen:
    records: list[Record]
    position: int


async def read(consumer: Consumer, topic: str, start: int, end: int) -> tuple[list[object], int]:
    """Everything handed out from `start` until the position is `end`."""
    partition = TopicPartition(topic, 0)
    await consumer.start()
    try:
        consumer.assign([partition])
        consumer.seek(partition, start)
        found: list[object] = []

        async def at_end() -> bool:
            for items in (await consumer.getmany(timeout_ms=300)).values():
                found.extend(items)
            return await consumer.position(partition) >= end

        await eventually(at_end, f"{topic} read to {end}", seconds=60)
        return found, await consumer.position(partition)
    finally:
        await consumer.stop()


OPTIONS = {"isolation_level": "read_committed", "auto_offset_reset": "none", "enable_auto_commit": False}


async def stock(kafka: Kafka, topic: str, start: int, end: int) -> Seen:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, **OPTIONS)
    found, position = await read(consumer, topic, start, end)
    records = [
        Record(offset=r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=r.headers)
        for r in cast("Sequence[Record]", found)
    ]
    return Seen(records, position)


async def views(kafka: Kafka, topic: str, start: int, end: int) -> Seen:
    consumer = seams.BatchConsumer(bootstrap_servers=kafka.bootstrap_servers, **OPTIONS)
    found, position = await read(consumer, topic, start, end)
    records: list[Record] = []
    next_start = start
    for item in cast("Sequence[Item]", found):
        assert item.start == next_start
        next_start = item.next_offset
        if isinstance(item, BatchView):
            assert item.values
            assert len(item.values) == len(item.offsets) == len(item.timestamps)
            assert item.max_timestamp >= max(item.timestamps)
            whole = [item.record(index) for index in range(len(item.values))]
            assert [r.value for r in whole] == list(item.values)
            assert [r.offset for r in whole] == list(item.offsets)
            assert [r.timestamp for r in whole] == list(item.timestamps)
            records += whole
    assert next_start == position
    return Seen(records, position)


async def assert_same(kafka: Kafka, topic: str, start: int, end: int) -> Seen:
    seen = await views(kafka, topic, start, end)
    assert seen == await stock(kafka, topic, start, end)
    return seen


def mixed(count: int) -> list[Produced]:
    """Keys, headers, tombstones and empty values, in every mixture; timestamps that go back."""
    return [
        Produced(
            key=None if n % 3 == 0 else b"key-%d" % (n % 7),
            value=None if n % 5 == 0 and n % 3 else b"" if n % 5 == 1 else b'{"n":%d}' % n * (n % 40),
            timestamp=1_700_000_000_000 + (n * 7919) % 100_000,
            headers=[("ce_id", b"%d" % n), ("empty", b"")][: n % 3],
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_reads_the_same(kafka: Kafka, codec: str | None) -> None:
    topic = await kafka.create_topic()
    for chunk in (mixed(1), mixed(500), mixed(40)):
        await kafka.produce(topic, chunk, compression=codec)
    seen = await assert_same(kafka, topic, 0, 541)
    assert [r.offset for r in seen.records] == list(range(541))


async def test_a_fetch_from_every_offset_of_a_batch_reads_the_same(kafka: Kafka) -> None:
    topic = await kafka.create_topic()
    await kafka.produce(topic, mixed(6), compression="zstd")
    await kafka.produce(topic, mixed(2))
    for start in range(8):
        assert len((await assert_same(kafka, topic, start, 8)).records) == 8 - start


async def test_log_append_time_reads_the_same(kafka: Kafka) -> None:
    topic = await kafka.create_topic(config={"message.timestamp.type": "LogAppendTime"})
    await kafka.produce(topic, mixed(50), compression="gzip")
    seen = await assert_same(kafka, topic, 0, 50)
    assert all(record.timestamp > 1_700_001_000_000 for record in seen.records)


async def transact(kafka: Kafka, topic: str, steps: Callable[[AIOKafkaProducer], Awaitable[None]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=unique("transaction"))
    await producer.start()
    try:
        await steps(producer)
    finally:
        await producer.stop()


async def test_transactions_with_aborts_read_the_same(kafka: Kafka) -> None:
    topic = await kafka.create_topic()

    async def send(producer: AIOKafkaProducer, name: bytes, count: int) -> None:
        await asyncio.gather(*[await producer.send(topic, name + b"-%d" % n) for n in range(count)])

    async def interleaved(first: AIOKafkaProducer) -> None:
        async def with_second(second: AIOKafkaProducer) -> None:
            for number in range(6):
                await first.begin_transaction()
                await second.begin_transaction()
                await send(first, b"first", 3)
                await send(second, b"second", 2)
                await kafka.produce(topic, [b"outside"])
                await send(first, b"first", 1)
                await (first.abort_transaction() if number % 2 else first.commit_transaction())
                await (second.abort_transaction() if number % 3 else second.commit_transaction())

        await transact(kafka, topic, with_second)

    await transact(kafka, topic, interleaved)
    end = 6 * (4 + 2 + 1 + 2)
    seen = await assert_same(kafka, topic, 0, end)
    assert len(seen.records) == 3 * 4 + 2 * 2 + 6
    assert seen.position == end
    for start in range(1, end, 5):
        await assert_same(kafka, topic, start, end)


async def test_a_compacted_topic_with_gaps_reads_the_same(kafka: Kafka) -> None:
    topic = await kafka.create_topic(
        config={
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.01",
            "segment.ms": "100",
            "delete.retention.ms": "0",
        }
    )
    records = [Produced(key=b"key-%d" % (n % 10), value=b"value-%d" % n) for n in range(100)]
    for first in range(0, 100, 20):
        await kafka.produce(topic, records[first : first + 20], compression="zstd")

    async def compacted() -> bool:
        await kafka.produce(topic, [Produced(key=b"last", value=b"rolls the segment")])
        await asyncio.sleep(0.2)
        return len((await stock(kafka, topic, 0, 100)).records) < 90

    await eventually(compacted, "the cleaner has run", every_seconds=1)
    end = (await kafka.end_offsets(topic))[0]
    seen = await assert_same(kafka, topic, 0, end)
    assert len(seen.records) < end
    for start in (1, 19, 45, 79, 85, 95, 99):
        await assert_same(kafka, topic, start, end)


async def test_an_empty_topic_reads_the_same(kafka: Kafka) -> None:
    topic = await kafka.create_topic()
    assert await assert_same(kafka, topic, 0, 0) == Seen([], 0)


def test_the_seams_leave_aiokafka_itself_alone() -> None:
    assert aiokafka.__version__ == seams.SUPPORTED
    assert Fetcher._proc_fetch_request.__globals__["PartitionRecords"] is PartitionRecords
    assert AIOKafkaConsumer.start.__globals__["Fetcher"] is Fetcher


def test_a_seam_that_is_gone_is_an_error_at_import() -> None:
    with pytest.raises(ImportError, match="no longer uses Gone"):
        rebound(AIOKafkaConsumer.start, Gone=object)


def in_partition(partition: int, count: int) -> list[Produced]:
    return [Produced(value=b"%d" % n, partition=partition) for n in range(count)]


async def joined(consumer: seams.BatchConsumer, topic: str) -> None:
    """In its group, with partitions, none of them sought."""
    consumer.subscribe([topic])

    async def is_assigned() -> bool:
        await consumer.getmany(timeout_ms=50)
        return bool(consumer.assignment())

    await eventually(is_assigned, "partitions assigned")


async def test_only_what_was_sought_is_asked_for_and_fetched(kafka: Kafka) -> None:
    topic = await kafka.create_topic(partitions=2)
    for partition in (0, 1):
        await kafka.produce(topic, in_partition(partition, 3))
    consumer = seams.BatchConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=unique("group"), **OPTIONS)
    await consumer.start()
    try:
        asked: list[str] = []
        send = consumer._client.send

        def noted(node: object, request: object, **options: object) -> object:
            asked.append(type(request).__name__)
            return send(node, request, **options)

        consumer._client.send = noted
        await joined(consumer, topic)
        assert await consumer.getmany(timeout_ms=500) == {}
        assert {"OffsetFetchRequest", "ListOffsetsRequest", "OffsetRequest", "FetchRequest"}.isdisjoint(asked)
        consumer.seek(TopicPartition(topic, 1), 0)
        found = await consumer.getmany(timeout_ms=5000)
        assert [*found] == [TopicPartition(topic, 1)]
    finally:
        await consumer.stop()


async def test_beyond_the_bound_only_what_is_polled_for_is_fetched(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await kafka.create_topic(partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await kafka.produce(topic, in_partition(0, 3))
    await kafka.produce(topic, in_partition(1, 3))
    consumer = seams.BatchConsumer(bootstrap_servers=kafka.bootstrap_servers, **OPTIONS)
    await consumer.start()
    try:
        consumer.assign([first, second])
        consumer.seek(first, 0)
        consumer.seek(second, 0)
        waiting = consumer._fetcher._records
        await eventually(lambda: waiting.keys() == {first, second}, "both are fetched ahead")
        monkeypatch.setattr(seams, "PREFETCH_BYTES", -1)
        fetched: set[int] = set()
        proceed = consumer._fetcher._proc_fetch_request

        def noted(assignment: object, node: int, request: FetchRequest) -> Awaitable[object]:
            fetched.update(partition for _, partitions in request.topics for partition, *_ in partitions)
            answer: Awaitable[object] = proceed(assignment, node, request)
            return answer

        consumer._fetcher._proc_fetch_request = noted
        found = await consumer.getmany(first, second, timeout_ms=5000)
        assert found.keys() == {first, second}
        fetched.clear()
        await kafka.produce(topic, in_partition(1, 2))
        await kafka.produce(topic, in_partition(0, 2))
        found = await consumer.getmany(first, timeout_ms=5000)
        assert [item.next_offset for item in found[first]] == [5]
        assert fetched == {0}
        found = await consumer.getmany(second, timeout_ms=5000)
        assert [(item.start, item.next_offset) for item in found[second]] == [(3, 5)]
    finally:
        await consumer.stop()


def test_answers_are_received_in_place_on_uvloop_too(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []
    handle = frames._handle_frame

    def counted(connection: object, frame: memoryview) -> None:
        received.append(len(frame))
        handle(connection, frame)

    monkeypatch.setattr(frames, "_handle_frame", counted)

    async def reads() -> None:
        topic = await kafka.create_topic()
        await kafka.produce(topic, mixed(400))
        assert len((await views(kafka, topic, 0, 400)).records) == 400

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reads())
    assert sum(received) > 400
