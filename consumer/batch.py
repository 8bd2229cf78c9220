"""The open batch of one partition: what it holds by count, and where it must end.

Owns: the limits and the decision how many records of a wire batch still belong to the batch. Does not own: the bytes
(`encoder`), the chunk's life once sealed (`chain`).

Invariants: a batch takes records in offset order, without leaving one out; it never exceeds a limit unless by its only
record; a batch with records ends at a limit at the latest. The offset where it ends is the chain's to say (`chain`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.ports import WireBatch

CALENDAR_MIN_AGE_SECONDS: Final = 5.0
CALENDAR_MIN_SHARE: Final = 16  # of a limit: neither interleaved nor sparse timestamps make a storm of tiny objects


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """BATCH_MAX_*; `bytes` of values before compression. `bucket` maps a timestamp (ms) to its calendar unit."""

    records: int
    bytes: int
    seconds: float
    bucket: Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is open, from `start` on. `first_timestamp` (ms) is that of the first record; None while there is none.

    `opened_at` is the monotonic second at which the first record arrived. `lost` counts offsets at its beginning that
    the log no longer had (KAFKA_ON_DATA_LOSS=skip).
    """

    start: int
    records: int = 0
    bytes: int = 0
    first_timestamp: int | None = None
    max_timestamp: int = 0
    opened_at: float = 0.0
    lost: int = 0

    def due_at(self, limits: Limits) -> float | None:
        """When its time is over; None while it has no record."""
        return self.opened_at + limits.seconds if self.records else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The batch after it took the records [begin, end) of a wire batch, `size` bytes of values in all.

    `full` = it must be sealed before the next record.
    """

    batch: Batch
    end: int
    size: int
    full: bool


def admit(batch: Batch, wire: WireBatch, begin: int, *, limits: Limits, now: float) -> Admission:
    """Take from the wire batch's records from index `begin` on as many as the limits allow, one at least when empty."""
    values = wire.values if begin == 0 else wire.values[begin:]
    sizes = [len(value) if value is not None else 0 for value in values]
    if batch.first_timestamp is None:
        batch = replace(
            batch,
            first_timestamp=wire.timestamps[begin],
            max_timestamp=wire.timestamps[begin],
            opened_at=now,
        )
    room = min(len(values), limits.records - batch.records)
    count, size = _fit(sizes, room, limits.bytes - batch.bytes, alone=batch.records == 0)
    cut = _calendar_cut(batch, wire, begin, sizes[:count], limits=limits, now=now)
    if cut < count:
        count, size = cut, sum(sizes[:cut])
    end = begin + count
    complete = end == begin + len(values)
    grown = replace(
        batch,
        records=batch.records + count,
        bytes=batch.bytes + size,
        max_timestamp=_max_timestamp(batch, wire, begin, end),
    )
    full = not complete or grown.records >= limits.records or grown.bytes >= limits.bytes
    return Admission(batch=grown, end=end, size=size, full=full)


def _fit(sizes: Sequence[int], room: int, room_bytes: int, *, alone: bool) -> tuple[int, int]:
    """How many of the values fit, and their bytes. A value beyond the limit goes alone."""
    total = sum(sizes)
    if room == len(sizes) and total <= room_bytes:
        return room, total
    ends = list(accumulate(sizes[:room]))
    count = bisect_right(ends, room_bytes)
    if count == 0 and alone:
        count = 1
    return count, ends[count - 1] if count else 0


def _calendar_cut(
    batch: Batch, wire: WireBatch, begin: int, sizes: Sequence[int], *, limits: Limits, now: float
) -> int:
    """Index (from `begin`) of the first record in a later calendar unit than the batch's first, once that cuts."""
    if batch.first_timestamp is None:
        return len(sizes)
    bucket = limits.bucket(batch.first_timestamp)
    if limits.bucket(wire.max_timestamp) <= bucket:
        return len(sizes)
    records, size = batch.records, batch.bytes
    aged = records > 0 and now - batch.opened_at >= CALENDAR_MIN_AGE_SECONDS
    for index, one in enumerate(sizes):
        holds_enough = records * CALENDAR_MIN_SHARE >= limits.records or size * CALENDAR_MIN_SHARE >= limits.bytes
        if records and (aged or holds_enough) and limits.bucket(wire.timestamps[begin + index]) > bucket:
            return index
        records += 1
        size += one
    return len(sizes)


def _max_timestamp(batch: Batch, wire: WireBatch, begin: int, end: int) -> int:
    """The wire header's word for a whole wire batch, which spares reading each timestamp."""
    if wire.max_timestamp <= batch.max_timestamp or begin == end:
        return batch.max_timestamp
    if begin == 0 and end == len(wire.values):
        return wire.max_timestamp
    return max(batch.max_timestamp, *wire.timestamps[begin:end])
