"""The local stack itself: what other tests take for granted of the broker and the S3 servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from demo import buckets, kafka_protocol
from demo.ports import HOST
from tests.servers import S3, Kafka, Produced, eventually

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_records_come_back_as_they_were_written(kafka: Kafka) -> None:
    topic = await kafka.create_topic(partitions=2)
    written = [
        Produced(value=b"a", key=b"k", partition=1, timestamp=1_700_000_000_000, headers=[("h", b"v")]),
        Produced(value=None, key=b"k", partition=1, timestamp=1_700_000_000_001),
    ]
    assert await kafka.produce(topic, written) == [(1, 0), (1, 1)]
    read = await kafka.read(topic)
    assert read[0] == []
    assert [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in read[1]] == [
        (0, 1_700_000_000_000, b"k", b"a", [("h", b"v")]),
        (1, 1_700_000_000_001, b"k", None, []),
    ]


async def test_a_broker_keeps_its_records_and_address_over_kill_suspension_and_stop(
    new_kafka: Callable[..., Kafka],
) -> None:
    kafka = new_kafka(settings={"broker.session.timeout.ms": "3000"})
    address = kafka.bootstrap_servers
    topic = await kafka.create_topic()
    await kafka.produce(topic, [b"1"])
    kafka.server.kill()
    assert kafka_protocol.missing(HOST, kafka.server.port) is not None
    kafka.server.start()
    await kafka.produce(topic, [b"2"])
    kafka.server.suspend()
    kafka.server.resume()
    await kafka.produce(topic, [b"3"])
    kafka.server.suspend()
    kafka.server.stop()  # a suspended one ends too
    kafka.server.start()
    assert kafka.bootstrap_servers == address
    assert [record.value for record in (await kafka.read(topic))[0]] == [b"1", b"2", b"3"]


async def test_an_object_is_created_once_and_lies_in_the_folder(any_s3: S3) -> None:
    bucket = await any_s3.create_bucket()
    await buckets.create(any_s3.access, bucket)  # ours already
    put = {"Bucket": bucket, "Key": "a/b=c/d.txt", "IfNoneMatch": "*", "Metadata": {"start-offset": "7"}}
    async with buckets.client(any_s3.access) as client:
        await client.put_object(Body=b"first", **put)
        with pytest.raises(ClientError) as refused:
            await client.put_object(Body=b"second", **put)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    stored = (await any_s3.objects(bucket))["a/b=c/d.txt"]
    assert stored.body == b"first"
    assert stored.metadata["start-offset"] == "7"
    assert (any_s3.folder(bucket) / "a/b=c/d.txt").read_bytes() == b"first"
    await any_s3.delete(bucket, "a/b=c/d.txt")
    assert await any_s3.keys(bucket) == []


async def test_objects_outlive_a_kill_of_their_server(new_s3: Callable[[], S3]) -> None:
    s3 = new_s3()
    bucket = await s3.create_bucket()
    await s3.put(bucket, "kept", b"body", {"a": "b"})
    s3.server.kill()
    s3.server.start()
    kept = (await s3.objects(bucket))["kept"]
    assert (kept.body, kept.metadata) == (b"body", {"a": "b"})


async def test_eventually_gives_up_with_the_reason() -> None:
    with pytest.raises(AssertionError, match="the moon did not hold within 0 s"):
        await eventually(lambda: False, "the moon", seconds=0.01)
