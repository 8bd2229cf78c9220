"""Keeps the account of what was selected and is not yet acknowledged.

Owns: bytes and age of everything between selection and acknowledgement. Does not own: sending. Pure; time handed in.

Invariants: what was taken in and neither acknowledged nor set aside is counted, once; a parcel is settled when its last
record is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a waiting record costs besides its own bytes: objects now, its headers once it is encoded.
RECORD_OVERHEAD_BYTES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What becomes one Kafka record."""

    key: bytes | None
    value: bytes

    @property
    def cost_bytes(self) -> int:
        """What it counts towards `PUBLISH_MAX_UNACKED_BYTES`."""
        return len(self.value) + len(self.key or b"") + RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """The selected records of one tick. `source` and `time` become ce_source and ce_time."""

    source: str
    time: str
    topic: str
    records: Sequence[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of a parcel: how many records Kafka acknowledged, and those it can never take."""

    acknowledged: int
    set_aside: tuple[Record, ...] = ()


@dataclass(slots=True, eq=False)
class _Entry:
    since: float
    records: int
    acknowledged: int = 0
    set_aside: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """Written by the publisher, read by the poller (may a tick run?), the probe and the metrics."""

    unacked_bytes: int = 0
    unacked_records: int = 0
    _entries: dict[Parcel, _Entry] = field(default_factory=dict)

    def take(self, parcel: Parcel, now: float) -> None:
        """A parcel was handed in."""
        size = sum(record.cost_bytes for record in parcel.records)
        self._entries[parcel] = _Entry(since=now, records=len(parcel.records))
        self.unacked_records += len(parcel.records)
        self.unacked_bytes += size

    def settle(self, parcel: Parcel, records: Sequence[Record], *, acknowledged: bool = True) -> Delivery | None:
        """These records are acknowledged or else set aside. After a parcel's last: what became of it."""
        entry = self._entries[parcel]
        size = sum(record.cost_bytes for record in records)
        entry.records -= len(records)
        if acknowledged:
            entry.acknowledged += len(records)
        else:
            entry.set_aside += records
        self.unacked_records -= len(records)
        self.unacked_bytes -= size
        if entry.records:
            return None
        del self._entries[parcel]
        return Delivery(acknowledged=entry.acknowledged, set_aside=tuple(entry.set_aside))

    def oldest_seconds(self, now: float) -> float:
        """How long the oldest parcel has waited; 0 when nothing waits. Parcels are kept in the order of arrival."""
        return next((now - entry.since for entry in self._entries.values()), 0.0)
