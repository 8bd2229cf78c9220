"""Puts records into Kafka's wire batches.

Owns: which partition a record goes to, the headers it carries, how many fit into one batch. Does not own: the batch's
encoding and the murmur2 hash (aiokafka's, handed in), what a topic takes (`limits`), the order of what waits
(`shipment`), sending (`feed`). Pure; time and chance are handed in.

Invariants: records of one partition keep their order; what goes into a batch is the front of its lane without a gap.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from shared.schemas import EventHeaders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from producer.ledger import Parcel, Record

_REMEMBERED_HASHES = 32_768
_REMEMBERED_KEY_BYTES = 64


class Batch(Protocol):
    """The one call of aiokafka's batch builder that is needed: None = the record does not fit any more."""

    def append(
        self, *, timestamp: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> object | None:
        """Add a record, `timestamp` in ms. The first one of a batch always fits."""
        ...


class RememberedHashes:
    """murmur2 of keys seen before, for the same ones come with every poll. A few MB at most."""

    def __init__(self, murmur2: Callable[[bytes], int], capacity: int = _REMEMBERED_HASHES) -> None:
        self._murmur2 = murmur2
        self._capacity = capacity
        self._known: dict[bytes, int] = {}

    def __call__(self, key: bytes) -> int:
        known = self._known.get(key)
        if known is not None:
            return known
        computed = self._murmur2(key)
        if len(key) <= _REMEMBERED_KEY_BYTES:
            if len(self._known) >= self._capacity:
                self._known.clear()
            self._known[key] = computed
        return computed


def lanes(
    records: Iterable[Record], partitions: Iterable[int], pick: Callable[[int], int], murmur2: Callable[[bytes], int]
) -> dict[int, deque[Record]]:
    """The records by partition. Those without a key go to one partition, another one for every parcel."""
    numbers = sorted(partitions)
    count = len(numbers)
    keyless = numbers[pick(count)]
    found: dict[int, deque[Record]] = {}
    for record in records:
        key = record.key
        number = keyless if key is None else numbers[partition_index(murmur2(key), count)]
        lane = found.get(number)
        if lane is None:
            lane = found[number] = deque()
        lane.append(record)
    return found


def partition_index(murmur2: int, partitions: int) -> int:
    """Where the default partitioner of every Java client puts a key of that hash (BuiltInPartitioner, toPositive)."""
    return (murmur2 & 0x7FFFFFFF) % partitions


def pack(batch: Batch, lane: Iterable[tuple[Parcel, Record]], timestamp_ms: int, *, keyless: bool = True) -> int:
    """Put records from the front of the lane, which stays as it is, into the batch: how many, until it is full.

    With `keyless` False it ends before the first record that has no key.
    """
    count = 0
    of_parcel: Parcel | None = None
    for parcel, record in lane:
        key = record.key
        if key is None and not keyless:
            break
        if parcel is not of_parcel:
            of_parcel, written = parcel, EventHeaders(source=parcel.source, time=parcel.time)
        headers = written.of(key, record.value)
        if batch.append(timestamp=timestamp_ms, key=key, value=record.value, headers=headers) is None:
            break
        count += 1
    return count
