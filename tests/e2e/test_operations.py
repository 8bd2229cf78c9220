"""docs/operations.md, walked: a change of prefix and codec in one group, and the ways that are refused.

Kafka's reset tool is not among the demo's jars: its effect, unsigned commits of the file's offsets while the group has
no member, is made by a client here.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tests.processes import ServiceProcess
from tests.servers import Produced, unique

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import S3, Kafka

PARTITIONS = 3
OLD = {"S3_PREFIX": "old/", "COMPRESSION": "gzip"}
NEW = {"S3_PREFIX": "new/", "COMPRESSION": "none", "S3_KEY_TEMPLATE": "topic={topic}/{partition}-{start}.{ext}"}


@pytest.fixture
def environ(kafka: Kafka, s3: S3, bucket: str, group: str) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": unique("topic"),
        "KAFKA_GROUP_ID": group,
        "S3_BUCKET": bucket,
        "BATCH_MAX_SECONDS": "0.5",
        **s3.environ(),
    }


async def reset_offsets(environ: dict[str, str], file: Path) -> None:
    """What kafka-consumer-groups --reset-offsets --from-file FILE --execute does."""
    with file.open() as lines:
        offsets = {
            TopicPartition(topic, int(partition)): OffsetAndMetadata(int(offset), "")
            for topic, partition, offset in csv.reader(lines)
        }
    client = AIOKafkaConsumer(
        bootstrap_servers=environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=environ["KAFKA_GROUP_ID"],
        enable_auto_commit=False,
    )
    await client.start()
    try:
        client.assign(list(offsets))
        await client.commit(offsets)
    finally:
        await client.stop()


async def test_the_recipe_moves_the_chains_to_a_new_prefix_and_codec(
    kafka: Kafka, s3: S3, bucket: str, environ: dict[str, str], tmp_path: Path
) -> None:
    topic = await kafka.create_topic(PARTITIONS, name=environ["KAFKA_TOPIC"])
    before = [Produced(value=b'{"n":%d}' % number, partition=number % PARTITIONS) for number in range(30)]
    after = [Produced(value=b'{"n":%d}' % number, partition=number % 2) for number in range(30, 50)]

    await kafka.produce(topic, before)
    with ServiceProcess(["consumer"], {**environ, **OLD}, tmp_path) as consumer:
        await consumer.logged("Uploaded", count=PARTITIONS)
        assert await consumer.stop() == 0
    for name in ("ends.csv", "again.csv"):
        with ServiceProcess(["consumer", "verify", "--ends", str(tmp_path / name)], {**environ, **OLD}, tmp_path) as it:
            assert await it.ended() == 0, it.output()
    assert (tmp_path / "ends.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()

    with ServiceProcess(["consumer"], {**environ, **NEW}, tmp_path) as too_early:
        assert await too_early.ended() == 2
        assert "signed by chain" in too_early.output()
    await reset_offsets(environ, tmp_path / "ends.csv")
    await kafka.produce(topic, after)
    with ServiceProcess(["consumer"], {**environ, **NEW}, tmp_path) as consumer:
        await consumer.logged("Uploaded", count=2)
        assert await consumer.stop() == 0
    with ServiceProcess(["consumer"], {**environ, **OLD}, tmp_path) as revived:
        assert await revived.ended() == 2, "a revived old task is refused"
    with ServiceProcess(["consumer", "verify", "--deep"], {**environ, **NEW}, tmp_path) as verify:
        assert await verify.ended() == 0, verify.output()

    old, new = await s3.objects(bucket, "old/topic="), await s3.objects(bucket, "new/topic=")
    assert sum(int(stored.metadata["record-count"]) for stored in old.values()) == len(before)
    lines = [line for stored in new.values() for line in stored.body.splitlines()]
    assert sorted(lines) == sorted(record.value or b"" for record in after), "nothing lost, nothing doubled"
