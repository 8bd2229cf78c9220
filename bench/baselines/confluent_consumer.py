"""The same sink by confluent-kafka (librdkafka) and boto3, as their documentation shows them. For comparison only.

    python -m bench.baselines.confluent_consumer    settings are the environment variables of `python -m consumer`

One thread: it consumes, buffers lines by partition, puts an object of gzip 6 when a limit is reached, commits after the
put. What it lacks, beside `stock_consumer`, is the same.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from dataclasses import dataclass, field

import boto3
from botocore.config import Config
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

TOPIC = os.environ["KAFKA_TOPIC"]
BUCKET, PREFIX = os.environ["S3_BUCKET"], os.environ.get("S3_PREFIX", "")
MAX_RECORDS = int(os.environ.get("BATCH_MAX_RECORDS", "100000"))
MAX_BYTES = int(os.environ.get("BATCH_MAX_BYTES", "16777216"))
MAX_SECONDS = float(os.environ.get("BATCH_MAX_SECONDS", "60"))
LEVEL = 6


@dataclass(slots=True)
class Buffer:
    """The lines of one partition that are not in the bucket yet."""

    first_offset: int
    next_offset: int = 0
    since: float = field(default_factory=time.monotonic)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return self.size >= MAX_BYTES or len(self.lines) >= MAX_RECORDS or time.monotonic() - self.since >= MAX_SECONDS


class Sink:
    """Buffers, puts, commits."""

    def __init__(self) -> None:
        options = {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3"), "region_name": os.environ.get("AWS_REGION")}
        self._s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}), **options)
        self._buffers: dict[int, Buffer] = {}
        self._stopped = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
                "group.id": os.environ["KAFKA_GROUP_ID"],
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.subscribe([TOPIC], on_assign=self._assigned, on_revoke=self._revoked)

    def stop(self, *_: object) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until stopped; closing revokes, which puts what is left."""
        while not self._stopped:
            for message in self._consumer.consume(10_000, timeout=0.2):
                self._take(message)
            for partition in [partition for partition, buffer in self._buffers.items() if buffer.full]:
                self._flush(partition)
        self._consumer.close()

    def _take(self, message: Message) -> None:
        error, partition, offset, value = message.error(), message.partition(), message.offset(), message.value()
        if error is not None or partition is None or offset is None or not isinstance(value, bytes):
            raise KafkaException(error)
        buffer = self._buffers.get(partition)
        if buffer is None:
            buffer = self._buffers[partition] = Buffer(first_offset=offset)
        buffer.lines.append(value)
        buffer.size += len(value)
        buffer.next_offset = offset + 1
        if buffer.full:
            self._flush(partition)

    def _flush(self, partition: int) -> None:
        buffer = self._buffers.pop(partition)
        body = gzip.compress(b"\n".join(buffer.lines) + b"\n", LEVEL)
        key = f"{PREFIX}{TOPIC}/{partition:05d}-{buffer.first_offset:020d}.jsonl.gz"
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        self._consumer.commit(offsets=[TopicPartition(TOPIC, partition, buffer.next_offset)], asynchronous=False)
        _say("Uploaded", key=key, records=len(buffer.lines), next=buffer.next_offset)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        _say("Partitions assigned", partitions=[partition.partition for partition in partitions])

    def _revoked(self, *_: object) -> None:
        for partition in list(self._buffers):
            self._flush(partition)


def _say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)  # noqa: T201 -- its log


if __name__ == "__main__":
    sink = Sink()
    signal.signal(signal.SIGTERM, sink.stop)
    sink.run()
