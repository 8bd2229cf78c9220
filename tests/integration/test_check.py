"""`check` against the real Kafka, and against S3 servers good and bad."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from consumer.check import CHECK_SECONDS, check
from consumer.settings import Settings
from shared.schemas import sign_offset
from shared.settings import load
from tests.fault_server import Fault, FaultServer
from tests.planting import NOON, layout_for
from tests.servers import S3, Kafka, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-north-1"}


class Asked:
    """A check's lines by name, and its exit code."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        self.lines = [line.split(maxsplit=1) for line in text.splitlines()]

    @property
    def faults(self) -> list[str]:
        return [rest for word, rest in self.lines if word == "FAULT"]

    @property
    def all_ok(self) -> bool:
        return self.code == 0 and {word for word, _ in self.lines} == {"ok"}


async def ask(environ: dict[str, str]) -> Asked:
    said: list[str] = []
    began = time.monotonic()
    code = await check(load(Settings, environ), write=said.append)
    assert time.monotonic() - began < CHECK_SECONDS
    asked = Asked(code, "".join(said))
    assert asked.code == bool(asked.faults), asked.text
    return asked


@pytest.fixture
def environ(kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": unique("group"),
        "S3_BUCKET": "bucket",
        "S3_PREFIX": "data",
        "AWS_REGION": "eu-north-1",
    }


@pytest.fixture
async def good(environ: dict[str, str], s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The real S3 server."""
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
    return {**environ, **s3.environ(), "S3_BUCKET": bucket}


@pytest.fixture
async def bad(environ: dict[str, str]) -> AsyncIterator[FaultServer]:
    """A server whose answers the test scripts; the settings lead to it."""
    async with FaultServer() as server:
        environ["AWS_ENDPOINT_URL_S3"] = server.url
        yield server


async def commit(environ: dict[str, str], offset: int, metadata: str) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=environ["KAFKA_GROUP_ID"],
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        name = TopicPartition(environ["KAFKA_TOPIC"], 0)
        consumer.assign([name])
        await consumer.commit({name: OffsetAndMetadata(offset, metadata)})
    finally:
        await consumer.stop()


async def test_all_is_well_before_the_first_start_and_again_later(good: dict[str, str], s3: S3) -> None:
    for _ in range(2):
        asked = await ask(good)
        assert asked.all_ok, asked.text
        assert [rest.split()[0] for _, rest in asked.lines] == [
            "settings", "Kafka", "topic", "group", "bucket", "absent", "put", "layout",
        ]  # fmt: skip
    assert f"{good['KAFKA_TOPIC']}: 1 partition\n" in asked.text
    assert "none yet" in asked.text
    keys = await s3.keys(good["S3_BUCKET"])
    assert len(keys) == 2
    assert all(key.startswith(f"data/_ticklake/{good['KAFKA_TOPIC']}/checks/") for key in keys)


async def test_a_layout_that_agrees_one_that_differs_and_one_that_is_no_layout(good: dict[str, str], s3: S3) -> None:
    keys = load(Settings, good).keys
    put = layout_for(keys, topic_id=None, cluster_id=None)
    await s3.put(good["S3_BUCKET"], keys.layout_key, put.encode())
    asked = await ask(good)
    assert asked.all_ok, asked.text
    assert f"{keys.layout_key} agrees, chain {put.chain_id}" in asked.text
    asked = await ask({**good, "COMPRESSION": "zstd"})
    assert [fault.split(":")[0].split()[0] for fault in asked.faults] == ["layout", "layout"]
    assert "COMPRESSION: 'zstd' here, 'gzip' in" in asked.text
    await s3.put(good["S3_BUCKET"], keys.layout_key, layout_for(keys, topic_id="another").encode())
    assert "KAFKA_TOPIC (topic id)" in (await ask(good)).faults[-1]
    await s3.put(good["S3_BUCKET"], keys.layout_key, b"{}")
    assert "restore it" in (await ask(good)).faults[0]


async def test_objects_without_their_layout_are_a_fault(good: dict[str, str], s3: S3) -> None:
    key = load(Settings, good).keys.render(partition=0, start=0, timestamp=NOON)
    await s3.put(good["S3_BUCKET"], key, b"")
    asked = await ask(good)
    assert len(asked.faults) == 1
    assert key in asked.faults[0]


async def test_offsets_of_the_group_are_told_by_their_signature(good: dict[str, str]) -> None:
    await commit(good, 0, "")
    asked = await ask(good)
    assert asked.all_ok
    assert "no members, offsets of 1 of 1 partitions, 0 signed by a consumer of this kind, 1 not" in asked.text
    await commit(good, 0, sign_offset("elsewhere", 0))
    asked = await ask(good)
    assert len(asked.faults) == 1
    assert "signed by chain elsewhere" in asked.faults[0]


async def test_a_compacted_topic_needs_a_template_without_time(good: dict[str, str], kafka: Kafka) -> None:
    good["KAFKA_TOPIC"] = await kafka.create_topic(config={"cleanup.policy": "compact"})
    asked = await ask(good)
    assert [fault.split()[0] for fault in asked.faults] == ["topic"]
    asked = await ask({**good, "S3_KEY_TEMPLATE": "{topic}/{partition}-{start}.{ext}"})
    assert asked.all_ok, asked.text


async def test_a_missing_topic_and_a_broker_that_is_away_leave_s3_to_be_asked(good: dict[str, str]) -> None:
    asked = await ask({**good, "KAFKA_TOPIC": unique("missing")})
    assert [fault.split()[0] for fault in asked.faults] == ["topic"]
    assert "put " in asked.text
    asked = await ask({**good, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert [fault.split()[0] for fault in asked.faults] == ["Kafka"]
    assert "none yet" in asked.text


async def test_a_store_that_ignores_the_condition_is_found(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.IGNORE_CONDITION, method="PUT")
    asked = await ask(environ)
    assert [fault.split()[0] for fault in asked.faults] == ["put"]
    assert "does not honour If-None-Match" in asked.faults[0]


async def test_a_store_that_ignores_the_condition_once_in_a_while_is_found(
    environ: dict[str, str], bad: FaultServer
) -> None:
    bad.script(Fault.IGNORE_CONDITION, method="PUT", times=1, after=3)
    asked = await ask(environ)
    assert "does not honour If-None-Match" in asked.faults[0]


@pytest.mark.parametrize("fault", [Fault.CONFLICT, Fault.RESET_AFTER, Fault.INTERNAL_AFTER, Fault.SLOW_DOWN])
async def test_racers_without_an_answer_are_no_fault_when_one_object_is_there(
    environ: dict[str, str], bad: FaultServer, fault: Fault
) -> None:
    bad.script(fault, method="PUT", times=2)
    asked = await ask(environ)
    assert asked.all_ok, asked.text


async def test_a_store_that_loses_what_it_took_is_found(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.LOSE_EFFECT, method="PUT")
    assert "could not be created" in (await ask(environ)).faults[0]


async def test_a_denied_listing_hints_at_the_permission(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.DENIED, method="GET", times=1)
    bad.script(Fault.DENIED_BARE, method="HEAD")
    asked = await ask(environ)
    assert [fault.split()[0] for fault in asked.faults] == ["bucket", "absent"]
    assert all("s3:ListBucket" in fault for fault in asked.faults)
    assert "put " in asked.text


async def test_a_denied_put_is_named(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.DENIED, method="PUT")
    asked = await ask(environ)
    assert [fault.split()[0] for fault in asked.faults] == ["put"]
    assert "s3:PutObject" in asked.faults[0]


async def test_a_missing_bucket_is_named(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.NO_BUCKET)
    assert "create the bucket" in (await ask(environ)).faults[0]


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.LOGIN_PAGE, Fault.WRONG_REGION, Fault.GARBAGE])
async def test_whatever_answers_it_ends_in_time(environ: dict[str, str], bad: FaultServer, fault: Fault) -> None:
    bad.script(fault)
    asked = await ask(environ)
    assert asked.faults[0].startswith("bucket")


async def test_only_slow_answers_end_in_time_too(environ: dict[str, str], bad: FaultServer) -> None:
    bad.script(Fault.HANG, method="PUT")
    environ["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    assert len((await ask(environ)).faults) >= 2
