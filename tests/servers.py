"""The real Kafka and the real S3 servers, as tests use them.

Owns: what a test needs around the servers: topics, records, buckets, objects, names that no other test has. Does not
own: the servers (`demo`) and their lifetime (`conftest`). Everything async opens its own client and closes it, so it
works in any event loop.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from demo import buckets, installation, s3_server
from demo.buckets import S3Access

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from demo.kafka_server import KafkaServer
    from demo.s3_server import S3Server

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.05
READERS = 10  # as many connections as the client keeps


class KafkaRecord(Protocol):
    """What tests read of aiokafka's ConsumerRecord."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """A record to write. `partition` None = by key; `timestamp` in ms, None = now."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedOffset:
    """What a group has committed for one partition."""

    offset: int
    metadata: str


def unique(stem: str) -> str:
    """A name for topic, group or bucket (valid as either) that no other test has."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str = "the condition",
    seconds: float = PATIENCE_SECONDS,
    every_seconds: float = POLL_SECONDS,
) -> None:
    """Poll until the (async) condition holds. AssertionError with `what` when it did not within the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        if time.monotonic() >= deadline:
            message = f"{what} did not hold within {seconds:.0f} s"
            raise AssertionError(message)
        await asyncio.sleep(every_seconds)


class Kafka:
    """A broker with what tests do to it. `server` stops, kills, suspends and starts it (use a broker of your own)."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server

    @property
    def bootstrap_servers(self) -> str:
        return self.server.bootstrap_servers

    async def create_topic(
        self, partitions: int = 1, config: Mapping[str, str] | None = None, name: str | None = None
    ) -> str:
        """Make a topic of a unique name and give the name back once its leaders serve."""
        topic = name or unique("topic")
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=60_000)
        await admin.start()
        try:
            wanted = NewTopic(topic, partitions, 1, topic_configs=dict(config or {}))
            answer = await admin.create_topics([wanted], timeout_ms=60_000)
            failed = [entry for entry in answer.topic_errors if entry[1]]
            assert not failed, f"topic not created: {failed}"
        finally:
            await admin.close()
        await self.end_offsets(topic)
        return topic

    async def produce(
        self, topic: str, records: Sequence[Produced | bytes], *, compression: str | None = None
    ) -> list[tuple[int, int]]:
        """Write the records in order, acknowledged; (partition, offset) of each."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            compression_type=compression,
            request_timeout_ms=60_000,
        )
        await producer.start()
        try:
            sent = []
            for given in records:
                record = given if isinstance(given, Produced) else Produced(value=given)
                sent.append(
                    await producer.send(
                        topic,
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        timestamp_ms=record.timestamp,
                        headers=list(record.headers),
                    )
                )
            return [(done.partition, done.offset) for done in await asyncio.gather(*sent)]
        finally:
            await producer.stop()

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The end of each partition's log (high watermark), asked until all leaders answer."""
        consumer = self._consumer()
        await consumer.start()
        try:
            return await self._ends(consumer, topic)
        finally:
            await consumer.stop()

    async def read(self, topic: str) -> dict[int, list[KafkaRecord]]:
        """Every committed record there is now, per partition, in offset order."""
        consumer = self._consumer()
        await consumer.start()
        try:
            ends = await self._ends(consumer, topic)
            partitions = [TopicPartition(topic, number) for number in ends]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            records: dict[int, list[KafkaRecord]] = {number: [] for number in ends}
            deadline = time.monotonic() + PATIENCE_SECONDS
            while [p for p in partitions if await consumer.position(p) < ends[p.partition]]:
                assert time.monotonic() < deadline, f"topic {topic} was not read to its end"
                for partition, found in (await consumer.getmany(timeout_ms=200)).items():
                    records[partition.partition] += cast("list[KafkaRecord]", found)
            return records
        finally:
            await consumer.stop()

    async def committed(self, group: str, topic: str) -> dict[int, CommittedOffset]:
        """The group's offsets. Empty also while its coordinator loads: aiokafka hides that error, ask again."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=60_000)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return {
            partition.partition: CommittedOffset(offset=said.offset, metadata=said.metadata)
            for partition, said in found.items()
            if partition.topic == topic and said.offset >= 0
        }

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=60_000,
        )

    async def _ends(self, consumer: AIOKafkaConsumer, topic: str) -> dict[int, int]:
        numbers: set[int] = set()

        async def known() -> bool:
            await consumer._client.force_metadata_update()
            numbers.update(consumer.partitions_for_topic(topic) or ())
            return bool(numbers)

        consumer._client.add_topic(topic)
        await eventually(known, f"topic {topic} in the broker's metadata")
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in sorted(numbers)])
        return {partition.partition: end for partition, end in ends.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of the bucket. Metadata names as S3 gives them back, in lower case."""

    key: str
    body: bytes
    metadata: Mapping[str, str]
    content_type: str


class S3:
    """An S3 server with what tests do to it. `server` stops, kills, suspends and starts it (use one of your own)."""

    def __init__(self, server: S3Server, access: S3Access) -> None:
        self.server = server
        self.access = access

    def environ(self) -> dict[str, str]:
        """The consumer's AWS_ settings."""
        return self.access.environ()

    def folder(self, bucket: str) -> Path:
        """Where the bucket's objects lie as files."""
        return self.server.bucket_folder(bucket)

    async def create_bucket(self, name: str | None = None) -> str:
        """Make a bucket of a unique name."""
        bucket = name or unique("bucket")
        await buckets.create(self.access, bucket)
        return bucket

    async def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return [key async for key in buckets.keys(self.access, bucket, prefix)]

    async def put(self, bucket: str, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object as some other program would: without any condition."""
        async with buckets.client(self.access) as client:
            await client.put_object(Bucket=bucket, Key=key, Body=body, Metadata=dict(metadata or {}))

    async def delete(self, bucket: str, key: str) -> None:
        async with buckets.client(self.access) as client:
            await client.delete_object(Bucket=bucket, Key=key)

    async def objects(self, bucket: str, prefix: str = "") -> dict[str, StoredObject]:
        """Every object whole, by key, in key order."""
        slots = asyncio.Semaphore(READERS)

        async def read(client: buckets.S3Client, key: str) -> StoredObject:
            async with slots:
                answer = await client.get_object(Bucket=bucket, Key=key)
                body = cast("_Body", answer["Body"])
                return StoredObject(
                    key=key,
                    body=await body.read(),
                    metadata=cast("Mapping[str, str]", answer["Metadata"]),
                    content_type=cast("str", answer.get("ContentType", "")),
                )

        keys = await self.keys(bucket, prefix)
        async with buckets.client(self.access) as client:
            return dict(zip(keys, await asyncio.gather(*(read(client, key) for key in keys)), strict=True))


def make_s3(kind: str, folder: Path) -> S3:
    """An S3 server, `ministack` or `versitygw`, with its data in the folder; the caller starts and stops it."""
    server: S3Server
    if kind == "versitygw":
        server = s3_server.VersityGateway(s3_server.versitygw_binary(), folder)
    else:
        server = s3_server.MiniStack(installation.ensure("s3"), folder)
    access = S3Access(
        endpoint_url=server.endpoint_url,
        access_key=s3_server.ACCESS_KEY,
        secret_key=s3_server.SECRET_KEY,
        region=s3_server.REGION,
    )
    return S3(server, access)


class _Body(Protocol):
    async def read(self) -> bytes: ...
