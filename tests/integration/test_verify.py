"""`verify` on the real Kafka and a real S3 server, on chains put there as the consumer would."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from consumer import inspector
from consumer.__main__ import main
from consumer.audit import Ground
from consumer.connections import new_source, new_store
from consumer.log_reader import LogMovedError, open_log_reader
from consumer.ports import Record
from consumer.settings import Settings
from consumer.verify import verify
from shared.kafka import connection_options
from shared.schemas import sign_offset
from shared.settings import load
from tests.planting import CHAIN, NOON, Planter, layout_for, record
from tests.processes import ServiceProcess
from tests.servers import S3, Kafka, Produced, unique

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from consumer.ports import Upload
    from tests.planting import Made


@dataclass(slots=True)
class Place:
    """One topic with a layout in one bucket."""

    kafka: Kafka
    s3: S3
    environ: Mapping[str, str]
    settings: Settings
    planter: Planter

    @classmethod
    async def make(cls, kafka: Kafka, s3: S3, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Place:
        # The records' own times are long ago: with the default retention Kafka deletes them while we look.
        topic = await kafka.create_topic(partitions=2, config={"retention.ms": "-1"})
        for name, value in s3.environ().items():
            monkeypatch.setenv(name, value)
        environ = {
            **s3.environ(),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP_ID": unique("group"),
            "S3_BUCKET": await s3.create_bucket(),
            **environ,
        }
        settings = load(Settings, environ)
        source = new_source(settings)
        await source.connect()
        identity = await source.identity()
        await source.leave()
        layout = layout_for(
            settings.keys,
            compression=settings.compression,
            record_format=settings.record_format,
            topic_id=identity.topic_id,
            cluster_id=identity.cluster_id,
        )
        place = cls(kafka, s3, environ, settings, Planter(Ground(layout=layout, keys=settings.keys)))
        await s3.put(settings.s3_bucket, settings.keys.layout_key, layout.encode())
        return place

    async def put(self, made: Made) -> None:
        async with new_store(self.settings) as store:
            for upload in made.uploads:
                await store.put_if_absent(upload)

    async def store_topic(self, partition: int, cuts: Sequence[int]) -> list[Made]:
        """Objects of all that the partition holds: each ends at one of the cuts."""
        read = (await self.kafka.read(self.settings.kafka_topic))[partition]
        records = [
            Record(offset=r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=tuple(r.headers))
            for r in read
        ]
        made = []
        for start, end in zip([0, *cuts], cuts, strict=False):
            inside = [record for record in records if start <= record.offset < end]
            made.append(self.planter.object(inside, partition=partition, start=start, next_offset=end))
            await self.put(made[-1])
        return made

    async def commit(self, partition: int, offset: int, metadata: str | None = None) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=self.settings.kafka_group_id,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            name = TopicPartition(self.settings.kafka_topic, partition)
            consumer.assign([name])
            signed = sign_offset(CHAIN, offset) if metadata is None else metadata
            await consumer.commit({name: OffsetAndMetadata(offset, signed)})
        finally:
            await consumer.stop()

    async def verify(self, *arguments: str) -> tuple[int, str]:
        said: list[str] = []
        code = await verify(self.settings, arguments, write=said.append)
        return code, "".join(said)

    async def delete(self, partition: int, start: int) -> None:
        await self.s3.delete(self.settings.s3_bucket, self.planter.made[partition, start].main.key)

    async def damage(self, upload: Upload, body: bytes) -> None:
        await self.s3.put(self.settings.s3_bucket, upload.key, body, upload.metadata)


def quotes(count: int, partition: int = 0) -> list[Produced]:
    return [
        Produced(
            value=b'{"n":%d,"text":"caf\xc3\xa9"}' % number,
            key=b"key-%d" % number,
            partition=partition,
            timestamp=NOON + number,
            headers=[("ce_id", b"%d" % number)],
        )
        for number in range(count)
    ]


ODD = [
    Produced(value=b"not json", key=b"\xff", partition=0, timestamp=NOON, headers=[("h", b"\xfe")]),
    Produced(value=None, key=b"gone", partition=0, timestamp=NOON),
    Produced(value=b"", partition=0, timestamp=NOON),
    Produced(value=b'{"a":\n 1}', partition=0, timestamp=NOON),
]


@pytest.fixture
async def place(kafka: Kafka, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Partition 0: 10 records, the last 4 odd, in three objects; partition 1: five more in one; all committed."""
    place = await Place.make(kafka, s3, monkeypatch)
    await kafka.produce(place.settings.kafka_topic, [*quotes(6), *ODD, *quotes(5, partition=1)])
    await place.store_topic(0, [4, 8, 10])
    await place.store_topic(1, [5])
    await place.commit(0, 10)
    await place.commit(1, 5)
    return place


async def test_a_whole_bucket_is_clean_in_depth(place: Place) -> None:
    code, said = await place.verify("--deep", "--json")
    told = json.loads(said)
    assert (code, told["faults"], told["notes"]) == (0, [], [])
    assert told["totals"] == {"lag": 0, "objects": 4, "records": 12, "quarantined": 3, "lost": 0, "expired": 0}
    assert told["compared"] == {
        "objects": 4,
        "records": 12,
        "quarantined": 3,
        "objects_beyond_log": 0,
        "records_beyond_log": 0,
    }
    code, said = await place.verify()
    assert code == 0
    assert said.endswith("clean\n")


async def test_each_planted_damage_is_named_with_key_and_offsets(place: Place) -> None:
    made = place.planter.made
    first, second, third, other = made[0, 0], made[0, 4], made[0, 8], made[1, 0]
    bucket = place.settings.s3_bucket
    lines = gzip.decompress(first.main.body)
    await place.damage(first.main, gzip.compress(lines.replace(b'"n":2', b'"n":7')))
    await place.s3.delete(bucket, second.main.key)
    assert third.quarantine is not None
    await place.s3.delete(bucket, third.quarantine.key)
    await place.damage(other.main, other.main.body[:-9])
    foreign = place.settings.keys.render(partition=1, start=3, timestamp=NOON)
    await place.s3.put(bucket, foreign, b"hello")
    await place.commit(1, 77)
    code, said = await place.verify("--deep", "--json")
    assert code == 1
    told = json.loads(said)
    faults = {(f["kind"], f["partition"], f["start_offset"], f["next_offset"], f["key"]) for f in told["faults"]}
    assert faults == {
        ("body", 0, 0, 4, first.main.key),
        ("record", 0, 0, 4, first.main.key),
        ("gap", 0, 4, 8, third.main.key),
        ("quarantine", 0, 8, 10, third.quarantine.key),
        ("record", 0, 8, 10, third.main.key),
        ("body", 1, 0, 5, other.main.key),
        ("foreign", 1, 3, None, foreign),
        ("commit", 1, 77, None, other.main.key),
    }
    assert told["orphaned_quarantines"] == 1  # the deleted object's


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is planted into `place`, and the FAULT lines of the real command up to what they say of it."""

    plant: Callable[[Place], Awaitable[object]]
    faults: tuple[str, ...] = ()
    deep: bool = False


def key(partition: int, start: int) -> str:
    return f"topic=TOPIC/dt=2025-11-25/hour=12/{partition:05d}-{start:020d}.jsonl.gz"


async def plant_orphan(place: Place, start: int) -> str:
    """The key of a quarantine object for [start, 9) that no object names."""
    beaten = [record(start, "not json"), record(8, None)]
    upload = place.planter.object(beaten, start=start, next_offset=9).quarantine
    assert upload is not None
    await place.s3.put(place.settings.s3_bucket, upload.key, upload.body)
    return upload.key


async def plant_overlap(place: Place) -> None:
    await place.put(place.planter.object([record(offset) for offset in range(2, 6)]))


async def plant_changed_line(place: Place, *, hash_too: bool) -> None:
    made = place.planter.made[0, 0]
    body = gzip.decompress(made.main.body).replace(b'"n":2', b'"n":7')
    metadata = dict(made.main.metadata)
    if hash_too:
        metadata["sha256"] = hashlib.sha256(body).hexdigest()
    await place.s3.put(place.settings.s3_bucket, made.main.key, gzip.compress(body), metadata)


async def plant_foreign(place: Place) -> None:
    await place.s3.put(
        place.settings.s3_bucket, place.settings.keys.render(partition=1, start=3, timestamp=NOON), b"hello"
    )


DAMAGES = {
    "nothing": Damage(plant=lambda place: asyncio.sleep(0), deep=True),
    "a deleted object": Damage(
        plant=lambda place: place.delete(0, 4),
        faults=(f"gap, partition 0, offsets [4, 8), key {key(0, 8)}",),
    ),
    "the first object deleted": Damage(
        plant=lambda place: place.delete(0, 0),
        faults=("record, partition 0, offsets [0, 4)",),
        deep=True,
    ),
    "the last object deleted": Damage(
        plant=lambda place: place.delete(0, 8),
        faults=(f"commit, partition 0, offset 10, key {key(0, 4)}",),
    ),
    "a truncated object": Damage(
        plant=lambda place: place.damage(place.planter.made[1, 0].main, place.planter.made[1, 0].main.body[:-9]),
        faults=(f"body, partition 1, offsets [0, 5), key {key(1, 0)}",),
    ),
    "two overlapping objects": Damage(
        plant=plant_overlap,
        faults=(
            f"overlap, partition 0, offsets [2, 4), key {key(0, 2)}",
            f"overlap, partition 0, offsets [4, 6), key {key(0, 4)}",
        ),
    ),
    "a changed line": Damage(
        plant=lambda place: plant_changed_line(place, hash_too=False),
        faults=(f"body, partition 0, offsets [0, 4), key {key(0, 0)}",),
    ),
    "a changed line with a hash that fits": Damage(
        plant=lambda place: plant_changed_line(place, hash_too=True),
        faults=(f"record, partition 0, offsets [0, 4), key {key(0, 0)}",),
        deep=True,
    ),
    "a foreign object": Damage(plant=plant_foreign, faults=(f"foreign, partition 1, offset 3, key {key(1, 3)}",)),
    "an orphan quarantine": Damage(
        plant=lambda place: plant_orphan(place, 6),
        faults=("quarantine, partition 0, offsets [6, 9), key _ticklake/TOPIC/quarantine/00000-",),
    ),
    "a commit beyond the chain": Damage(
        plant=lambda place: place.commit(1, 77),
        faults=(f"commit, partition 1, offset 77, key {key(1, 0)}",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_what_is_planted_is_named_with_key_and_offsets_by_the_real_command(
    place: Place, damage: Damage, tmp_path: Path
) -> None:
    await damage.plant(place)
    options = ["--deep"] if damage.deep else []
    with ServiceProcess(["consumer", "verify", *options], place.environ, tmp_path) as command:
        code = await command.ended()
    said = command.output().replace(place.settings.kafka_topic, "TOPIC").splitlines()
    faults = [line for line in said if line.startswith("FAULT")]
    assert len(faults) == len(damage.faults), said
    for fault, expected in zip(faults, damage.faults, strict=True):
        assert fault.startswith(f"FAULT {expected}")
    assert code == (1 if faults else 0)
    assert said[-1] == {0: "clean", 1: "1 fault"}.get(len(faults), f"{len(faults)} faults")


async def test_an_orphan_that_a_lost_race_can_have_left_is_named_and_no_fault(place: Place, tmp_path: Path) -> None:
    """docs/decisions/0007-what-verify-calls-a-fault.md"""
    orphan = await plant_orphan(place, 4)
    with ServiceProcess(["consumer", "verify", "--deep"], place.environ, tmp_path) as command:
        assert await command.ended() == 0, command.output()
    (told,) = [line for line in command.output().splitlines() if orphan in line]
    assert told.startswith(f"note  orphaned quarantine object, partition 0, offsets [4, 9), key {orphan}: ")


async def test_every_codec_and_format_is_verified_in_depth(
    kafka: Kafka, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await Place.make(kafka, s3, monkeypatch, RECORD_FORMAT="envelope", COMPRESSION="zstd")
    await kafka.produce(place.settings.kafka_topic, [*quotes(3), *ODD])
    await place.store_topic(0, [5, 7])
    code, said = await place.verify("--deep")
    assert code == 0, said
    assert "compared with the topic: 7 records and 0 quarantined ones in 2 objects" in said


async def test_aborted_records_and_markers_lie_inside_the_ranges(
    kafka: Kafka, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await Place.make(kafka, s3, monkeypatch)
    topic = place.settings.kafka_topic
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=unique("tx"))
    await producer.start()
    try:
        for number in range(4):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b'{"n":%d}' % number, partition=0, timestamp_ms=NOON)
            await (producer.commit_transaction() if number % 2 else producer.abort_transaction())
    finally:
        await producer.stop()
    end = (await kafka.end_offsets(topic))[0]
    await place.store_topic(0, [4, end])
    code, said = await place.verify("--deep", "--json")
    told = json.loads(said)
    assert (code, told["faults"]) == (0, [])
    assert told["totals"]["records"] == 2
    assert told["partitions"][0]["lag"] == 0


async def test_more_than_one_fetch_is_compared(kafka: Kafka, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies and log answers of several pieces: cuts of one lie inside the other's."""
    place = await Place.make(kafka, s3, monkeypatch, COMPRESSION="none")
    large = [Produced(value=b'{"n":%d,"x":"%s"}' % (n, b"x" * 2000), partition=0, timestamp=NOON) for n in range(3000)]
    await kafka.produce(place.settings.kafka_topic, large)
    made = await place.store_topic(0, [1, 1700, 3000])
    code, said = await place.verify("--deep")
    assert code == 0, said
    assert "compared with the topic: 3000 records" in said
    body = made[1].main.body
    at = body.index(b'{"n":1500,')
    await place.damage(made[1].main, body[:at] + body[at:].replace(b"xxxx", b"xyxx", 1))
    code, said = await place.verify("--deep", "--json")
    assert code == 1
    assert [f["what"].split(":")[0] for f in json.loads(said)["faults"] if f["kind"] == "record"] == ["offset 1500"]


async def test_ends_are_what_kafkas_tool_reads_and_the_same_twice(place: Place, tmp_path: Path) -> None:
    topic, path = place.settings.kafka_topic, tmp_path / "ends.csv"
    for _ in range(2):
        code, said = await place.verify("--ends", str(path))
        assert code == 0, said
        assert path.read_text() == f"{topic},0,10\n{topic},1,5\n"
    await place.s3.delete(place.settings.s3_bucket, place.planter.made[0, 4].main.key)
    code, said = await place.verify("--ends", str(tmp_path / "other.csv"))
    assert code == 1
    assert "other.csv is not written" in said
    assert not (tmp_path / "other.csv").exists()


async def test_what_has_left_the_log_is_not_compared(place: Place) -> None:
    name = TopicPartition(place.settings.kafka_topic, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({name: RecordsToDelete(before_offset=5)})
    finally:
        await admin.close()
    code, said = await place.verify("--deep", "--json")
    told = json.loads(said)
    assert (code, told["faults"], told["partitions"][0]["log_start"]) == (0, [], 5)
    assert (told["compared"]["objects"], told["compared"]["objects_beyond_log"]) == (2, 2)


async def test_retention_that_overtakes_the_reader_is_told_apart(place: Place) -> None:
    name = TopicPartition(place.settings.kafka_topic, 0)
    async with open_log_reader(name.topic, connection_options(place.settings)) as reader:
        reader.seek(0, 0)
        assert [record.offset for record in await reader.next_before(4)] == [0, 1, 2, 3]
        admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records({name: RecordsToDelete(before_offset=9)})
        finally:
            await admin.close()
        reader.seek(0, 4)
        with pytest.raises(LogMovedError):
            await reader.next_before(10)
        reader.seek(0, 9)
        assert [record.offset for record in await reader.next_before(10)] == [9]
        assert await reader.next_before(10) == ()


async def test_without_a_layout_it_says_so(place: Place) -> None:
    await place.s3.delete(place.settings.s3_bucket, place.settings.keys.layout_key)
    code, said = await place.verify()
    assert code == 1
    assert place.settings.keys.layout_key in said


@pytest.mark.parametrize("variable", ["kafka_bootstrap_servers", "aws_endpoint_url_s3"])
async def test_a_server_that_is_away_is_named(place: Place, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "delay_seconds", lambda failure, attempt: 0.0)
    nobody = "127.0.0.1:1" if variable.startswith("kafka") else "http://127.0.0.1:1"
    place.settings = place.settings.model_copy(update={variable: nobody})
    code, said = await place.verify("--json")
    told = json.loads(said)
    assert (code, told["complete"], told["clean"]) == (1, False, False)
    assert ("127.0.0.1" if variable.startswith("kafka") else place.settings.s3_bucket) in told["faults"][0]["what"]


async def test_beside_a_live_consumer_nothing_is_called_a_fault(kafka: Kafka, s3: S3, tmp_path: Path) -> None:
    topic = await kafka.create_topic(partitions=2)
    environ = {
        **s3.environ(),
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": unique("group"),
        "S3_BUCKET": await s3.create_bucket(),
        "BATCH_MAX_SECONDS": "0.5",
    }
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await kafka.produce(topic, [Produced(value=b'{"n":%d}' % n, partition=n % 2) for n in range(50)])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)

    with ServiceProcess(["consumer"], environ, tmp_path) as consumer:
        loading = asyncio.create_task(load())
        await consumer.logged("Uploaded", count=5)
        objects = []
        for _ in range(3):
            with ServiceProcess(["consumer", "verify", "--deep"], environ, tmp_path) as audit:
                assert await audit.ended(120) == 0, audit.output()
            total = next(line for line in audit.output().splitlines() if line.split()[:1] == ["total"])
            objects.append(int(total.split()[2]))
        assert objects[0] < objects[-1]  # it grew meanwhile
        ends = tmp_path / "ends.csv"
        with ServiceProcess(["consumer", "verify", "--ends", str(ends)], environ, tmp_path) as refused:
            assert await refused.ended(60) == 1
        assert "has members: stop all consumers first" in refused.output()
        assert not ends.exists()
        stop.set()
        await loading


def test_a_wrong_option_is_exit_code_2_and_help_needs_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(["verify", "--depth"])
    assert wrong.value.code == 2
    assert "unrecognized arguments: --depth" in capsys.readouterr().err
    with pytest.raises(SystemExit) as asked:
        main(["verify", "--help"])
    assert asked.value.code == 0
