"""Keeps the account of what was selected and is not yet acknowledged.

Owns: bytes and age of everything between selection and acknowledgement, by topic. Does not own: sending. Pure; time
handed in.

Invariants: what was taken in and neither acknowledged nor set aside is counted, once; a parcel is settled when its last
record is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a waiting record costs besides its own bytes: objects now, its headers once it is encoded.
RECORD_OVERHEAD_BYTES = 400


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What becomes one Kafka record. Tens of thousands come at a time: quickly made, and unknown to the collector."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one topic, and how long its oldest parcel has waited."""

    records: int
    unacked_bytes: int
    oldest_seconds: float


@dataclass(slots=True, eq=False)
class _Entry:
    since: float
    records: int
    acknowledged: int = 0
    set_aside: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class _Account:
    entries: dict[Parcel, _Entry] = field(default_factory=dict)  # in the order of arrival
    unacked_bytes: int = 0
    records: int = 0


@dataclass(slots=True)
class Ledger:
    """Written by the publisher, read by the poller (may a tick run?), the probe and the metrics."""

    unacked_bytes: int = 0
    unacked_records: int = 0
    _accounts: dict[str, _Account] = field(default_factory=dict)

    def take(self, parcel: Parcel, now: float) -> None:
        """A parcel was handed in."""
        account = self._accounts.setdefault(parcel.topic, _Account())
        account.entries[parcel] = _Entry(since=now, records=len(parcel.records))
        self._add(account, len(parcel.records), _cost_bytes(parcel.records))

    def settle(self, parcel: Parcel, records: Sequence[Record], *, acknowledged: bool = True) -> Delivery | None:
        """These records are acknowledged or else set aside. After a parcel's last: what became of it."""
        account = self._accounts[parcel.topic]
        entry = account.entries[parcel]
        entry.records -= len(records)
        if acknowledged:
            entry.acknowledged += len(records)
        else:
            entry.set_aside += records
        self._add(account, -len(records), -_cost_bytes(records))
        if entry.records:
            return None
        del account.entries[parcel]
        return Delivery(acknowledged=entry.acknowledged, set_aside=tuple(entry.set_aside))

    def waiting(self, topic: str, now: float) -> Waiting:
        """What waits for this topic."""
        account = self._accounts.get(topic, _Account())
        oldest = next((now - entry.since for entry in account.entries.values()), 0.0)
        return Waiting(records=account.records, unacked_bytes=account.unacked_bytes, oldest_seconds=oldest)

    def _add(self, account: _Account, records: int, cost_bytes: int) -> None:
        account.records += records
        account.unacked_bytes += cost_bytes
        self.unacked_records += records
        self.unacked_bytes += cost_bytes


def _cost_bytes(records: Sequence[Record]) -> int:
    """The sum of their `cost_bytes`, which asked one by one would cost more than the sum."""
    return sum([len(each.value) + len(each.key or b"") for each in records]) + RECORD_OVERHEAD_BYTES * len(records)
