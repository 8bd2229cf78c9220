"""Puts records into Kafka's wire batches.

Owns: which partition a record goes to, the headers it carries, how many fit into one batch. Does not own: the batch's
encoding and the murmur2 hash (aiokafka's, handed in), sending (`publisher`). Pure; time and chance are handed in.

Invariants: records of one partition keep their order; every record ends in exactly one batch or is given back as too
large, alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.schemas import event_id, record_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from producer.ledger import Parcel, Record

# The largest record that is tried: the broker's default limit of 1 MiB for a batch, less the batch's own bytes.
RECORD_BYTES = 1_000_000


class Batch(Protocol):
    """The one call of aiokafka's batch builder that is needed: None = the record does not fit any more."""

    def append(
        self, *, timestamp: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> object | None:
        """Add a record, `timestamp` in ms. The first one of a batch always fits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What went into a batch, and what is too large for any."""

    records: list[Record]
    too_large: list[Record]


def lanes(
    records: Iterable[Record], partitions: Iterable[int], pick: Callable[[int], int], murmur2: Callable[[bytes], int]
) -> dict[int, deque[Record]]:
    """The records by partition. Those without a key go to one partition, another one for every parcel."""
    numbers = sorted(partitions)
    keyless = numbers[pick(len(numbers))]
    found: dict[int, deque[Record]] = {}
    for record in records:
        number = keyless if record.key is None else numbers[partition_index(murmur2(record.key), len(numbers))]
        found.setdefault(number, deque()).append(record)
    return found


def partition_index(murmur2: int, partitions: int) -> int:
    """Where the default partitioner of every Java client puts a key of that hash (BuiltInPartitioner, toPositive)."""
    return (murmur2 & 0x7FFFFFFF) % partitions


def pack(batch: Batch, lane: deque[Record], parcel: Parcel, timestamp_ms: int) -> Packed:
    """Move records from the front of the lane into the batch until it is full or the lane empty."""
    packed = Packed(records=[], too_large=[])
    while lane:
        record = lane[0]
        if record.cost_bytes > RECORD_BYTES:
            packed.too_large.append(lane.popleft())
            continue
        headers = record_headers(
            event_id=event_id(parcel.source, record.key, record.value),
            source=parcel.source,
            time=parcel.time,
            subject=record.key,
        )
        if batch.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=headers) is None:
            break
        packed.records.append(lane.popleft())
    return packed
