"""What is on its way to one topic, until each record is acknowledged or set aside.

Owns: the order of what waits, in a lane for each partition; which records travel in which batch; taking back what a
lost client had. Does not own: which partition (`packer`), what fits (`limits`), sending (`feed`), the account of bytes
and age (`ledger`). Pure.

Invariants: every record that was loaded is in exactly one place: not assigned yet, in a lane, in one bundle under way,
or settled; a settled one never comes back. Of one partition the records leave in the order in which they were loaded,
also again after a loss. A record that has a lane stays in it while the topic has that partition, whatever partitions
come to the topic meanwhile.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from producer.ledger import Parcel, Record

    Route = Callable[[Iterable[Record], Collection[int]], Mapping[int, Iterable[Record]]]
    Item = tuple[Parcel, Record]


@dataclass(slots=True, eq=False)
class Bundle:
    """Records of one partition that travel in one batch of `raw_bytes`. `handed_over`: the client may have sent it."""

    partition: int
    items: list[Item]
    raw_bytes: int = 0
    handed_over: bool = False

    def by_parcel(self) -> Iterator[tuple[Parcel, list[Record]]]:
        """Its records, in order, those of one parcel together."""
        return _by_parcel(self.items)


@dataclass(slots=True)
class Shipment:
    """Of one topic. `under_way_bytes` are those of its bundles under way."""

    under_way_bytes: int = 0
    _unassigned: deque[Parcel] = field(default_factory=deque)
    _lanes: dict[int, deque[Item]] = field(default_factory=dict)
    _under_way: dict[int, list[Bundle]] = field(default_factory=dict)  # by partition, in the order they left

    def load(self, parcel: Parcel) -> None:
        """Take a parcel in, behind all others."""
        self._unassigned.append(parcel)

    def assign(self, partitions: Collection[int], route: Route) -> None:
        """Give each record a lane. What waits for a partition that the topic has not (any more) gets another one."""
        for gone in sorted(self._lanes.keys() - set(partitions)):
            items = list(self._lanes[gone])
            self._lanes[gone].clear()
            for parcel, records in _by_parcel(items):
                self._spread(parcel, records, partitions, route)
        while self._unassigned:
            parcel = self._unassigned[0]
            self._spread(parcel, parcel.records, partitions, route)
            self._unassigned.popleft()

    def loaded(self) -> list[int]:
        """The partitions with records that are not under way."""
        return [partition for partition, lane in self._lanes.items() if lane]

    def lane(self, partition: int) -> deque[Item]:
        """What waits for it, to be looked at only."""
        return self._lanes.setdefault(partition, deque())

    def depart(self, partition: int, count: int, raw_bytes: int = 0) -> Bundle:
        """The first records of the lane are under way, in one batch."""
        lane = self._lanes[partition]
        bundle = Bundle(partition=partition, items=list(islice(lane, count)), raw_bytes=raw_bytes)
        for _ in bundle.items:
            lane.popleft()
        self._under_way.setdefault(partition, []).append(bundle)
        self.under_way_bytes += raw_bytes
        return bundle

    def settle(self, bundle: Bundle) -> bool:
        """Its records are acknowledged or set aside, for good. False when it is not under way (any more)."""
        bundles = self._under_way.get(bundle.partition, [])
        if bundle not in bundles:
            return False
        bundles.remove(bundle)
        self.under_way_bytes -= bundle.raw_bytes
        return True

    def return_to_lane(self, bundle: Bundle) -> None:
        """The bundle that left last for its partition did not leave after all."""
        last = self._under_way[bundle.partition].pop()
        if last is not bundle:
            message = f"partition {bundle.partition}: only the last bundle can be returned"
            raise ValueError(message)
        self.lane(bundle.partition).extendleft(reversed(bundle.items))
        self.under_way_bytes -= bundle.raw_bytes

    def take_back(self) -> int:
        """The client is lost: all that is under way waits again, before what waits. How many had been handed over."""
        resent = 0
        for partition, bundles in self._under_way.items():
            for bundle in reversed(bundles):
                self.lane(partition).extendleft(reversed(bundle.items))
                resent += len(bundle.items) if bundle.handed_over else 0
        self._under_way.clear()
        self.under_way_bytes = 0
        return resent

    def partitions_under_way(self) -> set[int]:
        """Where something is under way."""
        return {partition for partition, bundles in self._under_way.items() if bundles}

    def is_empty(self) -> bool:
        """Everything that was loaded is settled."""
        return not self._unassigned and not self.loaded() and not self.partitions_under_way()

    def is_clear(self, partition: int) -> bool:
        """Nothing waits for this partition or is under way to it."""
        return not self._lanes.get(partition) and not self._under_way.get(partition)

    def _spread(self, parcel: Parcel, records: Iterable[Record], partitions: Collection[int], route: Route) -> None:
        for partition, found in route(records, partitions).items():
            self.lane(partition).extend([(parcel, record) for record in found])


def _by_parcel(items: Iterable[Item]) -> Iterator[tuple[Parcel, list[Record]]]:
    for _, group in groupby(items, key=_parcel_id):
        found = list(group)
        yield found[0][0], [record for _, record in found]


def _parcel_id(item: Item) -> int:
    return id(item[0])
