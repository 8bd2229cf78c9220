"""Batch views: what a fetch answer holds, one item per wire batch instead of one object per record.

Owns: cutting the answer's bytes into wire batches, checking their CRC, leaving out control batches and aborted
transactions, and reading values, offsets, timestamps and whole records out of a batch, when asked.
Does not own: the fetching itself and the consumed position (aiokafka's Fetcher, installed by `seams`).

Invariants:
- The items of a partition join without a gap: each starts where the one before ended, the first at the offset asked
  for. What holds nothing readable is a Skipped item, so the position moves even then.
- `next_fetch_offset` is the item's `next_offset` before the item is handed out, and never steps back.
- A view holds the batch as it came (compressed), and reads it anew for each kind of question; only values stay. An
  aiokafka record object with seven headers weighs 1.5 KB and costs six times what its value does.
- What is done for each wire batch is a few microseconds' worth: producers that do not wait send one for a few records.

The record formats: https://kafka.apache.org/documentation/#messageformat
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias, TypeVar

import cramjam
import zstandard
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from consumer.ports import Record, SourceError
from consumer.record_bytes import read_records

try:
    from crc32c import crc32c  # by the processor's own instruction: ten times as fast as aiokafka's
except ImportError:  # no wheel for this platform
    from aiokafka.record.util import calc_crc32c as crc32c  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from aiokafka.structs import TopicPartition

    from consumer.ports import Headers

T = TypeVar("T")

NO_TIMESTAMP: Final = -1

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8  # after the base offset
_OVERHEAD: Final = 12  # base offset and length themselves
_MAGIC_AT: Final = 16
_V2: Final = 2
# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and max timestamp, producer id and
# epoch, base sequence, count of the records that follow.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_V2_BYTES: Final = _HEADER.size
_CHECKED_FROM: Final = 21  # what the CRC of a v2 batch is of
_CODEC_AT: Final = 22  # the lower byte of the attributes
_CODEC, _ZSTD = 0x07, 4
_TRANSACTIONAL, _CONTROL = 0x10, 0x20  # attributes
_SMALLEST: Final = 26  # one v0 record: overhead, CRC, magic, attributes, two lengths

# What decompressing and reading a batch can raise when its producer wrote nonsense (its CRC is right all the same).
_UNREADABLE: Final = (
    KafkaError,
    cramjam.DecompressionError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    RuntimeError,
    AssertionError,
)


class _WireRecord(Protocol):
    """aiokafka's record, of either format."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int | None: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class _OpenBatch(Protocol):
    """aiokafka's batch. It can be read once."""

    next_offset: int

    def validate_crc(self) -> bool: ...
    def __iter__(self) -> Iterator[_WireRecord]: ...


class _OpenV2Batch(_OpenBatch, Protocol):
    compression_type: int
    max_timestamp: int
    timestamp_type: int


class Skipped:
    """[start, next_offset) without one readable record: control batches, aborted or compacted ones."""

    __slots__ = ("next_offset", "start")

    def __init__(self, start: int, next_offset: int) -> None:
        self.start = start
        self.next_offset = next_offset


class BatchView:
    """ports.WireBatch over the bytes of one wire batch; records before `start` are left out.

    `base` and `count` are set for a batch in which every offset from `base` on has its record; else `count` is 0.
    `values`, `offsets`, `timestamps` and `record` raise SourceError when the batch cannot be read, which a right CRC
    does not rule out. Every answer is worked out when asked for, so asking belongs into a worker thread.
    """

    __slots__ = (
        "_base",
        "_count",
        "_offsets",
        "_partition",
        "_raw",
        "_records",
        "_timestamps",
        "_values",
        "max_timestamp",
        "next_offset",
        "start",
    )

    def __init__(
        self,
        *,
        partition: TopicPartition,
        raw: memoryview,
        start: int,
        next_offset: int,
        max_timestamp: int,
        base: int = 0,
        count: int = 0,
    ) -> None:
        self.start = start
        self.next_offset = next_offset
        self.max_timestamp = max_timestamp
        self._partition = partition
        self._raw = raw
        self._base = base
        self._count = count
        self._values: Sequence[bytes | None] | None = None
        self._offsets: Sequence[int] | None = None
        self._records: Sequence[_WireRecord] | None = None
        self._timestamps: Sequence[int] | None = None

    @property
    def values(self) -> Sequence[bytes | None]:
        if self._values is None:
            if self._count:  # no record object outlives its value
                values = self._reading(_values)
                self._values = values[self.start - self._base :] if self.start > self._base else values
            else:
                self._values = [record.value for record in self._whole()]
        return self._values

    @property
    def offsets(self) -> Sequence[int]:
        if self._offsets is None:
            if self._count:
                self._offsets = range(max(self.start, self._base), self.next_offset)
            else:
                offsets = [record.offset for record in self._whole()]
                is_range = bool(offsets) and offsets[-1] - offsets[0] == len(offsets) - 1
                self._offsets = range(offsets[0], offsets[-1] + 1) if is_range else offsets
        return self._offsets

    @property
    def timestamps(self) -> Sequence[int]:
        """Costs reading the batch once more; `max_timestamp` costs nothing."""
        if self._timestamps is None:
            if _magic(self._raw) >= _V2 and _open_v2(self._raw).timestamp_type:  # LogAppendTime: one for all
                self._timestamps = [self.max_timestamp] * len(self.offsets)
            elif self._records is not None:
                self._timestamps = [_stamp(record) for record in self._records]
            else:
                start = self.start
                self._timestamps = self._reading(lambda rs: [_stamp(r) for r in rs if r.offset >= start])
        return self._timestamps

    @property
    def size_bytes(self) -> int:
        return len(self._raw)

    def release(self) -> None:
        self._values = self._records = self._timestamps = None

    def record(self, index: int) -> Record:
        record = self._whole()[index]
        return Record(
            offset=record.offset,
            timestamp=_stamp(record),
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )

    def _whole(self) -> Sequence[_WireRecord]:
        if self._records is None:
            start = self.start
            self._records = self._reading(lambda records: [r for r in records if r.offset >= start])
        return self._records

    def _reading(self, pick: Callable[[Iterable[_WireRecord]], T]) -> T:
        """What `pick` makes of the batch's records; whatever goes wrong in reading them is a SourceError."""
        try:
            try:
                return pick(_open(self._raw))
            except UnicodeDecodeError:  # a header's name; aiokafka reads it whether it is asked for or not
                return pick(_read_slowly(self._raw))
        except _UNREADABLE as error:
            message = (
                f"the wire batch of {_where(self._partition)} that ends before offset {self.next_offset} cannot be "
                f"read ({error!r}), though its CRC is right: its producer wrote it so, or uses a codec that is missing "
                "here"
            )
            raise SourceError(message) from error


Buffer: TypeAlias = "bytes | memoryview"
Item: TypeAlias = BatchView | Skipped


class WireBytes:
    """The batches in one partition's fetch answer. Stands where the fetcher has aiokafka's MemoryRecords, which hides
    the bytes. A batch cut short at the end, as brokers leave it, is not there.
    """

    __slots__ = ("_view",)

    def __init__(self, data: bytes | None) -> None:
        self._view = memoryview(data or b"")

    def size_in_bytes(self) -> int:
        return len(self._view)

    def has_next(self) -> bool:
        return any(True for _ in self)

    def __iter__(self) -> Iterator[memoryview]:
        view, size, start = self._view, len(self._view), 0
        while start + _OVERHEAD <= size:
            (length,) = _LENGTH.unpack_from(view, start + _LENGTH_AT)
            end = start + _OVERHEAD + max(length, 0)  # a negative length is refused when it is opened
            if end > size:
                return
            yield view[start:end]
            start = end


class BatchRecords(PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """PartitionRecords with a BatchView or Skipped a wire batch instead of a ConsumerRecord a record.

    `_unpack_records` follows that of aiokafka 0.14.0; the list of aborted transactions and the markers are its own.
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Item]:
        wire: WireBytes = self._records
        for raw in wire:
            if len(raw) < _SMALLEST or (_magic(raw) >= _V2 and len(raw) < _V2_BYTES):
                message = f"a wire batch of {len(raw)} bytes is shorter than its header"
                raise CorruptRecordException(message)
            yield self._item(raw) if _magic(raw) >= _V2 else self._old_item(raw)

    def _item(self, raw: memoryview) -> Item:
        base, _, _, _, crc, attributes, delta, _, max_timestamp, producer, _, _, count = _HEADER.unpack_from(raw)
        if self._check_crcs and crc32c(raw[_CHECKED_FROM:]) != crc:
            self._refuse()
        start, next_offset = self.next_fetch_offset, base + delta + 1
        self.next_fetch_offset = max(start, next_offset)
        # Without records: compaction keeps such batches for the producer's sequence.
        if not self._is_readable(raw, base, attributes, producer, count) or count == 0 or next_offset <= start:
            return Skipped(start, self.next_fetch_offset)
        view = BatchView(
            partition=self._tp,
            raw=raw,
            start=start,
            next_offset=next_offset,
            max_timestamp=max_timestamp,
            base=base,
            count=count if count == delta + 1 else 0,
        )
        if start > base and not view.offsets:
            return Skipped(start, next_offset)  # compaction took every record from `start` on
        return view

    def _old_item(self, raw: memoryview) -> Item:
        """v0 and v1 have no timestamp in their header, so each record is read for it; nor are there transactions."""
        batch = _open(raw)
        if self._check_crcs and not batch.validate_crc():
            self._refuse()
        start, next_offset = self.next_fetch_offset, batch.next_offset
        self.next_fetch_offset = max(start, next_offset)
        if next_offset <= start:
            return Skipped(start, self.next_fetch_offset)
        # A wrapper's own offset is its last record's: where it begins is known after reading it.
        view = BatchView(partition=self._tp, raw=raw, start=start, next_offset=next_offset, max_timestamp=NO_TIMESTAMP)
        view.max_timestamp = max(view.timestamps, default=NO_TIMESTAMP)
        return view if view.offsets else Skipped(start, next_offset)

    def _refuse(self) -> NoReturn:
        """The generator ends here; the caller seeks, so the bytes are fetched anew."""
        message = f"the CRC of a wire batch at or after offset {self.next_fetch_offset} of {_where(self._tp)} is wrong"
        raise CorruptRecordException(message)

    def _is_readable(self, raw: memoryview, base: int, attributes: int, producer: int, count: int) -> bool:
        """Neither control batch nor part of an aborted transaction (read_committed)."""
        if self._isolation_level == READ_COMMITTED:
            if self._aborted_transactions:
                self._consume_aborted_up_to(base)
            if attributes & _CONTROL and count and self._contains_abort_marker(_open_v2(raw)):
                self._aborted_producers.discard(producer)
            if attributes & _TRANSACTIONAL and producer in self._aborted_producers:
                return False
        return not attributes & _CONTROL


def _where(partition: TopicPartition) -> str:
    return f"partition {partition.partition} of topic {partition.topic}"


def _values(records: Iterable[_WireRecord]) -> list[bytes | None]:
    return [record.value for record in records]


def _magic(raw: memoryview) -> int:
    return raw[_MAGIC_AT]


class _Inflaters(threading.local):
    """One for each thread, for all its batches: a new one for each, as aiokafka makes, takes 8 µs."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_inflaters: Final = _Inflaters()


def _inflated(raw: memoryview) -> Buffer:
    """A zstd batch as it would be uncompressed; as it is where it is not one whole frame, for aiokafka to judge."""
    stream = _inflaters.zstd.decompressobj()
    try:
        records = stream.decompress(raw[_V2_BYTES:])
    except zstandard.ZstdError:
        return raw
    if not stream.eof or stream.unused_data:
        return raw
    attributes = bytes((raw[_CODEC_AT] & ~_CODEC,))
    return b"".join((raw[:_CODEC_AT], attributes, raw[_CODEC_AT + 1 : _V2_BYTES], records))


def _open(raw: memoryview) -> _OpenBatch:
    """A reader of aiokafka's at the batch's beginning."""
    magic = raw[_MAGIC_AT]
    if magic < _V2:
        batch: _OpenBatch = LegacyRecordBatch(raw, magic)
        return batch
    return _open_v2(_inflated(raw) if raw[_CODEC_AT] & _CODEC == _ZSTD else raw)


def _open_v2(raw: Buffer) -> _OpenV2Batch:
    batch: _OpenV2Batch = DefaultRecordBatch(raw)
    return batch


def _read_slowly(raw: memoryview) -> Iterable[_WireRecord]:
    base, _, _, _, _, _, _, first_timestamp, _, _, _, _, count = _HEADER.unpack_from(raw)
    batch = _open_v2(raw)
    return read_records(
        bytes(raw[_V2_BYTES:]),
        codec=batch.compression_type,
        count=count,
        base_offset=base,
        first_timestamp=first_timestamp,
        append_time=batch.max_timestamp if batch.timestamp_type else None,
    )


def _stamp(record: _WireRecord) -> int:
    return NO_TIMESTAMP if record.timestamp is None else record.timestamp
