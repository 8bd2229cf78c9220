"""Batch views over bytes made here, beside aiokafka's own reading of the same bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import cramjam
import pytest
import zstandard
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_decode, zstd_encode
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumer.ports import Record, SourceError
from consumer.views import NO_TIMESTAMP, BatchRecords, BatchView, Skipped, WireBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.views import Item

PARTITION = TopicPartition("quotes", 3)
ATTRIBUTES_AT, CRC_AT, DELTA_AT = 21, 17, 23
TRANSACTIONAL, CONTROL, LOG_APPEND_TIME = 0x10, 0x20, 0x08
ABORT, COMMIT = struct.pack(">hh", 0, 0), struct.pack(">hh", 0, 1)


@dataclass(frozen=True)
class Wire:
    """A v2 batch to be. `deltas` are the records' offsets from `base`; `span` is how many offsets the batch covers."""

    base: int
    span: int
    deltas: Sequence[int] = ()
    codec: int = 0
    producer: int = -1
    attributes: int = 0
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)

    def encoded(self) -> bytes:
        builder = DefaultRecordBatchBuilder(2, self.codec, 0, self.producer, 0, 0, 1 << 20)
        for delta in self.deltas:
            offset = self.base + delta
            value = None if offset % 4 == 0 else b"value-%d" % offset * (offset % 9)
            builder.append(delta, 1_000 + (offset * 7919) % 500, self.key or b"key-%d" % offset, value, self.headers)
        raw = bytearray(builder.build())
        struct.pack_into(">q", raw, 0, self.base)
        struct.pack_into(">i", raw, DELTA_AT, self.span - 1)
        (attributes,) = struct.unpack_from(">h", raw, ATTRIBUTES_AT)
        struct.pack_into(">h", raw, ATTRIBUTES_AT, attributes | self.attributes)
        return sealed(raw)


def sealed(raw: bytearray) -> bytes:
    """With its CRC made right."""
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[ATTRIBUTES_AT:])))
    return bytes(raw)


def with_attributes(raw: bytes, attributes: int) -> bytes:
    """With more attributes, and its CRC made right."""
    changed = bytearray(raw)
    changed[ATTRIBUTES_AT + 1] |= attributes
    return sealed(changed)


def read(data: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> list[Item]:
    records = BatchRecords(PARTITION, WireBytes(data), list(aborted), start, None, None, True, READ_COMMITTED)
    items = cast("list[Item]", list(records))
    position = start
    for item in items:
        assert item.start == position
        position = item.next_offset
    assert records.next_fetch_offset == position
    return items


def read_by_aiokafka(data: bytes, start: int, aborted: Sequence[tuple[int, int]]) -> tuple[list[Record], int]:
    records = PartitionRecords(PARTITION, MemoryRecords(data), list(aborted), start, None, None, True, READ_COMMITTED)
    return [
        Record(offset=r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=r.headers) for r in records
    ], records.next_fetch_offset


def flat(items: Sequence[Item]) -> list[Record]:
    """Every record, after checking that the sequences of each view agree with them."""
    found: list[Record] = []
    for view in items:
        if isinstance(view, BatchView):
            assert len(view.values) > 0
            assert view.max_timestamp >= max(view.timestamps)
            whole = [view.record(index) for index in range(len(view.values))]
            assert [r.value for r in whole] == list(view.values)
            assert [r.offset for r in whole] == list(view.offsets)
            assert [r.timestamp for r in whole] == list(view.timestamps)
            found += whole
    return found


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Wire], list[tuple[int, int]]]:
    """Batches in offset order with holes between and within, and the transactions that were aborted."""
    wires: list[Wire] = []
    aborted: list[tuple[int, int]] = []
    base = draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 6))):
        producer = draw(st.sampled_from([-1, -1, 7, 8]))
        if producer >= 0 and draw(st.booleans()):
            marker = draw(st.sampled_from([ABORT, COMMIT]))
            wires.append(Wire(base, 1, [0], 0, producer, TRANSACTIONAL | CONTROL, marker))
        else:
            span = draw(st.integers(1, 12))
            deltas = sorted(draw(st.sets(st.integers(0, span - 1)) | st.just(set(range(span)))))
            codec = draw(st.sampled_from([0, 1, 2, 3, 4])) if deltas else 0
            attributes = draw(st.sampled_from([0, LOG_APPEND_TIME])) | (TRANSACTIONAL if producer >= 0 else 0)
            headers: list[tuple[str, bytes | None]] = draw(st.sampled_from([[], [("ce_id", b"1"), ("none", None)]]))
            wires.append(Wire(base, span, deltas, codec, producer, attributes, headers=headers))
            if producer >= 0 and draw(st.booleans()):
                aborted.append((producer, base))
        base += wires[-1].span + draw(st.integers(0, 3))
    return wires, aborted


@given(logs(), st.integers(0, 60))
def test_views_read_what_aiokafka_reads(log: tuple[list[Wire], list[tuple[int, int]]], start: int) -> None:
    wires, aborted = log
    # A broker answers from the batch that holds the offset on.
    data = b"".join(wire.encoded() for wire in wires if wire.base + wire.span > start)
    items = read(data, start, aborted)
    records, position = read_by_aiokafka(data, start, aborted)
    assert flat(items) == records
    assert (items[-1].next_offset if items else start) == position


def test_dense_offsets_are_a_range_and_others_a_list() -> None:
    dense, sparse, dense_within = read(
        Wire(5, 4, [0, 1, 2, 3]).encoded() + Wire(9, 9, [0, 2, 7]).encoded() + Wire(18, 9, [4, 5, 6]).encoded(), 6
    )
    assert isinstance(dense, BatchView)
    assert isinstance(sparse, BatchView)
    assert isinstance(dense_within, BatchView)
    assert dense.offsets == range(6, 9)
    assert sparse.offsets == [9, 11, 16]
    assert dense_within.offsets == range(22, 25)
    assert dense_within.next_offset == 27


def test_a_batch_whose_records_from_the_start_on_are_gone_only_moves_the_position() -> None:
    (item,) = read(Wire(10, 10, [0, 3]).encoded(), 15)
    assert isinstance(item, Skipped)
    assert item.next_offset == 20


def test_empty_batches_only_move_the_position() -> None:
    items = read(Wire(0, 5).encoded() + Wire(5, 1, producer=7, attributes=TRANSACTIONAL | CONTROL).encoded())
    assert [type(item) for item in items] == [Skipped, Skipped]
    assert items[-1].next_offset == 6


def test_the_position_stands_behind_the_batch_before_it_is_handed_out() -> None:
    data = Wire(0, 3, [0, 1, 2]).encoded() + Wire(3, 2, [0, 1]).encoded()
    records = BatchRecords(PARTITION, WireBytes(data), None, 0, None, None, True, READ_COMMITTED)
    assert next(records).next_offset == records.next_fetch_offset == 3
    assert next(records).next_offset == records.next_fetch_offset == 5


def test_every_flipped_byte_after_the_crc_is_noticed() -> None:
    raw = Wire(0, 3, [0, 1, 2], codec=4).encoded()
    for index in range(CRC_AT, len(raw)):
        flipped = bytearray(raw)
        flipped[index] ^= 0x40
        with pytest.raises(CorruptRecordException, match="the CRC of a wire batch at or after offset 0 of partition 3"):
            read(bytes(flipped))


def test_batches_before_a_corrupt_one_are_not_handed_out_again_after_a_seek() -> None:
    corrupt = bytearray(Wire(3, 2, [0, 1]).encoded())
    corrupt[-1] ^= 1
    records = BatchRecords(
        PARTITION, WireBytes(Wire(0, 3, [0, 1, 2]).encoded() + corrupt), None, 0, None, None, True, READ_COMMITTED
    )
    next(records)
    with pytest.raises(CorruptRecordException):
        next(records)
    assert records.next_fetch_offset == 3


@pytest.mark.parametrize("length", [-13, -12, -1, 0, 3, 48])
def test_a_batch_shorter_than_its_header_is_refused(length: int) -> None:
    raw = bytearray(Wire(0, 1, [0]).encoded())
    struct.pack_into(">i", raw, 8, length)
    with pytest.raises(CorruptRecordException, match="shorter than its header"):
        read(bytes(raw))


@pytest.mark.parametrize("cut", [1, 11, 12, 30, 70])
def test_a_batch_cut_short_by_the_fetch_size_is_left_for_the_next_fetch(cut: int) -> None:
    whole, cut_off = Wire(0, 1, [0]).encoded(), Wire(1, 1, [0]).encoded()
    items = read(whole + cut_off[:cut])
    assert [item.next_offset for item in items] == [1]
    assert not WireBytes(cut_off[:cut]).has_next()
    assert WireBytes(cut_off[:cut]).size_in_bytes() == min(cut, len(cut_off))


def test_an_answer_without_bytes_holds_nothing() -> None:
    assert not WireBytes(None).has_next()
    assert list(WireBytes(b"")) == []


def test_what_is_unreadable_under_a_right_crc_is_named() -> None:
    raw = bytearray(Wire(0, 2, [0, 1]).encoded())
    raw[61] ^= 0x08  # the first record's length
    (view,) = read(sealed(raw))
    assert isinstance(view, BatchView)
    assert view.offsets == range(2)  # by its header
    for ask in (lambda: view.values, lambda: view.timestamps, lambda: view.record(0)):
        with pytest.raises(SourceError, match="partition 3 of topic quotes that ends before offset 2 cannot be read"):
            ask()


@pytest.mark.parametrize("attributes", [0, LOG_APPEND_TIME])
@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_header_name_that_is_not_utf_8_keeps_nothing_out(codec: int, attributes: int) -> None:
    headers: list[tuple[str, bytes | None]] = [("n~me", b"1"), ("none", None)]
    plain = Wire(7, 30, [0, *range(2, 30)], attributes=attributes, headers=headers).encoded()
    expected = flat(read(plain, 11))
    body = plain[61:].replace(b"n~me", b"n\xe4me")
    compress = {0: bytes, 1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}[codec]
    raw = bytearray(plain[:61] + compress(body))
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">h", raw, ATTRIBUTES_AT, attributes | codec)
    found = flat(read(sealed(raw), 11))
    assert all(r.headers == (("n\\xe4me", b"1"), ("none", None)) for r in found)
    assert [replace(r, headers=()) for r in found] == [replace(r, headers=()) for r in expected]


def test_the_slow_reading_notices_what_does_not_add_up() -> None:
    raw = bytearray(Wire(0, 2, [0, 1], headers=[("n~me", b"1")]).encoded().replace(b"n~me", b"n\xe4me"))
    raw[61] ^= 0x08  # the first record's length
    (view,) = read(sealed(raw))
    assert isinstance(view, BatchView)
    with pytest.raises(SourceError, match="cannot be read"):
        _ = view.values


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_broken_compression_is_named(codec: int) -> None:
    raw = bytearray(Wire(0, 50, range(50), codec=codec).encoded())
    raw[61:] = b"nonsense" * 20
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    (view,) = read(sealed(raw))
    assert isinstance(view, BatchView)
    with pytest.raises(SourceError, match="cannot be read"):
        _ = view.values


def compressed_anew(raw: bytes, *bodies: bytes) -> bytes:
    """The batch with these bytes, each a frame by itself or not, in place of its records."""
    changed = bytearray(raw[:61] + b"".join(bodies))
    struct.pack_into(">i", changed, 8, len(changed) - 12)
    return sealed(changed)


@pytest.mark.parametrize(
    "as_sent", ["one frame", "unsized frame", "two frames", "cut frame", "cut checksum", "tail", "nothing"]
)
def test_zstd_as_no_producer_of_ours_sends_it_is_read_or_refused_as_by_aiokafka(as_sent: str) -> None:
    raw = Wire(0, 50, range(50), codec=4).encoded()
    body = zstd_decode(raw[61:])
    stream = zstandard.ZstdCompressor().compressobj()
    frame = zstd_encode(body)
    bodies: dict[str, list[bytes]] = {
        "one frame": [frame],
        "unsized frame": [stream.compress(body), stream.flush()],
        "two frames": [zstd_encode(body[:100]), zstd_encode(body[100:])],
        "cut frame": [frame[:-5]],
        "cut checksum": [zstandard.ZstdCompressor(write_checksum=True).compress(body)[:-4]],
        "tail": [frame, b"tail"],
        "nothing": [],
    }
    data = compressed_anew(raw, *bodies[as_sent])
    (view,) = read(data)
    try:
        expected, _ = read_by_aiokafka(data, 0, [])
    except (KafkaError, RuntimeError, cramjam.DecompressionError):
        assert isinstance(view, BatchView)
        with pytest.raises(SourceError, match="cannot be read"):
            _ = view.values
    else:
        assert flat([view]) == expected


@given(st.binary(max_size=8), st.integers(61, 200), st.sampled_from([0, 4]))
def test_records_damaged_under_a_right_crc_are_read_or_refused_as_by_aiokafka(
    damage: bytes, where: int, codec: int
) -> None:
    """Lengths, varints and headers that lie included; offsets that lie as well, by which nothing is left out here."""
    raw = bytearray(Wire(0, 9, range(9), headers=[("ce_id", b"1"), ("none", None)]).encoded())
    raw[where : where + len(damage)] = damage
    body = bytes(raw[61:])
    data = with_attributes(compressed_anew(bytes(raw), zstd_encode(body) if codec else body), codec)
    (view,) = read(data)
    assert isinstance(view, BatchView)
    try:
        expected = [record.value for record in DefaultRecordBatch(data)]
    except UnicodeDecodeError:
        return  # a header's name; read on here
    except KafkaError:
        with pytest.raises(SourceError, match="cannot be read"):
            _ = view.values
    else:
        assert view.values == expected


@pytest.mark.parametrize("codec", [0, 1, 2])
@pytest.mark.parametrize("magic", [0, 1])
def test_the_old_formats_are_read(magic: int, codec: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for offset in range(4):
        builder.append(offset, 1_000 - offset, b"key-%d" % offset, b"value-%d" % offset * 9)
    raw = bytearray(builder.build())
    if codec:  # the wrapper's own offset is its last record's, by the broker
        struct.pack_into(">q", raw, 0, 3)
    timestamps = [NO_TIMESTAMP] * 4 if magic == 0 else [1_000, 999, 998, 997]
    for start in range(4):
        records = flat(read(bytes(raw), start))
        assert [r.offset for r in records] == [0, 1, 2, 3][start:]
        assert [r.value for r in records] == [b"value-%d" % n * 9 for n in range(start, 4)]
        assert [r.timestamp for r in records] == timestamps[start:]
