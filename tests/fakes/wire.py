"""An in-memory `ports.WireBatch`: frozen and hashable, so that states that hold some can be compared and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.ports import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeWire:
    """Records in offset order, at least one. `header_max_timestamp` is the wire header's word when it is not exact."""

    records: tuple[Record, ...]
    next_offset: int
    header_max_timestamp: int | None = None

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

    def record(self, index: int) -> Record:
        return self.records[index]


def record(offset: int, value: bytes | None = b"{}", *, timestamp: int = 0, key: bytes | None = None) -> Record:
    return Record(offset=offset, timestamp=timestamp, key=key, value=value, headers=())


def wire(*records: Record, next_offset: int | None = None) -> FakeWire:
    return FakeWire(records=records, next_offset=records[-1].offset + 1 if next_offset is None else next_offset)


def wire_of(values: Iterable[bytes | None], *, start: int = 0, timestamp: int = 0) -> FakeWire:
    """Dense offsets from `start` on, all of one timestamp (ms)."""
    return wire(*(record(start + index, value, timestamp=timestamp) for index, value in enumerate(values)))
