"""10,000 odd records through the API, the process and the real Kafka: the same bytes, the Java client's partitions, the
same `ce_id` whoever publishes them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.partitioner import murmur2

from tests.processes import ServiceProcess
from tests.scripted_api import gzipped, scripted_api

if TYPE_CHECKING:
    from tests.servers import Kafka, KafkaRecord

RECORDS = 10_000
PARTITIONS = 6
SEED = 20261125
JAVA = json.loads((Path(__file__).parents[1] / "fixtures" / "murmur2_java.json").read_bytes())["vectors"]


class Odd(NamedTuple):
    """A record as the API writes it, and the key it must get."""

    value: bytes
    key: bytes | None


LITERALS = [
    *(b"1e400", b"-1E-400", b"-0", b"-0.0", b"0.1e-7", b"0.10", b"1E+2", b"12345678901234567890123"),
    *(b"1605192894630916612", b"-9007199254740993", b"0.1000000000000000055511151231257827", b"9" * 400),
    *(b"true", b"false", b"null", b"[]", b"{}", b"[ ]", b"{ }", b"[null, [ ],{\n}]"),
    *(b'""', rb'"\u2028\u2029"', '"\u2028"'.encode(), rb'"\ud83d\ude00"', '"😀"'.encode(), rb'"a\/b\\c\"d\b\f\n\r\t"'),
    *(rb'"\u0000"', rb'"\u00e9"', '"e\u0301"'.encode(), rb'"\u00E9"', b'"\x7f"', b'"[{\\"]}"', b'" , : "'),
    b"[" * 400 + b"]" * 400,
    b'{"d":' * 400 + b"-0" + b"}" * 400,
]
# What stands at /symbol, and the key it gives: a string's UTF-8, a number's or boolean's literal, else none.
SYMBOLS: list[tuple[bytes, bytes | None]] = [
    *((b'"AAPL"', b"AAPL"), (b'""', b""), (b'" "', b" "), (rb'"\u0041APL"', b"AAPL"), (rb'"a\/b\\\""', b'a/b\\"')),
    *(('"Ω"'.encode(), "Ω".encode()), (rb'"\u03a9"', "Ω".encode()), (rb'"\ud83d\ude00"', "😀".encode())),
    *((rb'"\u0000"', b"\0"), (rb'"\u2028"', "\u2028".encode()), ('"e\u0301"'.encode(), b"e\xcc\x81")),
    *(
        (b"1.50", b"1.50"),
        (b"-0", b"-0"),
        (b"1e400", b"1e400"),
        (b"12345678901234567890123", b"12345678901234567890123"),
    ),
    *((b"true", b"true"), (b"false", b"false"), (b"null", None), (b"[1]", None), (b'{"symbol":"A"}', None)),
]
SPACES = [b"", b"", b" ", b"\n", b"\t", b"\r\n  "]


def odd_record(chance: random.Random, number: int) -> Odd:
    """One record, seeded; `number` makes it unique. Some have no symbol, some two: the last counts."""
    symbols = [chance.choice(SYMBOLS) for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 1, 2]))]
    if symbols and chance.random() < 0.5:
        symbols[-1] = (b'"S%d"' % (number % 997), b"S%d" % (number % 997))
    members = [(b'"symbol"', literal) for literal, _ in symbols]
    members += [(b'"m%d"' % index, chance.choice(LITERALS)) for index in range(chance.randint(0, 4))]
    members += [(b'"m0"', b"1")] * (chance.random() < 0.1)
    members.insert(chance.randint(0, len(members)), (b'"n"', b"%d" % number))

    def gap() -> bytes:
        return chance.choice(SPACES)

    written = [name + gap() + b":" + gap() + literal for name, literal in members]
    return Odd(b"{" + gap() + (gap() + b"," + gap()).join(written) + gap() + b"}", symbols[-1][1] if symbols else None)


def odd_records() -> list[Odd]:
    """Those, and one for each key of the Java client's vectors that a JSON text can hold."""
    chance = random.Random(SEED)
    records = [odd_record(chance, number) for number in range(RECORDS - len(java_partitions()))]
    for number, key in enumerate(java_partitions()):
        records.append(Odd(b'{"symbol":%s,"java":%d}' % (json.dumps(key.decode()).encode(), number), key))
    chance.shuffle(records)
    return records


def java_partitions() -> dict[bytes, int]:
    """By key: where the Java client puts it."""
    found = {}
    for vector in JAVA:
        key = bytes.fromhex(vector["key"])
        try:
            key.decode()
        except UnicodeDecodeError:
            continue
        found[key] = vector["partition"][str(PARTITIONS)]
    return found


def body_of(records: list[Odd], chance: random.Random) -> bytes:
    joined = b"".join(chance.choice([b",", b" ,\n", b",\t"]) + record.value for record in records)[1:].lstrip()
    return b'{ "status":"OK",\n"results": [' + joined + b' ]\r\n, "count": 1e4 }\n'


async def publish(kafka: Kafka, url: str, folder: Path, hash_seed: str) -> dict[int, list[KafkaRecord]]:
    """One poll by a process of its own, into a topic of its own; what is in the topic."""
    topic = await kafka.create_topic(PARTITIONS)
    settings = {
        "API_URL": url,
        "API_RECORDS_POINTER": "/results",
        "SELECT": "all",
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "PYTHONHASHSEED": hash_seed,
    }
    with ServiceProcess(["producer", "once"], settings, folder) as producer:
        assert await producer.ended() == 0
        (line,) = producer.lines("Message sent")
        assert line["records"] == RECORDS
    return await kafka.read(topic)


def event_ids(source: str, by_partition: dict[int, list[KafkaRecord]]) -> dict[bytes, bytes]:
    """By value, all of which differ: the `ce_id` found, after a look at the headers beside it."""
    found: dict[bytes, bytes] = {}
    for records in by_partition.values():
        for record in records:
            headers = dict(record.headers)
            assert len(headers) == len(record.headers)
            assert headers["ce_source"] == source.encode()
            assert headers.get("ce_subject") == record.key
            assert record.value is not None
            found[record.value] = headers["ce_id"]
    return found


def event_id_by_hand(source: bytes, key: bytes | None, value: bytes) -> bytes:
    """The first 32 hex digits of SHA-256 over source, key and value, each behind its length in 8 bytes, big-endian."""
    parts = b"".join(len(part).to_bytes(8, "big") + part for part in (source, key or b"", value))
    return hashlib.sha256(parts).hexdigest()[:32].encode()


async def test_ten_thousand_odd_records_come_back_identical_on_the_java_clients_partitions(
    kafka: Kafka, tmp_path: Path
) -> None:
    sent = odd_records()
    assert len({record.value for record in sent}) == len(sent) == RECORDS
    java = java_partitions()
    assert len(java) > 40
    async with scripted_api(gzipped(body_of(sent, random.Random(SEED)))) as api:
        first = await publish(kafka, api.url, tmp_path, "1")
        second = await publish(kafka, api.url, tmp_path, "2")

    for by_partition in (first, second):
        # Records without a key share a partition of the process's choice.
        keyless = {number for number, records in by_partition.items() if any(r.key is None for r in records)}
        assert len(keyless) == 1
        expected: dict[int, list[Odd]] = {number: [] for number in range(PARTITIONS)}
        for odd in sent:
            (number,) = keyless if odd.key is None else {(murmur2(odd.key) & 0x7FFFFFFF) % PARTITIONS}
            expected[number].append(odd)
        found = {number: [Odd(r.value or b"", r.key) for r in records] for number, records in by_partition.items()}
        assert {n: len(records) for n, records in found.items()} == {n: len(odd) for n, odd in expected.items()}
        pairs = [pair for number in range(PARTITIONS) for pair in zip(found[number], expected[number], strict=True)]
        assert [(got, odd) for got, odd in pairs if got != odd][:1] == []
        placed = {record.key: number for number, records in found.items() for record in records if record.key in java}
        assert placed == java

    ids, others = event_ids(api.url, first), event_ids(api.url, second)
    by_hand = {odd.value: event_id_by_hand(api.url.encode(), odd.key, odd.value) for odd in sent}
    assert [odd for odd in sent if ids[odd.value] != others[odd.value]][:1] == []
    assert [odd for odd in sent if ids[odd.value] != by_hand[odd.value]][:1] == []
    assert max(Counter(ids.values()).values()) == 1
