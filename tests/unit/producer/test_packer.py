from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from producer.ledger import Parcel, Record
from producer.packer import RememberedHashes, lanes, pack, partition_index
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
    keyless=st.booleans(),
)
def test_a_batch_holds_the_front_of_its_lane_without_a_gap(
    keys: list[bytes | None], partitions: int, room: int, keyless: bool
) -> None:
    records = [Record(key=key, value=b"%d" % number) for number, key in enumerate(keys)]
    parcel = Parcel(source="s", time="t", topic="task", records=records)
    packed: list[Record] = []
    for lane in lanes(records, range(partitions), lambda count: count - 1, murmur2).values():
        waiting = deque((parcel, record) for record in lane)
        while waiting:
            before = list(waiting)
            batch = SmallBatch(room)
            count = pack(batch, waiting, 5, keyless=keyless)
            assert list(waiting) == before
            assert [(key, value) for _, key, value, _ in batch.appended] == [
                (record.key, record.value) for _, record in before[:count]
            ]
            if count < min(room, len(before)):
                assert not keyless
                assert before[count][1].key is None
            if not count:
                assert not keyless
                count = 1  # what is to be set aside
            packed += [waiting.popleft()[1] for _ in range(count)]
    assert sorted(map(id, packed)) == sorted(map(id, records))


def test_each_record_carries_the_headers_of_its_own_parcel() -> None:
    record = Record(key=b"K", value=b"{}")
    parcels = [Parcel(source=source, time=f"t of {source}", topic="task", records=[record]) for source in ("a", "b")]
    batch = SmallBatch(9)
    assert pack(batch, [(parcels[0], record), (parcels[1], record), (parcels[0], record)], 5) == 3
    told = [dict(headers) for _, _, _, headers in batch.appended]
    assert [(each["ce_source"], each["ce_time"]) for each in told] == [
        (b"a", b"t of a"),
        (b"b", b"t of b"),
        (b"a", b"t of a"),
    ]
    assert [each["ce_id"] for each in told] == [event_id(source, b"K", b"{}").encode() for source in ("a", "b", "a")]


def test_a_record_carries_the_headers_of_its_event() -> None:
    parcel = Parcel(
        source="http://h/x", time="2026-01-02T03:04:05.678Z", topic="task", records=[Record(key=b"K", value=b"{}")]
    )
    batch = SmallBatch(1)
    assert pack(batch, [(parcel, record) for record in parcel.records], 1234) == 1
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


@given(st.lists(st.binary(max_size=80)), st.integers(1, 3))
def test_a_remembered_hash_is_the_hash_and_no_more_than_a_few_are_remembered(keys: list[bytes], capacity: int) -> None:
    hashes = RememberedHashes(murmur2, capacity)
    for key in keys:
        assert hashes(key) == murmur2(key)
        assert hashes(key) == murmur2(key)
        assert len(hashes._known) <= capacity
        assert all(len(known) <= 64 for known in hashes._known)


def test_a_key_that_was_seen_is_not_hashed_again() -> None:
    answers = [7]
    hashes = RememberedHashes(lambda _: answers.pop())
    assert [hashes(b"a") for _ in range(3)] == [7, 7, 7]
