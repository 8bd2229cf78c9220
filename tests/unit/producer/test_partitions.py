"""Keys go where Kafka's own Java client puts them: tests/fixtures/README.md says how the vectors were made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from aiokafka.partitioner import murmur2

from producer.ledger import Record
from producer.packer import lanes, partition_index

FIXTURE = Path(__file__).parents[2] / "fixtures" / "murmur2_java.json"


class Vector(msgspec.Struct, frozen=True):
    key: str
    murmur2: int
    partition: dict[int, int]

    @property
    def bytes(self) -> bytes:
        return bytes.fromhex(self.key)


class Vectors(msgspec.Struct, frozen=True):
    client: str
    vectors: list[Vector]


JAVA = msgspec.json.decode(FIXTURE.read_bytes(), type=Vectors).vectors
PARTITIONS = (1, 3, 6, 8, 50, 512)


def test_the_vectors_cover_what_can_differ() -> None:
    assert len(JAVA) >= 200
    lengths = {len(vector.bytes) for vector in JAVA}
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= lengths
    assert max(lengths) > 10_000
    assert {vector.murmur2 < 0 for vector in JAVA} == {True, False}
    assert any(max(vector.bytes, default=0) > 0x7F for vector in JAVA)
    assert all(tuple(vector.partition) == PARTITIONS for vector in JAVA)


def test_every_key_hashes_as_in_the_java_client() -> None:
    assert [murmur2(vector.bytes) for vector in JAVA] == [vector.murmur2 & 0xFFFFFFFF for vector in JAVA]


@pytest.mark.parametrize("count", PARTITIONS)
def test_every_key_goes_to_the_partition_the_java_client_picks(count: int) -> None:
    expected = [vector.partition[count] for vector in JAVA]
    assert [partition_index(murmur2(vector.bytes), count) for vector in JAVA] == expected


@pytest.mark.parametrize("count", PARTITIONS)
def test_the_lanes_of_a_parcel_are_the_java_clients_partitions(count: int) -> None:
    records = [Record(key=vector.bytes, value=b"{}") for vector in JAVA]
    expected: dict[int, list[Record]] = {}
    for record, vector in zip(records, JAVA, strict=True):
        expected.setdefault(vector.partition[count], []).append(record)
    found = lanes(records, range(count), no_choice, murmur2)
    assert {number: list(lane) for number, lane in found.items()} == expected


def no_choice(count: int) -> int:
    """Records with a key leave nothing to chance; what is picked for those without one must not matter."""
    return count - 1
