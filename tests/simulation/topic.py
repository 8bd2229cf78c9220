"""The topic of a simulated world: a log that grows by records of every kind, and the truth about all it ever held.

Owns: which records are written, what line each must become, and what was written at which offset, retention or not.
Does not own: who reads it (`kafka`), what must hold of it in the bucket (`auditor`).
"""

from __future__ import annotations

import base64
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from consumer.ports import Record
from tests.fakes.source import FakeLog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

HOUR_MS: Final = 3_600_000
FIRST_MS: Final = 400_006 * HOUR_MS  # 22 h: midnight is near, some worlds pass it
ENVELOPE_BYTES: Final = 200  # at most, beside the value
_POISON: Final = (b"", b"{", b"{}{}", b"NaN", b"\xff\xfe", b"\xef\xbb\xbf{}", b'"\\ud800"', None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A record, and its line in `value` format; None = it has to be put aside.

    `memory_bytes` is the most it can cost uncompressed, in whatever form: as it came, as a line, as an envelope.
    """

    record: Record
    line: bytes | None
    memory_bytes: int


@dataclass(slots=True, kw_only=True)
class _Truth:
    offsets: list[int] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """How often records are odd, as shares of all, and how their hours run."""

    poison: float
    giants: float
    line_breaks: float
    gaps: float
    control: float
    interleaved: bool
    envelopes: bool  # every record becomes one
    value_bytes: int
    giant_bytes: int


class Topic:
    """A log and what was ever in it."""

    def __init__(self, partitions: int, *, random: Random, taste: Taste) -> None:
        self.log = FakeLog(partitions)
        self.taste = taste
        self._random = random
        self._truth = [_Truth() for _ in range(partitions)]

    def __len__(self) -> int:
        return len(self.log)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def grow(self, partition: int, count: int, *, clock_ms: int) -> None:
        """One wire batch of `count` records, gaps between them perhaps, a control batch behind it perhaps."""
        truth, offset = self._truth[partition], self.log.range(partition).high_watermark
        batch: list[Written] = []
        for _ in range(count):
            offset += self._random.choice((1, 2, 7)) if self._random.random() < self.taste.gaps else 0
            batch.append(self._write(partition, offset, clock_ms))
            offset += 1
        truth.offsets += [one.record.offset for one in batch]
        truth.written += batch
        self.log.append_records(partition, [one.record for one in batch])
        if self._random.random() < self.taste.control:
            self.log.append_hidden(partition, self._random.choice((1, 3)))

    def add_partitions(self, count: int) -> None:
        self.log.add_partitions(count)
        self._truth += [_Truth() for _ in range(count)]

    def _write(self, partition: int, offset: int, clock_ms: int) -> Written:
        chance, name = self._random.random(), b'"p":%d,"o":%d' % (partition, offset)
        hours = self._random.choice((-1, 0, 0, 1, 2)) if self.taste.interleaved else 0
        timestamp = FIRST_MS + clock_ms + hours * HOUR_MS
        value: bytes | None
        line: bytes | None
        if chance < self.taste.poison:
            value, line = self._random.choice(_POISON), None
        elif chance < self.taste.poison + self.taste.line_breaks:
            value, line = b'{%s,\r\n "x": [1,\n2]}' % name, b'{%s,"x":[1,2]}' % name
        elif chance < self.taste.poison + self.taste.line_breaks + self.taste.giants:
            value = line = b'{%s,"x":"%s"}' % (name, b"g" * self.taste.giant_bytes)
        else:
            value = line = b'{%s,"x":"%s"}' % (name, b"x" * self._random.randrange(self.taste.value_bytes))
        key = self._random.choice((None, b"k", b"\xff"))
        headers = ((("h", b"1"),), ())[self._random.randrange(2)]
        record = Record(offset=offset, timestamp=timestamp, key=key, value=value, headers=headers)
        plain, envelope = len(line or b"") + 1, ENVELOPE_BYTES + len(base64.b64encode(value or b""))
        most = envelope if line is None or self.taste.envelopes else plain
        return Written(record=record, line=line, memory_bytes=max(len(value or b""), most))

    # ---- the truth ---------------------------------------------------------------------------------------------------

    def between(self, partition: int, start: int, end: int) -> Sequence[Written]:
        """What was ever written at [start, end)."""
        truth = self._truth[partition]
        return truth.written[bisect_left(truth.offsets, start) : bisect_left(truth.offsets, end)]

    def end(self, partition: int) -> int:
        """Behind the last record."""
        offsets = self._truth[partition].offsets
        return offsets[-1] + 1 if offsets else 0

    def boundaries(self, partition: int, start: int, end: int) -> Sequence[int]:
        """Offsets in [start, end] where the log's start could move to: at a record, or at the end."""
        offsets = self._truth[partition].offsets
        return [*offsets[bisect_left(offsets, start) : bisect_left(offsets, end)], end]

    def records(self) -> int:
        return sum(len(truth.offsets) for truth in self._truth)


def growth_bytes(written: Sequence[Written]) -> int:
    """How much more memory the records can cost once they are lines than as they came."""
    return sum(one.memory_bytes - len(one.record.value or b"") for one in written)
