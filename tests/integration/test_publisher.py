"""The publisher on the real broker: poisoned and killed clients, sizes at the limit, topics that come and go."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from producer import courier, feed
from producer.courier import Courier, NotTold
from producer.ledger import Ledger, Parcel, Record
from producer.limits import CUT_BYTES
from producer.metrics import Metrics
from producer.publisher import Publisher
from producer.record_batch import RecordBatch
from producer.redactor import Redactor
from producer.surroundings import real_surroundings
from shared.schemas import EventHeaders
from tests import kafka_proxy
from tests.kafka_proxy import Fate, KafkaProxy, Kind
from tests.servers import Kafka, eventually, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from producer.feed import Feed
    from producer.ledger import Delivery

SINCE = re.compile(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DONE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Desk:
    """A running publisher and all that tests look at."""

    publisher: Publisher
    ledger: Ledger
    metrics: Metrics
    lines: list[Any]

    def hand_in(self, topic: str, records: Iterable[Record]) -> asyncio.Future[Delivery]:
        parcel = Parcel(source="http://h/x", time="2026-01-02T03:04:05.678Z", topic=topic, records=list(records))
        return self.publisher.submit(parcel)

    async def deliver(self, topic: str, records: Iterable[Record]) -> Delivery:
        async with asyncio.timeout(DONE_SECONDS):
            return await self.hand_in(topic, records)

    def feed(self, topic: str) -> Feed:
        return self.publisher._feeds[topic]

    def courier(self, topic: str) -> Courier:
        """The one in use; the test has seen that there is one."""
        found = self.feed(topic)._courier
        assert found is not None
        return found

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"ticklake_producer_{name}_total", labels) or 0.0

    def said(self, event: str) -> list[Any]:
        return [line for line in self.lines if line["event"] == event]

    async def ready(self) -> None:
        await eventually(lambda: not self.publisher.not_ready(), "readiness")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another client at once."""
    monkeypatch.setattr(feed, "REPLACE_SECONDS", (0.05, 0.1))


@asynccontextmanager
async def publishing(bootstrap_servers: str, *topics: str) -> AsyncIterator[Desk]:
    """A publisher until the end of the block; what the loop complains of fails the test."""
    complaints: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    ledger = Ledger()
    metrics = Metrics(unacked_bytes=lambda: ledger.unacked_bytes)
    options = {"bootstrap_servers": [bootstrap_servers], "security_protocol": "PLAINTEXT"}
    with structlog.testing.capture_logs() as lines:
        publisher = Publisher(
            options,
            topics,
            metrics=metrics,
            ledger=ledger,
            redactor=Redactor(["CANARY"]),
            surroundings=real_surroundings(),
        )
        running = asyncio.create_task(publisher.run())
        try:
            yield Desk(publisher=publisher, ledger=ledger, metrics=metrics, lines=lines)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait({running})
        assert running.cancelled()
    gc.collect()  # futures complain of errors that nobody fetched when they go
    await asyncio.sleep(0)
    assert not complaints
    left = [task.get_coro().cr_code for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert not [code.co_qualname for code in left if "aiokafka" in code.co_filename or "producer/" in code.co_filename]


def numbered(first: int, last: int, keys: int = 5) -> list[Record]:
    return [Record(key=b"K%d" % (n % keys), value=b'{"n":%d}' % n) for n in range(first, last)]


async def values(kafka: Kafka, topic: str) -> dict[int, list[bytes]]:
    return {p: [record.value or b"" for record in found] for p, found in (await kafka.read(topic)).items()}


def first_of_each(found: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(found))


async def alter(kafka: Kafka, topic: str, config: Mapping[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(config))])
    finally:
        await admin.close()


async def delete(kafka: Kafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(size + seed).randbytes(size)


# ---- poisoned clients ----------------------------------------------------------------------------------------------


async def in_order_and_nothing_lost(kafka: Kafka, topic: str, sent: Sequence[Record]) -> None:
    """Each partition holds each of its records, in order where a later copy is not counted."""
    found = await values(kafka, topic)
    assert {value for partition in found.values() for value in partition} == {record.value for record in sent}
    for partition in found.values():
        by_key: dict[bytes, list[bytes]] = {}
        order = {record.value: number for number, record in enumerate(sent)}
        for value in first_of_each(partition):
            by_key.setdefault(sent[order[value]].key or b"", []).append(value)
        for key_values in by_key.values():
            assert key_values == sorted(key_values, key=order.__getitem__)


async def test_records_are_acknowledged_in_order_and_counted(kafka: Kafka) -> None:
    topic = await kafka.create_topic(3)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.ready()
        records = numbered(0, 5000, keys=50)
        assert (await desk.deliver(topic, records)).acknowledged == 5000
        assert desk.count("records_published") == 5000
        assert desk.count("clients_replaced") == 0
        assert (desk.ledger.unacked_records, desk.ledger.unacked_bytes) == (0, 0)
    found = await values(kafka, topic)
    assert sum(map(len, found.values())) == 5000
    await in_order_and_nothing_lost(kafka, topic, records)


def hole(courier: Courier, topic: str, partitions: int) -> None:
    """The client's next batches leave numbers out."""
    for number in range(partitions):
        courier._producer._txn_manager.increment_sequence_number(TopicPartition(topic, number), 7)


def fenced(courier: Courier, _topic: str, _partitions: int) -> None:
    """Another instance has taken over, as the broker sees it: our epoch is an old one."""
    manager = courier._producer._txn_manager
    manager._pid_and_epoch = manager._pid_and_epoch._replace(epoch=-2)


def killed(courier: Courier, _topic: str, _partitions: int) -> None:
    courier._sender.sender_task.cancel()


def metadata_killed(courier: Courier, _topic: str, _partitions: int) -> None:
    courier._client._sync_task.cancel()


def broken(courier: Courier, _topic: str, _partitions: int) -> None:
    """The sender runs into a bug of its own."""
    courier._producer._message_accumulator.drain_by_nodes = None


def metadata_broken(courier: Courier, _topic: str, _partitions: int) -> None:
    """The task that asks for metadata runs into a bug of its own."""
    courier._client._metadata_update = None
    courier._client.force_metadata_update()


@pytest.mark.parametrize("poison", [hole, fenced, killed, broken, metadata_killed, metadata_broken])
async def test_a_poisoned_client_is_replaced_and_its_records_are_sent_again_in_order(
    kafka: Kafka, poison: Callable[[Courier, str, int], None]
) -> None:
    topic = await kafka.create_topic(3)
    sent = numbered(0, 900)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.deliver(topic, sent[:300])
        poison(desk.courier(topic), topic, 3)
        async with asyncio.timeout(DONE_SECONDS):
            deliveries = [desk.hand_in(topic, sent[start : start + 100]) for start in range(300, 900, 100)]
            assert [done.acknowledged for done in await asyncio.gather(*deliveries)] == [100] * 6
        assert desk.count("clients_replaced") >= 1
        (line, *_) = desk.said("Kafka client replaced")
        assert line["log_level"] == "warning"
        assert line["topic"] == topic
        assert line["reason"]
        assert sum(each["records_sent_again"] for each in desk.said("Kafka client replaced")) == desk.count(
            "records_resent"
        )
        await desk.ready()
        # The next ones need no further client.
        before = desk.count("clients_replaced")
        await desk.deliver(topic, sent[:5])
        assert desk.count("clients_replaced") == before
    await in_order_and_nothing_lost(kafka, topic, sent)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "error",
    [
        kafka_proxy.OUT_OF_ORDER_SEQUENCE_NUMBER,
        kafka_proxy.UNKNOWN_PRODUCER_ID,
        kafka_proxy.INVALID_PRODUCER_EPOCH,
        kafka_proxy.TOPIC_AUTHORIZATION_FAILED,
        kafka_proxy.INVALID_TIMESTAMP,
        kafka_proxy.INVALID_RECORD,
    ],
)
async def test_whatever_kafka_refuses_is_kept_and_sent_again(kafka: Kafka, error: int) -> None:
    topic = await kafka.create_topic(3)
    sent = numbered(0, 100)
    async with KafkaProxy(kafka.server.port) as proxy, publishing(proxy.bootstrap_servers, topic) as desk:
        await desk.ready()
        proxy.fate = lambda request: Fate(kind=Kind.REFUSED, error=error) if request.number < 3 else kafka_proxy.PASS
        delivery = desk.hand_in(topic, sent)
        await eventually(lambda: bool(desk.said("Kafka client replaced")), "a new client")
        (reason, *_) = desk.publisher.not_ready()
        assert reason.startswith(f"topic {topic} since 20")
        assert "Kafka refuses records" in reason
        assert SINCE.search(reason)
        assert (await delivery).acknowledged == 100
        assert not desk.publisher.not_ready()
        assert 1 <= desk.count("clients_replaced") <= 3
    found = await values(kafka, topic)
    assert sorted(value for partition in found.values() for value in partition) == sorted(r.value for r in sent)


async def test_of_a_batch_that_was_appended_and_then_refused_all_are_doubled_and_counted(kafka: Kafka) -> None:
    topic = await kafka.create_topic(1)
    sent = numbered(0, 50)
    async with KafkaProxy(kafka.server.port) as proxy, publishing(proxy.bootstrap_servers, topic) as desk:
        await desk.ready()
        refused = Fate(kind=Kind.REFUSED_DONE, error=kafka_proxy.INVALID_PRODUCER_EPOCH)
        proxy.fate = lambda request: refused if request.number == 0 else kafka_proxy.PASS
        assert (await desk.deliver(topic, sent)).acknowledged == 50
        assert (desk.count("clients_replaced"), desk.count("records_resent")) == (1, 50)
    (found,) = (await values(kafka, topic)).values()
    assert found == [record.value for record in sent] * 2


async def test_a_client_that_is_refused_for_ever_is_replaced_more_and_more_seldom(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await kafka.create_topic(1)
    async with KafkaProxy(kafka.server.port) as proxy, publishing(proxy.bootstrap_servers, topic) as desk:
        await desk.ready()
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr(desk.feed(topic), "_surroundings", replace(real_surroundings(), sleep=sleep))
        proxy.fate = kafka_proxy.always(Fate(kind=Kind.REFUSED, error=kafka_proxy.TOPIC_AUTHORIZATION_FAILED))
        delivery = desk.hand_in(topic, numbered(0, 1))
        await eventually(lambda: len(slept) >= 7, "seven clients")
        assert slept[:7] == [1, 2, 4, 8, 16, 30, 30]
        assert "grant WRITE" in " ".join(desk.publisher.not_ready())
        proxy.release()
        assert (await delivery).acknowledged == 1
        poisoned = len(slept)
        proxy.fate = lambda request: (
            Fate(kind=Kind.REFUSED, error=kafka_proxy.TOPIC_AUTHORIZATION_FAILED)
            if request.number == len(proxy.requests) and len(slept) == poisoned
            else kafka_proxy.PASS
        )
        await desk.deliver(topic, numbered(1, 2))
        assert slept[poisoned:] == [1]  # an acknowledgement has ended the row


async def test_an_abandoned_client_delivers_nothing_any_more(kafka: Kafka) -> None:
    topic = await kafka.create_topic(1)
    sent = numbered(0, 2000)
    async with KafkaProxy(kafka.server.port) as proxy, publishing(proxy.bootstrap_servers, topic) as desk:
        await desk.ready()
        proxy.fate = kafka_proxy.always(kafka_proxy.HELD)  # the first client's requests do not pass
        delivery = desk.hand_in(topic, sent)
        await eventually(lambda: bool(proxy.requests), "a request on its way")
        old = desk.feed(topic)._courier
        assert old is not None
        # A client poisoned by something else, while this request is still unanswered.
        desk.feed(topic)._lose("the test wants another one")
        await eventually(lambda: bool(desk.said("Kafka client replaced")), "its end")
        assert all(task.done() for task in old.vital_tasks())
        assert not old._requests
        proxy.fate = kafka_proxy.always(kafka_proxy.PASS)
        assert (await delivery).acknowledged == 2000
        assert not any(connection.connected() for connection in old._open_connections())
        await asyncio.sleep(1.5)  # six times what it would have waited before it tried again
    (found,) = (await values(kafka, topic)).values()
    assert found == [record.value for record in sent]


# ---- sizes ---------------------------------------------------------------------------------------------------------


def sized(batch_bytes: int, key: bytes | None = b"S") -> Record:
    """A record whose own batch has that size on the wire: noise, of which compression saves a few bytes at most."""
    written = EventHeaders(source="http://h/x", time="2026-01-02T03:04:05.678Z")
    size = batch_bytes - 260
    for seed in range(1000):
        value = noise(size, seed)
        batch = RecordBatch(1)
        batch.append(timestamp=0, key=key, value=value, headers=written.of(key, value))
        surplus = batch.build().wire_bytes - batch_bytes
        if not surplus:
            return Record(key=key, value=value)
        size -= surplus
    message = f"no record of {batch_bytes} bytes found"
    raise AssertionError(message)


@pytest.mark.parametrize("limit", [300, 2 * 1024 * 1024, 10 * 1024 * 1024])
async def test_records_up_to_the_topics_limit_pass_and_one_byte_more_is_set_aside_alone(
    kafka: Kafka, limit: int
) -> None:
    topic = await kafka.create_topic(1, config={"max.message.bytes": str(limit)})
    small = [Record(key=b"S", value=b"%d" % n) for n in range(3)]
    below, exact, above = sized(limit - 1), sized(limit), sized(limit + 1)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        done = await desk.deliver(topic, [small[0], below, small[1], above, exact, small[2]])
        assert (done.acknowledged, done.set_aside) == (5, (above,))
        assert desk.count("clients_replaced") == 0
        assert desk.count("set_aside", reason="too_large") == 1
        (line,) = desk.said("Record set aside")
        assert line["log_level"] == "error"
        assert (line["reason"], line["key"], line["bytes"]) == ("too_large", "S", len(above.value))
        assert (line["batch_bytes"], line["allowed_bytes"]) == (limit + 1, limit)
        assert line["sha256"] == hashlib.sha256(above.value).hexdigest()
    (found,) = (await values(kafka, topic)).values()
    assert found == [small[0].value, below.value, small[1].value, exact.value, small[2].value]


async def test_the_key_of_what_is_set_aside_is_told_short_and_without_secrets(kafka: Kafka) -> None:
    topic = await kafka.create_topic(1, config={"max.message.bytes": "300"})
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        done = await desk.deliver(topic, [Record(key=b"CANARY" + noise(9000), value=b"")])
        assert len(done.set_aside) == 1
        (line,) = desk.said("Record set aside")
        assert line["key"].startswith("***")
        assert len(line["key"]) <= 200


async def test_a_giant_that_compresses_below_the_limit_passes_unless_the_broker_stores_it_otherwise(
    kafka: Kafka,
) -> None:
    giant = Record(key=b"G", value=b"x" * 1_500_000)
    as_sent = await kafka.create_topic(1)
    unpacked = await kafka.create_topic(1, config={"compression.type": "uncompressed"})
    async with publishing(kafka.bootstrap_servers, as_sent, unpacked) as desk:
        assert (await desk.deliver(as_sent, [giant])).acknowledged == 1
        done = await desk.deliver(unpacked, [*numbered(0, 2), giant, *numbered(2, 4)])
        assert (done.acknowledged, done.set_aside) == (4, (giant,))
        assert desk.count("clients_replaced") == 0


async def test_a_limit_lowered_in_mid_run_is_asked_again_and_costs_only_what_is_larger(kafka: Kafka) -> None:
    topic = await kafka.create_topic(1)
    fits, giant = sized(20_000), sized(20_001)
    several = [sized(3_000, key=b"%d" % n) for n in range(100)]
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        assert (await desk.deliver(topic, [giant])).acknowledged == 1
        await alter(kafka, topic, {"max.message.bytes": "20000"})
        done = await desk.deliver(topic, [*several, giant, fits])
        assert (done.acknowledged, done.set_aside) == (101, (giant,))
        assert desk.count("clients_replaced") == 1
        (line,) = desk.said("Kafka client replaced")
        assert "MessageSizeTooLargeError" in line["reason"]
    (found,) = (await values(kafka, topic)).values()
    assert found == [each.value for each in (giant, *several, fits)]


@pytest.mark.usefixtures("impatient")
async def test_where_the_settings_are_not_told_batches_are_cut_until_they_pass(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(_self: Courier, _topic: str, _names: Sequence[str]) -> Mapping[str, str]:
        raise NotTold("it is denied: grant DescribeConfigs on the topic")

    monkeypatch.setattr(Courier, "topic_settings", denied)
    topic = await kafka.create_topic(1, config={"max.message.bytes": "100000"})
    several = [sized(30_000, key=b"%d" % n) for n in range(20)]
    giant = sized(100_001)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        done = await desk.deliver(topic, [*several, giant, *several])
        assert (done.acknowledged, done.set_aside) == (40, (giant,))
        replaced = desk.count("clients_replaced")
        assert 0 < replaced <= 6
        # What was learned holds: the same again costs no client.
        done = await desk.deliver(topic, [*several, giant, *several])
        assert (done.acknowledged, done.set_aside) == (40, (giant,))
        assert desk.count("clients_replaced") == replaced
        (line,) = desk.said("Topic settings not told")
        assert line["assumed_max_message_bytes"] == 1_048_588
        assert "DescribeConfigs" in line["reason"]


@pytest.mark.parametrize("told", [True, False])
async def test_a_compacted_topic_gets_only_records_with_a_key(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    async def denied(_self: Courier, _topic: str, _names: Sequence[str]) -> Mapping[str, str]:
        raise NotTold("no such request")

    if not told:
        monkeypatch.setattr(Courier, "topic_settings", denied)
    topic = await kafka.create_topic(1, config={"cleanup.policy": "compact"})
    keyless = [Record(key=None, value=b"%d" % n) for n in range(3)]
    keyed = numbered(0, 4)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        done = await desk.deliver(topic, [keyed[0], *keyless[:2], keyed[1], keyless[2], *keyed[2:]])
        assert (done.acknowledged, done.set_aside) == (4, tuple(keyless))
        assert desk.count("set_aside", reason="no_key") == 3
        assert [line["reason"] for line in desk.said("Records set aside")] == ["no_key", "no_key"]
        assert [line["records"] for line in desk.said("Records set aside")] == [2, 1]
        assert desk.count("clients_replaced") == (0 if told else 1)


# ---- topics --------------------------------------------------------------------------------------------------------


async def test_a_missing_topic_holds_up_its_own_records_only_and_is_never_created(
    new_kafka: Callable[..., Kafka],
) -> None:
    kafka = new_kafka(settings={"auto.create.topics.enable": "true"})
    topic, missing = await kafka.create_topic(3), unique("missing")
    async with publishing(kafka.bootstrap_servers, topic, missing) as desk:
        waiting = desk.hand_in(missing, numbered(0, 10))
        for start in range(0, 50, 10):
            assert (await desk.deliver(topic, numbered(start, start + 10))).acknowledged == 10
        await eventually(lambda: "does not exist" in " ".join(desk.publisher.not_ready()), "the reason")
        (reason,) = desk.publisher.not_ready()
        assert reason.startswith(f"topic {missing} since 20")
        assert "create it" in reason
        assert not waiting.done()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await desk.publisher.drained()
        await kafka.create_topic(2, name=missing)  # fails if it is there already
        async with asyncio.timeout(DONE_SECONDS):
            assert (await waiting).acknowledged == 10
            await desk.publisher.drained()
        await desk.ready()
    assert sum(map(len, (await values(kafka, missing)).values())) == 10


@pytest.mark.parametrize("partitions", [3, 1])
async def test_a_topic_deleted_and_made_again_gets_what_waits_whatever_partitions_it_has_now(
    kafka: Kafka, partitions: int
) -> None:
    topic = await kafka.create_topic(3)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.deliver(topic, numbered(0, 100))
        await delete(kafka, topic)
        deliveries = [desk.hand_in(topic, numbered(start, start + 10)) for start in range(100, 200, 10)]
        await eventually(lambda: any("does not exist" in reason for reason in desk.publisher.not_ready()), "its loss")
        assert all(topic in reason for reason in desk.publisher.not_ready())
        await kafka.create_topic(partitions, name=topic)
        async with asyncio.timeout(DONE_SECONDS):
            assert sum(done.acknowledged for done in await asyncio.gather(*deliveries)) == 100
        await desk.ready()
    found = await values(kafka, topic)
    assert {value for part in found.values() for value in part} == {record.value for record in numbered(100, 200)}


async def test_new_partitions_get_new_records(kafka: Kafka) -> None:
    topic = await kafka.create_topic(1)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.deliver(topic, numbered(0, 10))
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_partitions({topic: NewPartitions(3)})
        finally:
            await admin.close()

        async def spread() -> bool:
            await desk.courier(topic).refresh()
            await desk.deliver(topic, numbered(10, 60, keys=50))
            return sum(end > 0 for end in (await kafka.end_offsets(topic)).values()) == 3

        await eventually(spread, "records in all partitions", every_seconds=0.5)


async def test_a_client_holds_no_more_than_so_many_bytes(
    new_kafka: Callable[..., Kafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "UNDER_WAY_BYTES", 1_000_000)
    kafka = new_kafka()
    topic = await kafka.create_topic(10)
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.deliver(topic, numbered(0, 10))
        kafka.server.suspend()
        try:
            delivery = desk.hand_in(topic, [Record(key=b"%d" % n, value=noise(100_000)) for n in range(300)])
            await eventually(
                lambda: desk.feed(topic)._shipment.under_way_bytes >= 1_000_000, "a client full of records"
            )
            await asyncio.sleep(0.5)  # time for more, if there were any
            assert desk.feed(topic)._shipment.under_way_bytes < 1_000_000 + CUT_BYTES
        finally:
            kafka.server.resume()
        assert (await delivery).acknowledged == 300
        assert desk.feed(topic)._shipment.under_way_bytes == 0


# ---- the end -------------------------------------------------------------------------------------------------------


async def test_it_stops_within_its_budget_whatever_kafka_does(new_kafka: Callable[..., Kafka]) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(3)
    began = 0.0
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await desk.deliver(topic, numbered(0, 10))
        kafka.server.suspend()
        desk.hand_in(topic, [Record(key=b"%d" % n, value=noise(100_000)) for n in range(300)])
        await eventually(lambda: desk.feed(topic)._shipment.under_way_bytes > 4 * CUT_BYTES, "a client full of records")
        desk.publisher.close_within(1.0)
        began = asyncio.get_running_loop().time()
    try:
        assert asyncio.get_running_loop().time() - began < 1.5
        assert desk.ledger.unacked_records == 300
    finally:
        kafka.server.resume()


async def test_a_start_that_is_cut_off_leaves_nothing_behind(
    new_kafka: Callable[..., Kafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(1)
    monkeypatch.setattr(courier, "CONNECT_SECONDS", 0.5)
    kafka.server.suspend()
    async with publishing(kafka.bootstrap_servers, topic) as desk:
        await eventually(
            lambda: any("no answer in time" in reason for reason in desk.publisher.not_ready()), "a cut-off start"
        )
        kafka.server.resume()
        monkeypatch.undo()
        assert (await desk.deliver(topic, numbered(0, 3))).acknowledged == 3


async def test_a_start_that_hangs_after_its_first_answer_leaves_no_connection_open(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(feed, "RETRY_SECONDS", 1000.0)
    ended = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one request and its answer on, and swallows all others."""
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", kafka.server.port)
        for source, target in ((reader, broker_writer), (broker_reader, writer)):
            length = await source.readexactly(4)
            target.write(length + await source.readexactly(int.from_bytes(length)))
        with suppress(ConnectionResetError):
            await reader.read()
        ended.set()
        broker_writer.close()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    gc.disable()  # it would end what was forgotten
    try:
        async with server, publishing(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "any"):
            async with asyncio.timeout(DONE_SECONDS):
                await ended.wait()
    finally:
        gc.enable()


# ---- rights --------------------------------------------------------------------------------------------------------


async def test_a_topic_that_may_not_be_written_or_described_holds_up_its_own_records_until_it_may(
    new_kafka: Callable[..., Kafka],
) -> None:
    kafka = new_kafka(
        settings={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
    )
    topic, forbidden = await kafka.create_topic(1), await kafka.create_topic(1)

    def rights(*arguments: str) -> None:
        done = kafka.server.tool("org.apache.kafka.tools.AclCommand", "--topic", forbidden, "--force", *arguments)
        assert done.returncode == 0, done.stderr + done.stdout

    await asyncio.to_thread(rights, "--add", "--allow-principal", "User:ANONYMOUS", "--operation", "Describe")
    async with publishing(kafka.bootstrap_servers, topic, forbidden) as desk:
        waiting = desk.hand_in(forbidden, numbered(0, 10))
        await eventually(lambda: len(desk.said("Kafka client replaced")) >= 2, "refusals")
        assert (await desk.deliver(topic, numbered(0, 10))).acknowledged == 10
        (reason,) = desk.publisher.not_ready()
        assert reason.startswith(f"topic {forbidden} since 20")
        assert "TopicAuthorizationFailedError" in reason
        assert "grant WRITE" in reason
        (line,) = desk.said("Topic settings not told")
        assert "grant DescribeConfigs" in line["reason"]
        await asyncio.to_thread(rights, "--add", "--allow-principal", "User:ANONYMOUS", "--operation", "Write")
        async with asyncio.timeout(DONE_SECONDS):
            assert (await waiting).acknowledged == 10
        assert not desk.publisher.not_ready()
        assert {line["topic"] for line in desk.said("Kafka client replaced")} == {forbidden}
    await asyncio.to_thread(rights, "--add", "--allow-principal", "User:ANONYMOUS", "--operation", "Read")
    (found,) = (await values(kafka, forbidden)).values()
    assert found == [record.value for record in numbered(0, 10)]
