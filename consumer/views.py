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

The record formats: https://kafka.apache.org/documentation/#messageformat
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import cramjam
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from consumer.ports import Record, SourceError
from consumer.record_bytes import read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from consumer.ports import Headers

T = TypeVar("T")

NO_TIMESTAMP: Final = -1

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8  # after the base offset
_OVERHEAD: Final = 12  # base offset and length themselves
_MAGIC_AT: Final = 16
_V2: Final = 2
_V2_BYTES: Final = 61  # header of a v2 batch; the records follow
_COUNT_AT: Final = 57
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
    is_control_batch: bool
    is_transactional: bool
    producer_id: int | None

    def validate_crc(self) -> bool: ...
    def __iter__(self) -> Iterator[_WireRecord]: ...


class _OpenV2Batch(_OpenBatch, Protocol):
    base_offset: int
    compression_type: int
    first_timestamp: int
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

    `values`, `offsets`, `timestamps` and `record` raise SourceError when the batch cannot be read, which a right CRC
    does not rule out. Every answer is worked out when asked for, so asking belongs into a worker thread.
    """

    __slots__ = (
        "_offsets",
        "_raw",
        "_records",
        "_timestamps",
        "_values",
        "_where",
        "max_timestamp",
        "next_offset",
        "start",
    )

    def __init__(self, *, where: str, raw: memoryview, start: int, next_offset: int, max_timestamp: int) -> None:
        self.start = start
        self.next_offset = next_offset
        self.max_timestamp = max_timestamp
        self._where = where
        self._raw = raw
        self._values: Sequence[bytes | None] | None = None
        self._offsets: Sequence[int] | None = None
        self._records: Sequence[_WireRecord] | None = None
        self._timestamps: Sequence[int] | None = None

    @property
    def values(self) -> Sequence[bytes | None]:
        if self._values is None:
            self._read()
        return self._values or ()

    @property
    def offsets(self) -> Sequence[int]:
        if self._offsets is None:
            self._read()
        return self._offsets or ()

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

    def record(self, index: int) -> Record:
        record = self._whole()[index]
        return Record(
            offset=record.offset,
            timestamp=_stamp(record),
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )

    def _read(self) -> None:
        base, count = _dense(self._raw)
        if count:
            # Dense: the offsets follow from the header, and no record object outlives its value.
            first = max(self.start - base, 0)
            values = self._reading(lambda records: [record.value for record in records])
            self._offsets = range(base + first, self.next_offset)
            self._values = values[first:] if first else values
            return
        records = self._whole()
        offsets = [record.offset for record in records]
        self._values = [record.value for record in records]
        is_range = bool(offsets) and offsets[-1] - offsets[0] == len(offsets) - 1
        self._offsets = range(offsets[0], offsets[-1] + 1) if is_range else offsets

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
                f"the wire batch of {self._where} that ends before offset {self.next_offset} cannot be read "
                f"({error!r}), though its CRC is right: its producer wrote it so, or uses a codec that is missing here"
            )
            raise SourceError(message) from error


Item: TypeAlias = BatchView | Skipped


class WireBytes:
    """The batches in one partition's fetch answer. Stands where the fetcher has aiokafka's MemoryRecords, which hides
    the bytes. A batch cut short at the end, as brokers leave it, is not there.
    """

    __slots__ = ("_end", "_position", "_view")

    def __init__(self, data: bytes | None) -> None:
        self._view = memoryview(data or b"")
        self._position = 0
        self._end = self._measure()

    def size_in_bytes(self) -> int:
        return len(self._view)

    def has_next(self) -> bool:
        return self._end is not None

    def next_bytes(self) -> memoryview:
        """The next whole batch. Only after has_next()."""
        if self._end is None:
            raise LookupError("no whole batch left")
        raw = self._view[self._position : self._end]
        self._position = self._end
        self._end = self._measure()
        return raw

    def _measure(self) -> int | None:
        if len(self._view) - self._position < _OVERHEAD:
            return None
        (length,) = _LENGTH.unpack_from(self._view, self._position + _LENGTH_AT)
        end: int = self._position + _OVERHEAD + max(length, 0)  # a negative length is refused when it is opened
        return end if end <= len(self._view) else None


class BatchRecords(PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """PartitionRecords with a BatchView or Skipped a wire batch instead of a ConsumerRecord a record.

    `_unpack_records` follows that of aiokafka 0.14.0; the list of aborted transactions and the markers are its own.
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Item]:
        wire: WireBytes = self._records
        where = f"partition {self._tp.partition} of topic {self._tp.topic}"
        while wire.has_next():
            raw = wire.next_bytes()
            batch = _open(raw)
            if self._check_crcs and not batch.validate_crc():
                # This generator ends here; the caller seeks, so the bytes are fetched anew.
                message = f"the CRC of a wire batch at or after offset {self.next_fetch_offset} of {where} is wrong"
                raise CorruptRecordException(message)
            start = self.next_fetch_offset
            self.next_fetch_offset = max(start, batch.next_offset)
            if self._is_readable(raw, batch) and batch.next_offset > start:
                yield _view(where, raw, batch, start)
            else:
                yield Skipped(start, self.next_fetch_offset)

    def _is_readable(self, raw: memoryview, batch: _OpenBatch) -> bool:
        """Neither control batch nor empty nor part of an aborted transaction (read_committed)."""
        empty = _magic(raw) >= _V2 and _count(raw) == 0  # compaction keeps them for the producer's sequence
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(_open_v2(raw).base_offset)
            if batch.is_control_batch and not empty and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch and not empty


def _view(where: str, raw: memoryview, batch: _OpenBatch, start: int) -> Item:
    view = BatchView(
        where=where, raw=raw, start=start, next_offset=batch.next_offset, max_timestamp=_max_timestamp(raw, where)
    )
    base, count = _dense(raw)
    if not count and start > base and not view.offsets:
        return Skipped(start, batch.next_offset)  # compaction took every record from `start` on
    return view


def _max_timestamp(raw: memoryview, where: str) -> int:
    """The header's word (KIP-32: the broker makes it right). v0 and v1 have none, so each record is read."""
    if _magic(raw) >= _V2:
        return _open_v2(raw).max_timestamp
    view = BatchView(where=where, raw=raw, start=0, next_offset=0, max_timestamp=NO_TIMESTAMP)
    return max(view.timestamps, default=NO_TIMESTAMP)


def _magic(raw: memoryview) -> int:
    return raw[_MAGIC_AT]


def _count(raw: memoryview) -> int:
    count: int = _LENGTH.unpack_from(raw, _COUNT_AT)[0]
    return count


def _dense(raw: memoryview) -> tuple[int, int]:
    """Base offset and count of a v2 batch in which every offset has its record; else (a bound below, 0)."""
    if _magic(raw) < _V2:
        return -1, 0  # a v1 wrapper's own offset is its last record's: where it begins is known after reading it
    batch = _open_v2(raw)
    count = _count(raw)
    return batch.base_offset, count if count == batch.next_offset - batch.base_offset else 0


def _open(raw: memoryview) -> _OpenBatch:
    """A reader of aiokafka's at the batch's beginning. Cheap: nothing is decompressed before it is iterated."""
    if len(raw) < _SMALLEST or (_magic(raw) >= _V2 and len(raw) < _V2_BYTES):
        message = f"a wire batch of {len(raw)} bytes is shorter than its header"
        raise CorruptRecordException(message)
    if _magic(raw) >= _V2:
        return _open_v2(raw)
    batch: _OpenBatch = LegacyRecordBatch(raw, _magic(raw))
    return batch


def _open_v2(raw: memoryview) -> _OpenV2Batch:
    batch: _OpenV2Batch = DefaultRecordBatch(raw)
    return batch


def _read_slowly(raw: memoryview) -> Iterable[_WireRecord]:
    batch = _open_v2(raw)
    return read_records(
        bytes(raw[_V2_BYTES:]),
        codec=batch.compression_type,
        count=_count(raw),
        base_offset=batch.base_offset,
        first_timestamp=batch.first_timestamp,
        append_time=batch.max_timestamp if batch.timestamp_type else None,
    )


def _stamp(record: _WireRecord) -> int:
    return NO_TIMESTAMP if record.timestamp is None else record.timestamp
