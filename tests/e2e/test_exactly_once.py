"""Exactly once with real processes, on real Kafka and a real S3 server: stops, kills, zombies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from tests.oracle import chain_ends, judge
from tests.processes import ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import S3, Kafka

PARTITIONS = 4


class World:
    """A topic under load, a bucket, a group, and as many consumers as a test starts."""

    def __init__(self, kafka: Kafka, s3: S3, *, topic: str, bucket: str, group: str, folder: Path) -> None:
        self.kafka = kafka
        self.s3 = s3
        self.topic = topic
        self.bucket = bucket
        self.folder = folder
        self.published = 0
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP_ID": group,
            "S3_BUCKET": bucket,
            "BATCH_MAX_SECONDS": "1",
            "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
            "KAFKA_REBALANCE_TIMEOUT_SECONDS": "15",
            **s3.environ(),
        }

    def consumer(self, **settings: str) -> ServiceProcess:
        return ServiceProcess(["consumer"], {**self.environ, **settings}, self.folder)

    @contextlib.asynccontextmanager
    async def load(self, records_per_second: int = 2000) -> AsyncIterator[None]:
        """Records keep arriving inside the block; all of them are acknowledged at its end."""
        stop = asyncio.Event()
        producing = asyncio.create_task(self._produce(stop, records_per_second))
        try:
            yield
        finally:
            stop.set()
            await producing

    async def _produce(self, stop: asyncio.Event, records_per_second: int) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers, enable_idempotence=True, linger_ms=20
        )
        await producer.start()
        try:
            began = time.monotonic()
            sent: list[asyncio.Future[object]] = []
            while not stop.is_set():
                due = int((time.monotonic() - began) * records_per_second)
                while len(sent) < due:
                    value = b'{"n":%d,"price":%d.25}' % (len(sent), len(sent) % 997)
                    sent.append(await producer.send(self.topic, value=value, key=b"S%d" % (len(sent) % 50)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await stop.wait()
            await asyncio.gather(*sent)
            self.published += len(sent)
        finally:
            await producer.stop()

    async def stored(self, seconds: float = 120.0) -> None:
        """Wait until the chains reach the topic's end, then compare record by record."""

        async def reached() -> bool:
            ends = await self.kafka.end_offsets(self.topic)
            found = await chain_ends(self.s3, self.bucket)
            return all(found.get(partition, 0) >= end for partition, end in ends.items())

        await eventually(reached, "every chain at the end of its log", seconds, every_seconds=1.0)
        verdict = await judge(self.kafka, self.s3, topic=self.topic, bucket=self.bucket)
        assert verdict.faults == []
        assert verdict.records == self.published

    async def verified(self) -> None:
        """`python -m consumer verify --deep` says the same."""
        with ServiceProcess(["consumer", "verify", "--deep"], self.environ, self.folder) as verify:
            assert await verify.ended(120) == 0, verify.output()


@pytest.fixture
async def world(kafka: Kafka, s3: S3, bucket: str, group: str, tmp_path: Path) -> World:
    topic = await kafka.create_topic(PARTITIONS)
    return World(kafka, s3, topic=topic, bucket=bucket, group=group, folder=tmp_path)


async def test_sigterm_under_load_stops_within_the_budget_and_stores_what_was_open(world: World) -> None:
    with world.consumer(BATCH_MAX_SECONDS="30", SHUTDOWN_TIMEOUT_SECONDS="10") as consumer:
        async with world.load():
            await consumer.logged("Partitions assigned")
            await eventually(lambda: world_reads(consumer), "records in memory")
            began = time.monotonic()
            assert await consumer.stop() == 0
            assert time.monotonic() - began < 10
        uploaded = consumer.lines("Uploaded")
        hours = {str(line["key"]).split("/hour=")[1][:2] for line in uploaded}
        said = "what was open is put at the stop, nothing but hours before it"
        assert PARTITIONS <= len(uploaded) <= PARTITIONS * len(hours), said
    verdict = await judge(world.kafka, world.s3, topic=world.topic, bucket=world.bucket, complete=False)
    assert verdict.faults == []
    assert verdict.records == sum(int(str(line["records"])) for line in uploaded)
    with world.consumer():
        await world.stored()
    await world.verified()


def world_reads(consumer: ServiceProcess) -> bool:
    return bool(consumer.lines("Partitions assigned")) and _buffered(consumer) > 0


def _buffered(consumer: ServiceProcess) -> float:
    port = consumer.lines("Listening")[0]["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("ticklake_consumer_buffered_bytes "):
                return float(line.split()[1])
    return 0.0


async def test_kill_9_again_and_again_loses_and_doubles_nothing(world: World) -> None:
    async with world.load():
        for _ in range(3):
            with world.consumer() as consumer:
                await consumer.logged("Uploaded", count=6)
                consumer.kill()
    with world.consumer():
        await world.stored()
    await world.verified()


async def test_replicas_come_and_go_under_load(world: World) -> None:
    with world.consumer() as first:
        async with world.load():
            await first.logged("Uploaded", count=PARTITIONS)
            with world.consumer() as second:
                await second.logged("Uploaded", count=4)
                assert await second.stop() == 0
            await first.logged("Partitions assigned", count=3)
        await world.stored()
        assert await first.stop() == 0
    await world.verified()


async def test_a_zombie_with_data_buffered_does_no_harm(world: World) -> None:
    with world.consumer(BATCH_MAX_SECONDS="20") as zombie:
        async with world.load():
            await zombie.logged("Partitions assigned")
            await eventually(lambda: world_reads(zombie), "records in the zombie's memory")
            zombie.send(signal.SIGSTOP)
            with world.consumer() as successor:
                await successor.logged("Uploaded", count=2 * PARTITIONS)
                zombie.send(signal.SIGCONT)
                await zombie.logged("Partitions assigned", count=2)
                await successor.logged("Partitions assigned", count=2)
            await zombie.logged("Adopted")
        with world.consumer():
            await world.stored()
    await world.verified()
