"""The open batch of one partition: what it holds by count, and where it must end.

Owns: the limits and the decision how many records of a run still belong to the batch. Does not own: the bytes
(`encoder`), the chunk's life once sealed (`chain`).

Invariants: a batch takes records in offset order, without leaving one out; it never exceeds a limit unless by its only
record; a batch with records ends at a limit at the latest. The offset where it ends is the chain's to say (`chain`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.runs import Run

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
    """The batch after it took the records [begin, end) of a run, `size` bytes of values in all.

    `full` = it must be sealed before the next record.
    """

    batch: Batch
    end: int
    size: int
    full: bool


def admit(batch: Batch, run: Run, begin: int, *, limits: Limits, now: float) -> Admission:
    """Take from the run's records from index `begin` on as many as the limits allow, one at least when empty."""
    if batch.first_timestamp is None:
        first = run.timestamp(begin)
        batch = replace(batch, first_timestamp=first, max_timestamp=first, opened_at=now)
    end = _fit(batch, run, begin, limits)
    if limits.bucket(run.max_timestamp) > limits.bucket(batch.first_timestamp or 0):
        end = _calendar_cut(batch, run, begin, end, limits=limits, now=now)
    size = run.size_between(begin, end)
    grown = replace(
        batch,
        records=batch.records + end - begin,
        bytes=batch.bytes + size,
        max_timestamp=_max_timestamp(batch, run, begin, end),
    )
    full = end < run.count or grown.records >= limits.records or grown.bytes >= limits.bytes
    return Admission(batch=grown, end=end, size=size, full=full)


def _fit(batch: Batch, run: Run, begin: int, limits: Limits) -> int:
    """Where the records end that fit by number and bytes. A value beyond the limit goes alone."""
    end = min(run.count, begin + limits.records - batch.records)
    room_bytes = limits.bytes - batch.bytes
    if run.size_between(begin, end) <= room_bytes:
        return end
    fitting = bisect_right(run.ends, run.ends[begin] + room_bytes, begin + 1, end + 1) - 1
    return begin + 1 if fitting == begin and not batch.records else fitting


def _calendar_cut(batch: Batch, run: Run, begin: int, end: int, *, limits: Limits, now: float) -> int:
    """Where the first record of a later calendar unit than the batch's first stands, once that cuts; else `end`."""
    bucket = limits.bucket(batch.first_timestamp or 0)
    aged = batch.records > 0 and now - batch.opened_at >= CALENDAR_MIN_AGE_SECONDS
    first = begin if batch.records else begin + 1
    if not aged:
        first = next((at for at in range(first, end) if _holds_enough(batch, run, begin, at, limits)), end)
    return next((at for at in range(first, end) if limits.bucket(run.timestamp(at)) > bucket), end)


def _holds_enough(batch: Batch, run: Run, begin: int, end: int, limits: Limits) -> bool:
    records, size = batch.records + end - begin, batch.bytes + run.size_between(begin, end)
    return records * CALENDAR_MIN_SHARE >= limits.records or size * CALENDAR_MIN_SHARE >= limits.bytes


def _max_timestamp(batch: Batch, run: Run, begin: int, end: int) -> int:
    """The wire headers' word for a whole run, which spares reading each timestamp."""
    if run.max_timestamp <= batch.max_timestamp or begin == end:
        return batch.max_timestamp
    if end - begin == run.count:
        return run.max_timestamp
    return max(batch.max_timestamp, *map(run.timestamp, range(begin, end)))
