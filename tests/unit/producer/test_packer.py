from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from producer.ledger import Parcel, Record
from producer.packer import RECORD_BYTES, lanes, pack, partition_index
from shared.schemas import event_id

if TYPE_CHECKING:
    from collections.abc import Sequence


class SmallBatch:
    """Takes so many records, and the first always, like aiokafka's builder."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.appended: list[tuple[int, bytes | None, bytes, Sequence[tuple[str, bytes]]]] = []

    def append(
        self, *, timestamp: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> object | None:
        if self.appended and len(self.appended) >= self.room:
            return None
        self.appended.append((timestamp, key, value, headers))
        return object()


# org.apache.kafka.common.utils.UtilsTest#testMurmur2
@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_in_java(key: bytes, java: int) -> None:
    assert murmur2(key) == java & 0xFFFFFFFF
    assert partition_index(murmur2(key), 7) == (java & 0x7FFFFFFF) % 7


@given(
    keys=st.lists(st.none() | st.binary(max_size=6), max_size=40),
    partitions=st.integers(1, 7),
    room=st.integers(1, 5),
    giants=st.sets(st.integers(0, 39), max_size=2),
)
def test_every_record_is_packed_once_in_order_or_given_back(
    keys: list[bytes | None], partitions: int, room: int, giants: set[int]
) -> None:
    giant = b"x" * RECORD_BYTES
    records = [Record(key=key, value=giant if number in giants else b"%d" % number) for number, key in enumerate(keys)]
    parcel = Parcel(source="s", time="t", topic="task", records=records)
    packed: list[Record] = []
    too_large: list[Record] = []
    for lane in lanes(records, range(partitions), lambda count: count - 1, murmur2).values():
        in_order = list(lane)
        out: list[Record] = []
        while lane:
            batch = SmallBatch(room)
            result = pack(batch, lane, parcel, 5)
            assert [(key, value) for _, key, value, _ in batch.appended] == [(r.key, r.value) for r in result.records]
            assert len(result.records) <= room
            out += result.records
            too_large += result.too_large
        assert out == [record for record in in_order if record.value is not giant]
        packed += out
    assert sorted(map(id, packed + too_large)) == sorted(map(id, records))
    assert all(record.value is giant for record in too_large)


def test_a_record_carries_the_headers_of_its_event() -> None:
    parcel = Parcel(
        source="http://h/x", time="2026-01-02T03:04:05.678Z", topic="task", records=[Record(key=b"K", value=b"{}")]
    )
    batch = SmallBatch(1)
    pack(batch, deque(parcel.records), parcel, 1234)
    ((timestamp, key, value, headers),) = batch.appended
    assert (timestamp, key, value) == (1234, b"K", b"{}")
    assert dict(headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": event_id("http://h/x", b"K", b"{}").encode(),
        "ce_source": b"http://h/x",
        "ce_type": b"ticklake.quote.v1",
        "ce_time": b"2026-01-02T03:04:05.678Z",
        "ce_subject": b"K",
    }


def test_keyless_records_of_a_parcel_share_one_partition() -> None:
    records = [Record(key=None, value=b"a"), Record(key=None, value=b"b")]
    assert list(lanes(records, [0, 1, 2], lambda _: 1, murmur2)) == [1]


def test_a_key_counts_the_partitions_in_their_order_whatever_order_the_broker_tells_them_in() -> None:
    record = Record(key=b"abc", value=b"{}")
    assert list(lanes([record], [2, 0, 6, 1, 4, 3, 5], lambda _: 0, murmur2)) == [(479470107 & 0x7FFFFFFF) % 7]
