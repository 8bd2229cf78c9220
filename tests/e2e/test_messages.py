"""What the consumer says when something is wrong: each fault has its message, and nothing is skipped or committed.

Faults of S3 come from the tests' own fault server, the rest from real Kafka and MiniStack.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata

from consumer.keys import KeyTemplate
from consumer.settings import DEFAULT_TEMPLATE
from tests.fault_server import Fault, FaultServer
from tests.oracle import judge
from tests.processes import ServiceProcess
from tests.servers import Produced, eventually, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import S3, Kafka

DAY_MS = 86_400_000
TODAY_MS = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS  # recent, or Kafka's retention would take the records
UNUSED_PORT_SERVERS = "127.0.0.1:1"


class Bench:
    """One topic with one partition, one bucket, one group; consumers as a test starts them."""

    def __init__(self, kafka: Kafka, s3: S3, *, topic: str, bucket: str, group: str, folder: Path) -> None:
        self.kafka = kafka
        self.s3 = s3
        self.topic = topic
        self.bucket = bucket
        self.group = group
        self._folder = folder
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP_ID": group,
            "S3_BUCKET": bucket,
            "BATCH_MAX_SECONDS": "0.5",
            **s3.environ(),
        }

    def consumer(self, **settings: str) -> ServiceProcess:
        return ServiceProcess(["consumer"], {**self.environ, **settings}, self._folder)

    def key(self, start: int, timestamp: int = TODAY_MS) -> str:
        keys = KeyTemplate(DEFAULT_TEMPLATE, prefix="", topic=self.topic, ext="jsonl.gz")
        return keys.render(partition=0, start=start, timestamp=timestamp)

    async def produce(self, count: int, timestamp: int = TODAY_MS) -> None:
        records = [Produced(value=b'{"n":%d}' % number, partition=0, timestamp=timestamp) for number in range(count)]
        await self.kafka.produce(self.topic, records)

    async def committed(self) -> OffsetAndMetadata | None:
        client = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap_servers, group_id=self.group)
        await client.start()
        try:
            answer = await client._coordinator.fetch_committed_offsets([TopicPartition(self.topic, 0)])
            return answer.get(TopicPartition(self.topic, 0))
        finally:
            await client.stop()

    async def commit(self, offset: int, metadata: str = "") -> None:
        """As a tool or a predecessor would."""
        client = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers, group_id=self.group, enable_auto_commit=False
        )
        await client.start()
        try:
            client.assign([TopicPartition(self.topic, 0)])
            await client.commit({TopicPartition(self.topic, 0): OffsetAndMetadata(offset, metadata)})
        finally:
            await client.stop()

    async def refused(self, part: str, **settings: str) -> str:
        """Start; it must end with exit code 2 and one line that holds `part`; the line."""
        with self.consumer(**settings) as consumer:
            assert await consumer.ended() == 2, consumer.output()
            assert "Traceback" not in consumer.output()
            lines = [line for line in consumer.output().splitlines() if not line.startswith("{")]
            assert len(lines) == 1, lines
            assert part in lines[0]
            assert "allowed: " in lines[0]
            return lines[0]

    async def chain_id(self) -> str:
        layout = (await self.s3.objects(self.bucket, "_ticklake/"))[f"_ticklake/{self.topic}/layout.json"]
        return str(json.loads(layout.body)["chain-id"])

    async def clean(self) -> None:
        verdict = await judge(self.kafka, self.s3, topic=self.topic, bucket=self.bucket)
        assert verdict.faults == []


@pytest.fixture
def bench(kafka: Kafka, s3: S3, topic: str, bucket: str, group: str, tmp_path: Path) -> Bench:
    return Bench(kafka, s3, topic=topic, bucket=bucket, group=group, folder=tmp_path)


# ---- Kafka -----------------------------------------------------------------------------------------------------------


async def test_a_missing_topic_is_waited_for_and_never_created(bench: Bench) -> None:
    topic = unique("absent")
    with bench.consumer(KAFKA_TOPIC=topic) as consumer:
        assert topic in await consumer.ready_reason(topic)
        assert (await consumer.get("/healthz"))[0] == 200
        await bench.kafka.create_topic(name=topic)  # fails if somebody created it
        await bench.kafka.produce(topic, [b"{}"])
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0


async def test_an_unreachable_broker_is_named_and_a_stop_still_exits_0(bench: Bench) -> None:
    with bench.consumer(KAFKA_BOOTSTRAP_SERVERS=UNUSED_PORT_SERVERS) as consumer:
        assert "waiting for Kafka" in await consumer.ready_reason(UNUSED_PORT_SERVERS)
        assert (await consumer.get("/healthz"))[0] == 200
        assert await consumer.stop() == 0


# ---- S3 --------------------------------------------------------------------------------------------------------------


async def test_a_wrong_bucket_is_named(bench: Bench) -> None:
    await bench.produce(3)
    with bench.consumer(S3_BUCKET="no-such-bucket-here") as consumer:
        assert "NoSuchBucket" in await consumer.ready_reason("no-such-bucket-here")
        assert await consumer.stop() == 0
    assert await bench.committed() is None


async def test_a_wrong_key_is_refused_by_a_store_that_checks_signatures(bench: Bench, versitygw: S3) -> None:
    bucket = await versitygw.create_bucket()
    wrong = {**versitygw.environ(), "AWS_SECRET_ACCESS_KEY": "wrong-secret-of-the-test", "S3_BUCKET": bucket}
    await bench.produce(3)
    with bench.consumer(**wrong) as consumer:
        assert "SignatureDoesNotMatch" in await consumer.ready_reason("Signature")
        assert "wrong-secret-of-the-test" not in consumer.output()
        assert await consumer.stop() == 0
    assert await bench.committed() is None


@pytest.fixture
async def faulty(bench: Bench) -> AsyncIterator[FaultServer]:
    """The bench's consumers talk to a fault server; without a script it is a good store."""
    async with FaultServer(buckets=["bucket"]) as server:
        bench.environ.update(AWS_ENDPOINT_URL_S3=server.url, S3_BUCKET="bucket")
        yield server


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.DENIED, "AccessDenied"),
        (Fault.BAD_KEY, "InvalidAccessKeyId"),
        (Fault.ACL_OFF, "AccessControlListNotSupported"),
    ],
)
async def test_a_refused_put_is_told_and_nothing_is_committed(
    bench: Bench, faulty: FaultServer, fault: Fault, said: str
) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        faulty.script(fault, method="PUT", key_part="dt=")
        await bench.produce(3)
        assert "partition 0 retrying for" in await consumer.ready_reason(said)
        assert (await consumer.get("/healthz"))[0] == 200
        assert await consumer.stop() == 0
        assert consumer.lines("Uploaded") == []
    committed = await bench.committed()
    assert committed is None or committed.offset == 0


@pytest.mark.parametrize(
    ("fault", "said"), [(Fault.DENIED, "AccessDenied"), (Fault.EXPIRED, "ExpiredToken"), (Fault.SLOW_DOWN, "SlowDown")]
)
async def test_a_put_that_fails_is_kept_and_heals_without_a_restart(
    bench: Bench, faulty: FaultServer, fault: Fault, said: str
) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        faulty.script(fault, method="PUT", key_part="dt=")
        await bench.produce(3)
        reason = await consumer.ready_reason(said)
        assert "partition 0 retrying for" in reason
        assert (await consumer.get("/healthz"))[0] == 200
        line = (await consumer.logged("Retrying"))[0]
        assert line["key"] == bench.key(0)
        faulty.well()
        await consumer.logged("Uploaded", seconds=60)
        assert len(consumer.lines("Uploaded")) == 1
        assert (await consumer.get("/readyz"))[0] == 200
        assert await consumer.stop() == 0
    committed = await bench.committed()
    assert committed is not None
    assert committed.offset == 3


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.INTERNAL_AFTER, Fault.RESET_BEFORE, Fault.CONFLICT])
async def test_a_lost_answer_neither_loses_nor_doubles(bench: Bench, faulty: FaultServer, fault: Fault) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        faulty.script(fault, method="PUT", key_part="dt=", times=1)
        await bench.produce(3)
        line = (await consumer.logged("Uploaded"))[0]
        assert (line["start"], line["next"]) == (0, 3)
        await bench.produce(2)
        later = (await consumer.logged("Uploaded", count=2))[1]
        assert (later["start"], later["next"]) == (3, 5)
        assert await consumer.stop() == 0


async def test_a_store_without_conditional_puts_is_refused(bench: Bench, faulty: FaultServer) -> None:
    faulty.script(Fault.IGNORE_CONDITION)
    assert "If-None-Match" in await bench.refused("AWS_ENDPOINT_URL_S3")


async def test_a_missing_permission_to_list_is_told_with_the_one_to_grant(bench: Bench, faulty: FaultServer) -> None:
    faulty.script(Fault.DENIED_BARE, method="HEAD")
    with bench.consumer() as consumer:
        await consumer.ready_reason("s3:ListBucket")
        assert await consumer.stop() == 0


# ---- the chain -------------------------------------------------------------------------------------------------------


async def test_a_foreign_object_in_the_way_stalls_the_partition_until_it_is_gone(bench: Bench) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        await bench.s3.put(bench.bucket, bench.key(0), b"somebody else's")
        await bench.produce(3)
        reason = await consumer.ready_reason("partition 0 stalled")
        assert bench.key(0) in reason
        assert "foreign object" in reason
        assert (await consumer.logged("Stalled"))[0]["level"] == "error"
        assert consumer.lines("Uploaded") == []
        await bench.s3.delete(bench.bucket, bench.key(0))
        await consumer.logged("Uploaded", seconds=60)
        assert await consumer.stop() == 0
    await bench.clean()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"COMPRESSION": "zstd"}, "COMPRESSION"),
        ({"RECORD_FORMAT": "envelope"}, "RECORD_FORMAT"),
        ({"S3_KEY_TEMPLATE": "topic={topic}/{partition}-{start}.{ext}"}, "S3_KEY_TEMPLATE"),
        ({"S3_KEY_TEMPLATE": "{partition}-{start}.{ext}"}, "S3_KEY_TEMPLATE"),
    ],
)
async def test_settings_that_disagree_with_the_layout_are_refused(
    bench: Bench, settings: dict[str, str], named: str
) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        assert await consumer.stop() == 0
    with bench.consumer(**settings) as consumer:
        assert await consumer.ended() == 2
        faults = [line for line in consumer.output().splitlines() if not line.startswith("{")]
        assert faults
        assert named in "\n".join(faults)
        assert "Traceback" not in consumer.output()


async def test_another_prefix_in_the_same_group_is_refused(bench: Bench) -> None:
    await bench.produce(3)
    with bench.consumer() as consumer:
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0
    await bench.refused("signed by chain", S3_PREFIX="other/")
    assert await bench.s3.keys(bench.bucket, "other/") == [], "nothing is written before the signature is noticed"


async def test_objects_without_a_layout_are_refused(bench: Bench) -> None:
    await bench.s3.put(bench.bucket, bench.key(0), b"of a lost layout")
    await bench.refused("layout.json")


async def test_offsets_reset_by_a_tool_are_ignored_with_a_warning(bench: Bench) -> None:
    await bench.produce(5)
    with bench.consumer() as consumer:
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0
    await bench.commit(1)
    await bench.produce(2)
    with bench.consumer() as consumer:
        warning = (await consumer.logged("Unsigned offset ignored"))[0]
        assert (warning["committed"], warning["chain_end"]) == (1, 5)
        line = (await consumer.logged("Uploaded"))[0]
        assert (line["start"], line["next"]) == (5, 7)
        assert await consumer.stop() == 0
    await bench.clean()


async def test_a_predecessors_offset_beyond_the_log_is_refused(bench: Bench) -> None:
    await bench.produce(3)
    await bench.commit(99)
    await bench.refused("beyond the log's end")


async def test_a_predecessor_that_still_runs_is_waited_for_and_its_last_offset_is_the_origin(bench: Bench) -> None:
    await bench.produce(5)
    predecessor = AIOKafkaConsumer(
        bench.topic,
        bootstrap_servers=bench.kafka.bootstrap_servers,
        group_id=bench.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await predecessor.start()
    try:
        await predecessor.commit({TopicPartition(bench.topic, 0): 1})
        with bench.consumer() as consumer:
            await consumer.ready_reason("stop the predecessor first")
            await predecessor.commit({TopicPartition(bench.topic, 0): 2})
            await predecessor.stop()
            line = (await consumer.logged("Uploaded", seconds=60))[0]
            assert (line["start"], line["next"]) == (2, 5)
            assert await consumer.stop() == 0
    finally:
        await predecessor.stop()


async def test_an_end_above_the_log_is_waited_for_and_told(bench: Bench) -> None:
    await bench.produce(3)
    with bench.consumer() as consumer:
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0
    await bench.commit(1000, f"ticklake:{await bench.chain_id()}:1000")
    with bench.consumer() as consumer:
        reason = await consumer.ready_reason("the chain ends at 1000")
        assert "the log at 3" in reason
        assert await consumer.stop() == 0
    committed = await bench.committed()
    assert committed is not None
    assert committed.offset == 1000, "nothing was committed"


async def move_log_start(bench: Bench, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(bench.topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


@pytest.fixture
async def lossy(bench: Bench) -> Bench:
    """The chain ends at 3, the log starts at 5."""
    await bench.produce(3)
    with bench.consumer() as consumer:
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0
    await bench.produce(4)
    await move_log_start(bench, 5)
    return bench


async def test_records_gone_from_kafka_stall_the_partition(lossy: Bench) -> None:
    with lossy.consumer() as consumer:
        reason = await consumer.ready_reason("partition 0 stalled")
        assert "the chain ends at 3, the log starts at 5: 2 offsets are gone" in reason
        assert "KAFKA_ON_DATA_LOSS=skip" in reason
        assert consumer.lines("Uploaded") == []
        assert await consumer.stop() == 0
    committed = await lossy.committed()
    assert committed is not None
    assert committed.offset == 3


async def test_records_gone_from_kafka_are_skipped_when_asked_and_counted_in_the_object(lossy: Bench) -> None:
    settings = {
        "KAFKA_ON_DATA_LOSS": "skip",
        "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        "KAFKA_REBALANCE_TIMEOUT_SECONDS": "3",
        "UPLOAD_TIMEOUT_SECONDS": "2",
    }
    with lossy.consumer(**settings) as consumer:
        await consumer.ready_reason("once no other writer can still be there")
        began = time.monotonic()
        line = (await consumer.logged("Uploaded", seconds=60))[0]
        assert time.monotonic() - began > 8, "it waits until no other writer can be there"
        assert (line["start"], line["next"]) == (3, 7)
        assert await consumer.stop() == 0
    objects = await lossy.s3.objects(lossy.bucket, "topic=")
    assert [stored.metadata["lost-count"] for stored in objects.values()] == ["0", "2"]


async def test_a_topic_created_anew_is_noticed(bench: Bench) -> None:
    await bench.produce(3)
    with bench.consumer() as consumer:
        await consumer.logged("Uploaded")
        assert await consumer.stop() == 0
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([bench.topic])
    finally:
        await admin.close()

    async def created() -> bool:
        try:
            await bench.kafka.create_topic(name=bench.topic)
        except AssertionError:
            return False  # the deletion is still under way
        return True

    await eventually(created, "the topic anew", every_seconds=0.5)
    await bench.refused("topic id")


async def test_the_process_gives_up_nothing_while_s3_is_away_for_a_while(bench: Bench, faulty: FaultServer) -> None:
    with bench.consumer() as consumer:
        await consumer.logged("Layout agreed")
        faulty.script(Fault.RESET_BEFORE)
        await bench.produce(3)
        reason = await consumer.ready_reason("S3 fails for")
        assert "partition 0 retrying" in reason or "head" in reason or "S3 fails" in reason
        faulty.well()
        await consumer.logged("Uploaded", seconds=60)
        await eventually(lambda: _ready(consumer), "ready again", 60, every_seconds=0.2)
        assert await consumer.stop() == 0


async def _ready(consumer: ServiceProcess) -> bool:
    return (await consumer.get("/readyz"))[0] == 200
