"""An in-memory `ports.WireBatch`: frozen and hashable, so that states that hold some can be compared and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.ports import Record
from consumer.runs import Read, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumer.ports import WireBatch
    from consumer.runs import LinesOf


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeWire:
    """Records in offset order, at least one. `header_max_timestamp` is the wire header's word when it is not exact."""

    records: tuple[Record, ...]
    next_offset: int
    header_max_timestamp: int | None = None
    header_bytes: int | None = None
    released: list[bool] = field(default_factory=list, compare=False)

    @property
    def values(self) -> Sequence[bytes | None]:
        return tuple(record.value for record in self.records)

    @property
    def offsets(self) -> Sequence[int]:
        return tuple(record.offset for record in self.records)

    @property
    def timestamps(self) -> Sequence[int]:
        return tuple(record.timestamp for record in self.records)

    @property
    def max_timestamp(self) -> int:
        exact = max(self.timestamps)
        return exact if self.header_max_timestamp is None else max(exact, self.header_max_timestamp)

    @property
    def size_bytes(self) -> int:
        return sum(len(r.value or b"") for r in self.records) if self.header_bytes is None else self.header_bytes

    def record(self, index: int) -> Record:
        return self.records[index]

    def release(self) -> None:
        self.released.append(True)


def record(offset: int, value: bytes | None = b"{}", *, timestamp: int = 0, key: bytes | None = None) -> Record:
    return Record(offset=offset, timestamp=timestamp, key=key, value=value, headers=())


def wire(*records: Record, next_offset: int | None = None) -> FakeWire:
    return FakeWire(records=records, next_offset=records[-1].offset + 1 if next_offset is None else next_offset)


def wire_of(values: Iterable[bytes | None], *, start: int = 0, timestamp: int = 0) -> FakeWire:
    """Dense offsets from `start` on, all of one timestamp (ms)."""
    return wire(*(record(start + index, value, timestamp=timestamp) for index, value in enumerate(values)))


def run(*wires: WireBatch, lines_of: LinesOf = lambda _: None) -> Run:
    """The wire batches as one run, however small or large they are; its values count as no lines unless judged."""
    values = [value for wire in wires for value in wire.values]
    return Run(wires, values, lines_of(values))


def read_apart(partition: int, start: int, next_offset: int, wires: Iterable[WireBatch]) -> Read:
    """What a poll brought, each wire batch a run of its own."""
    return Read(partition=partition, start=start, next_offset=next_offset, runs=tuple(run(wire) for wire in wires))
