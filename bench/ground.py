"""The servers that a benchmark of the consumer stands on: a real Kafka and an S3 server of its own, and what they hold.

Owns: their processes, the topics loaded so far, the bucket and the folder of each run in it. Does not own: what is run.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench import completeness, topics
from bench.process import ROOT, cpu_seconds
from demo import buckets, kafka_server, s3_server
from tests.servers import S3, Kafka, make_s3, unique

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.completeness import Stored
    from bench.topics import Topic

# A broker that does not hold up what is measured: more memory than the tests', both compilers.
JVM_OPTIONS = ("-Xmx1g",)
# Processes that start together are given their partitions together.
BROKER_SETTINGS = {"group.initial.rebalance.delay.ms": "1000"}


class Ground:
    """Kafka and S3 with what the runs need of them. Made by `standing`."""

    def __init__(self, kafka: Kafka, s3: S3) -> None:
        self.kafka = kafka
        self.s3 = s3
        self.bucket = asyncio.run(s3.create_bucket())
        self._loaded: dict[Topic, str] = {}

    def topic(self, topic: Topic) -> str:
        """Its name on the broker; loaded the first time."""
        if topic not in self._loaded:
            self._loaded[topic] = asyncio.run(topics.load(self.kafka, topic))
        return self._loaded[topic]

    def settings(self, topic: Topic, prefix: str) -> dict[str, str]:
        """How a sink reaches its topic and its folder in the bucket, under a group of its own."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic(topic),
            "KAFKA_GROUP_ID": unique("group"),
            "S3_BUCKET": self.bucket,
            "S3_PREFIX": prefix,
            **self.s3.environ(),
        }

    def cpu_seconds(self) -> tuple[float, float]:
        """What the broker and the S3 server have taken so far."""
        return cpu_seconds(self.kafka.server.process.pid), cpu_seconds(self.s3.server.process.pid)

    def check(self, topic: Topic, prefix: str) -> Stored:
        """What a run left in its folder. Raises BenchError unless it is every record of the topic exactly once."""
        return completeness.check(topic, topics.PARTITIONS, self.s3.folder(self.bucket) / prefix)

    def clear(self, prefix: str) -> None:
        """Delete a run's objects."""
        asyncio.run(self._clear(prefix))

    async def _clear(self, prefix: str) -> None:
        keys = [key async for key in buckets.keys(self.s3.access, self.bucket, prefix)]
        async with buckets.client(self.s3.access) as client:
            for key in keys:
                await client.delete_object(Bucket=self.bucket, Key=key)


def s3_name(kind: str) -> str:
    """The S3 server of that kind, with the version that the local stack brings."""
    if kind == "versitygw":
        return f"versitygw {s3_server.VERSITYGW.rpartition('@')[2].removeprefix('v')}"
    locked = (ROOT / "requirements" / "s3.txt").read_text()
    found = re.search(r"^ministack==([\w.]+)", locked, re.MULTILINE)
    return f"MiniStack {found[1] if found else 'of unknown version'}"


@contextmanager
def standing(folder: Path, kind: str) -> Iterator[Ground]:
    """Start the servers, `ministack` or `versitygw`, with their data below the folder; stop them and clear it up."""
    server = kafka_server.KafkaServer(
        kafka_server.runtime(), folder / "kafka", jvm_options=JVM_OPTIONS, settings=BROKER_SETTINGS
    )
    s3 = make_s3(kind, folder / kind)
    try:
        server.start()
        s3.server.start()
        yield Ground(Kafka(server), s3)
    finally:
        s3.server.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
