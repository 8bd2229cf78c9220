"""Runs: adjoining wire batches of one partition, read and judged in one pass, as the chain takes them.

Owns: how many wire batches make a run, what is kept of them, the answers about a run's records. Does not own: reading
one wire batch (`views`), which value is a line (`encoder`), where a batch ends (`batch`).

Why runs: what is done for each of them (a decision, a call into hash and codec, a turn of the threads) costs some
30 µs, which a wire batch of five records could not bear, and a value that is joined, checked and let go while it is
still in the processor's cache costs a third less than one that waits.

Invariants: a run holds the records of its wire batches in offset order, at least one; with `lines`, they are all lines
of the `value` format as they stand, and the lines are all that is kept of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.ports import Fetched, Record, WireBatch

LinesOf: TypeAlias = "Callable[[Sequence[bytes | None]], bytes | None]"
"""The lines of values that are all lines as they stand, one after the other; None when one of them is not."""

RUN_BYTES: Final = 64 << 10  # of wire batches: four times that, uncompressed, still fits into a core's cache


class Run:
    """Records of one partition between two offsets, at least one. Indexes count from its first record.

    `wires` are where they came from, `size` the bytes of all values, `lines` see above. Runs of equal wire batches are
    equal.
    """

    __slots__ = ("_ends", "_values", "count", "lines", "max_timestamp", "size", "wires", "wires_bytes")

    def __init__(self, wires: tuple[WireBatch, ...], values: Sequence[bytes | None], lines: bytes | None) -> None:
        self.wires = wires
        self.lines = lines
        self.count = len(values)
        self.max_timestamp = max(wire.max_timestamp for wire in wires)
        self.wires_bytes = sum(wire.size_bytes for wire in wires)
        self._values = values if lines is None else ()
        self._ends: Sequence[int] | None = None
        self.size = sum(map(_length, values)) if lines is None else len(lines) - len(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.wires == other.wires

    def __hash__(self) -> int:
        return hash(self.wires)

    def __repr__(self) -> str:
        return f"Run({self.wires!r})"

    @property
    def ends(self) -> Sequence[int]:
        """Bytes of the values before each record, then of all: `count` + 1 numbers. For a run that is cut."""
        if self._ends is None:
            values = self._values if self.lines is None else self.lines.split(b"\n")[:-1]
            self._ends = [0, *accumulate(map(_length, values))]
        return self._ends

    def size_between(self, begin: int, end: int) -> int:
        """Bytes of the values of the records [begin, end)."""
        return self.size if end - begin == self.count else self.ends[end] - self.ends[begin]

    def memory_between(self, begin: int, end: int) -> int:
        """Bytes held for the records [begin, end): their values or lines, and in proportion the wire batches."""
        size = self.size_between(begin, end)
        return size + (self.wires_bytes * size // self.size if self.size else self.wires_bytes)

    def lines_between(self, begin: int, end: int) -> bytes | None:
        """The lines of the records [begin, end); None when there are no `lines`."""
        if self.lines is None or end - begin == self.count:
            return self.lines
        return self.lines[self.ends[begin] + begin : self.ends[end] + end]

    def value(self, index: int) -> bytes | None:
        """A record's value."""
        if self.lines is None:
            return self._values[index]
        return self.lines[self.ends[index] + index : self.ends[index + 1] + index]

    def offset(self, index: int) -> int:
        """Offset of a record."""
        wire, at = self._at(index)
        return wire.offsets[at]

    def timestamp(self, index: int) -> int:
        """Timestamp (ms) of a record. The first question after one reads its wire batch once more."""
        wire, at = self._at(index)
        return wire.timestamps[at]

    def record(self, index: int) -> Record:
        """Key, value and headers of a record."""
        wire, at = self._at(index)
        return wire.record(at)

    def release(self) -> None:
        """Let go of whole records that were asked for."""
        for wire in self.wires:
            wire.release()

    def _at(self, index: int) -> tuple[WireBatch, int]:
        for wire in self.wires:
            length = len(wire.offsets)
            if index < length:
                return wire, index
            index -= length
        raise IndexError


def _length(value: bytes | None) -> int:
    return 0 if value is None else len(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """ports.Fetched, read: everything of one partition in [start, next_offset), `runs` may be empty."""

    partition: int
    start: int
    next_offset: int
    runs: Sequence[Run]


def read(fetched: Fetched, lines_of: LinesOf) -> Read:
    """What was fetched as runs, judged by `lines_of`. Raises SourceError when a wire batch cannot be read.

    Costs most of what there is to do for a record: a worker thread's job.
    """
    return Read(
        partition=fetched.partition,
        start=fetched.start,
        next_offset=fetched.next_offset,
        runs=[_run(wires, lines_of) for wires in _grouped(fetched.batches)],
    )


def _grouped(wires: Sequence[WireBatch]) -> Iterator[tuple[WireBatch, ...]]:
    group: list[WireBatch] = []
    size = 0
    for wire in wires:
        group.append(wire)
        size += wire.size_bytes
        if size >= RUN_BYTES:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def _run(wires: tuple[WireBatch, ...], lines_of: LinesOf) -> Run:
    values = wires[0].values if len(wires) == 1 else [value for wire in wires for value in wire.values]
    run = Run(wires, values, lines_of(values))
    for wire in wires:
        _ = wire.offsets  # worked out here, where it may cost and fail
    run.release()
    return run
