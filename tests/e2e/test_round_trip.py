"""From the objects alone the exact records can be rebuilt: a second topic is filled from them and compared.

The rebuilding is docs/replay.md's code, as it stands there; nothing of ours reads the objects here.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import zstandard
from aiokafka import AIOKafkaProducer

from tests.processes import ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.servers import S3, Kafka, StoredObject

    Headers = tuple[tuple[str, bytes | None], ...]
    Rebuild = Callable[[bytes], tuple[int, int, bytes | None, Sequence[tuple[str, bytes | None]], bytes | None]]

DOC = Path(__file__).parents[2] / "docs/replay.md"
PARTITIONS = 2
BATCH_BYTES = 2_000_000
NOON = 1_764_072_000_000  # 2025-11-25T12:00:00Z

JSON_VALUES = [
    b"{}",
    b"null",
    b"true",
    b"-0",
    b"1E400",
    b"1.0",
    b"9" * 5000,
    b"123456789012345678901234567890.1234567890e-400",
    b'{"a":1,"a":2}',
    b'{ "a" : [ 1 , 2 ] }',
    b' {"a":1}',
    b'{"a":1}\t',
    b" null",
    b'{"a":\n 1}',
    b'{"a":\r\n 1}\r\n',
    b'{"offset":7,"value":null,"reason":"x"}',
    b'"\\ud83d\\ude00 \\u0000"',
    '"😀 \u2028 \u0085 \x7f"'.encode(),
    b"[" * 500 + b"]" * 500,
    b'{"large":"%s"}' % (b"x" * 900_000),
]
NO_JSON_VALUES = [
    None,
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"\x00",
    b" ",
    b"\n",
    b"NaN",
    b"{}{}",
    b"\xef\xbb\xbf{}",
    b'"\xed\xa0\x80"',
    b'"\\ud800"',  # docs/decisions/0006-what-is-no-json-line.md
    b'"\\udc00\\ud800"',
    b"[" * 600 + b"]" * 600,
    b"\x80" * 900_000,
]
KEYS = [None, b"", b"AAPL", b"\xff", "ключ".encode(), b"a\nb\r\0", b'","value":null}', b"\xed\xa0\x80", b"null"]
HEADERS: Sequence[Headers] = [
    (),
    (("ce_id", b"1"),),
    (("twice", b"1"), ("twice", b"2"), ("twice", None), ("twice", b"1")),
    (("none", None), ("empty", b""), ("", b"unnamed"), ("binary", b"\xff\x00")),
    (("schlüssel", "größe".encode()), ("json", b'{"base64":"QQ=="}'), ("value", b'"value":'), ("null", b"null")),
]
TIMESTAMPS = [0, 1, NOON, NOON - 1, NOON + 3_600_000]


@dataclass(frozen=True, slots=True)
class Content:
    """All of a record but its offset."""

    timestamp: int
    key: bytes | None
    headers: Headers
    value: bytes | None


def records(values: Sequence[bytes | None]) -> dict[int, list[Content]]:
    """By partition, the values with each of the keys, headers and timestamps beside some of them."""
    made: dict[int, list[Content]] = {partition: [] for partition in range(PARTITIONS)}
    for number, value in enumerate(value for value in values for _ in range(3)):
        made[number % PARTITIONS].append(
            Content(
                timestamp=TIMESTAMPS[number % len(TIMESTAMPS)],
                key=KEYS[number % len(KEYS)],
                headers=HEADERS[number % len(HEADERS)],
                value=value,
            )
        )
    return made


async def publish(kafka: Kafka, contents: Mapping[int, Sequence[Content]]) -> str:
    """A new topic with the records, in batches of our own: `send` refuses a record without key and value."""
    config = {"retention.ms": "-1", "max.message.bytes": str(2 * BATCH_BYTES)}
    topic = await kafka.create_topic(PARTITIONS, config=config)
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, max_batch_size=BATCH_BYTES, max_request_size=2 * BATCH_BYTES
    )
    await producer.start()
    try:
        for partition, found in contents.items():
            batch = producer.create_batch()
            for c in found:
                while batch.append(key=c.key, value=c.value, timestamp=c.timestamp, headers=list(c.headers)) is None:
                    await (await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
    return topic


async def contents(kafka: Kafka, topic: str) -> dict[int, list[Content]]:
    """A topic's records by partition, in order."""
    return {
        partition: [Content(record.timestamp, record.key, tuple(record.headers), record.value) for record in found]
        for partition, found in (await kafka.read(topic)).items()
    }


def documented() -> Rebuild:
    """The function `record` of docs/replay.md: of an envelope line offset, timestamp, key, headers and value."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    namespace: dict[str, object] = {}
    exec(compile(code, str(DOC), "exec"), namespace)
    return cast("Rebuild", namespace["record"])


def lines(stored: StoredObject) -> list[bytes]:
    body = stored.body
    if stored.key.endswith(".gz"):
        body = gzip.decompress(body)
    elif stored.key.endswith(".zst"):
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    assert not body or body.endswith(b"\n")
    return body.split(b"\n")[:-1]


@dataclass(slots=True)
class Trip:
    """One topic stored by a consumer, its main objects and the quarantine objects they name."""

    kafka: Kafka
    topic: str
    main: list[StoredObject]
    quarantine: list[tuple[int, StoredObject]]

    @classmethod
    async def make(
        cls, kafka: Kafka, s3: S3, folder: Path, group: str, values: Sequence[bytes | None], **settings: str
    ) -> Trip:
        topic = await publish(kafka, records(values))
        bucket = await s3.create_bucket()
        environ = {
            **s3.environ(),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP_ID": group,
            "S3_BUCKET": bucket,
            "BATCH_MAX_SECONDS": "0.5",
            **settings,
        }
        ends = await kafka.end_offsets(topic)
        with ServiceProcess(["consumer"], environ, folder) as consumer:

            async def whole() -> bool:
                reached = {
                    int(str(line["key"]).split("/")[-1][:5]): line["next"] for line in consumer.lines("Uploaded")
                }
                return reached == ends

            await eventually(whole, "every record stored")
            assert await consumer.stop() == 0
        stored = await s3.objects(bucket)
        main = [stored[key] for key in stored if not key.startswith("_ticklake/")]
        named = [
            (int(link.metadata["partition"]), stored[f"_ticklake/{topic}/quarantine/{link.metadata['quarantine']}"])
            for link in main
            if "quarantine" in link.metadata
        ]
        return cls(kafka, topic, main, named)

    async def refilled(self, envelopes: Sequence[tuple[int, bytes]]) -> dict[int, list[Content]]:
        """Fill a second topic from (partition, envelope line); what it holds then, in order."""
        rebuild = documented()
        rebuilt: dict[int, list[tuple[int, Content]]] = {}
        for partition, line in envelopes:
            offset, timestamp, key, headers, value = rebuild(line)
            content = Content(timestamp, key, tuple(headers), value)
            rebuilt.setdefault(partition, []).append((offset, content))
        in_order = {p: [c for _, c in sorted(found, key=lambda pair: pair[0])] for p, found in rebuilt.items()}
        topic = await publish(self.kafka, in_order)
        return await contents(self.kafka, topic)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_envelopes_fill_a_second_topic_byte_by_byte(
    kafka: Kafka, s3: S3, group: str, tmp_path: Path, compression: str
) -> None:
    values = [*JSON_VALUES, *NO_JSON_VALUES]
    trip = await Trip.make(kafka, s3, tmp_path, group, values, RECORD_FORMAT="envelope", COMPRESSION=compression)
    assert trip.quarantine == []
    envelopes = [(int(stored.metadata["partition"]), line) for stored in trip.main for line in lines(stored)]
    assert await trip.refilled(envelopes) == records(values)
    assert await contents(kafka, trip.topic) == records(values)


async def test_quarantined_records_fill_a_second_topic_byte_by_byte(
    kafka: Kafka, s3: S3, group: str, tmp_path: Path
) -> None:
    """In `value` format: a record is a line, or in quarantine, whole."""
    values = [value for pair in zip(JSON_VALUES, [*NO_JSON_VALUES, *NO_JSON_VALUES], strict=False) for value in pair]
    trip = await Trip.make(kafka, s3, tmp_path, group, values)
    unfit = {p: [c for c in found if c.value in NO_JSON_VALUES] for p, found in records(values).items()}
    envelopes = [(partition, line) for partition, stored in trip.quarantine for line in lines(stored)]
    assert await trip.refilled(envelopes) == unfit
    fit = [c.value or b"" for found in records(values).values() for c in found if c.value not in NO_JSON_VALUES]
    compacted = {b'{"a":\n 1}': b'{"a":1}', b'{"a":\r\n 1}\r\n': b'{"a":1}'}
    assert sorted(line for stored in trip.main for line in lines(stored)) == sorted(compacted.get(v, v) for v in fit)
