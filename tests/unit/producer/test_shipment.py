"""Whatever happens on the way, each record is settled once and those of a partition keep their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from producer.ledger import Delivery, Ledger, Parcel, Record
from producer.packer import lanes
from producer.shipment import Bundle, Shipment

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Iterable


def route(records: Iterable[Record], partitions: Collection[int]) -> dict[int, deque[Record]]:
    return lanes(records, partitions, lambda count: count - 1, murmur2)


def parcel(*records: Record) -> Parcel:
    return Parcel(source="s", time="t", topic="task", records=records)


class Voyage(RuleBasedStateMachine):
    """The feed's moves in any order, beside a plain account of what must have happened."""

    def __init__(self) -> None:
        super().__init__()
        self.shipment = Shipment()
        self.ledger = Ledger()
        self.count = 0
        self.partitions = 0
        self.clients = 0  # each loss makes another one
        self.departed: list[tuple[int, Bundle]] = []  # with the client that has it; the lost ones' too
        self.assigned: dict[int, list[int]] = {}  # by partition: in the order of assignment
        self.settled: list[int] = []
        self.parcels: dict[Parcel, Delivery | None] = {}

    @initialize(partitions=st.integers(1, 4))
    def begin(self, partitions: int) -> None:
        self.partitions = partitions

    @rule(keys=st.lists(st.none() | st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=1, max_size=8))
    def load(self, keys: list[bytes | None]) -> None:
        records = []
        for key in keys:
            records.append(Record(key=key, value=b"%d" % self.count))
            self.count += 1
        made = parcel(*records)
        self.ledger.take(made, 0.0)
        self.parcels[made] = None
        self.shipment.load(made)

    @rule()
    def assign(self) -> None:
        self.shipment.assign(range(self.partitions), self.noted)

    def noted(self, records: Iterable[Record], partitions: Collection[int]) -> dict[int, deque[Record]]:
        found = route(records, partitions)
        for partition, lane in found.items():
            self.assigned.setdefault(partition, []).extend(int(record.value) for record in lane)
        return found

    @rule(more=st.integers(1, 2))
    def grow(self, more: int) -> None:
        self.partitions += more

    @precondition(lambda self: self.shipment.loaded())
    @rule(data=st.data(), handed_over=st.booleans())
    def depart(self, data: st.DataObject, *, handed_over: bool) -> None:
        partition = data.draw(st.sampled_from(self.shipment.loaded()))
        count = data.draw(st.integers(1, len(self.shipment.lane(partition))))
        gone = {*self.settled, *(number for each in self.under_way(partition) for number in values(each.items))}
        bundle = self.shipment.depart(partition, count, raw_bytes=count + 100)
        # The first that are neither settled nor on their way, in the order of assignment, without a gap.
        assert values(bundle.items) == [number for number in self.assigned[partition] if number not in gone][:count]
        bundle.handed_over = handed_over
        self.departed.append((self.clients, bundle))

    @precondition(lambda self: self.departed)
    @rule(data=st.data(), acknowledged=st.booleans())
    def answer(self, data: st.DataObject, *, acknowledged: bool) -> None:
        """Of any bundle, a lost client's too, and more than once; a client's own come in order."""
        client, bundle = data.draw(st.sampled_from(self.departed))
        earlier = [
            other
            for its, other in self.departed
            if its == client and other.partition == bundle.partition and other in self.under_way(bundle.partition)
        ]
        if earlier and earlier[0] is not bundle:
            return
        if self.shipment.settle(bundle):
            assert client == self.clients
            for of_parcel, records in bundle.by_parcel():
                self.settled += [int(record.value) for record in records]
                delivery = self.ledger.settle(of_parcel, records, acknowledged=acknowledged)
                if delivery is not None:
                    assert self.parcels[of_parcel] is None
                    self.parcels[of_parcel] = delivery

    @precondition(lambda self: any(its == self.clients for its, _ in self.departed))
    @rule(data=st.data())
    def return_to_lane(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted({b.partition for its, b in self.departed if its == self.clients})))
        if under_way := self.under_way(partition):
            self.shipment.return_to_lane(under_way[-1])

    @rule()
    def lose(self) -> None:
        under_way = [
            bundle for partition in self.shipment.partitions_under_way() for bundle in self.under_way(partition)
        ]
        expected = sum(len(bundle.items) for bundle in under_way if bundle.handed_over)
        assert self.shipment.take_back() == expected
        self.clients += 1

    def under_way(self, partition: int) -> list[Bundle]:
        return list(self.shipment._under_way.get(partition, []))

    @invariant()
    def nothing_is_lost_nor_in_two_places(self) -> None:
        waiting = [int(record.value) for each in self.shipment._unassigned for record in each.records]
        in_lanes = [int(record.value) for lane in self.shipment._lanes.values() for _, record in lane]
        travelling = [
            int(record.value)
            for bundles in self.shipment._under_way.values()
            for bundle in bundles
            for _, record in bundle.items
        ]
        assert sorted(waiting + in_lanes + travelling + self.settled) == list(range(self.count))
        assert self.ledger.unacked_records == self.count - len(self.settled)
        assert self.shipment.under_way_bytes == sum(
            bundle.raw_bytes for bundles in self.shipment._under_way.values() for bundle in bundles
        )
        assert self.shipment.is_empty() == (len(self.settled) == self.count)

    def teardown(self) -> None:
        """Left alone, everything arrives, and each parcel learns its fate once."""
        self.shipment.assign(range(self.partitions), self.noted)
        self.shipment.take_back()
        for partition in self.shipment.loaded():
            bundle = self.shipment.depart(partition, len(self.shipment.lane(partition)))
            assert self.shipment.settle(bundle)
            for of_parcel, records in bundle.by_parcel():
                delivery = self.ledger.settle(of_parcel, records)
                if delivery is not None:
                    self.parcels[of_parcel] = delivery
        assert self.shipment.is_empty()
        assert self.ledger.unacked_records == self.ledger.unacked_bytes == 0
        for made, delivery in self.parcels.items():
            assert delivery is not None
            assert delivery.acknowledged + len(delivery.set_aside) == len(made.records)


TestVoyage = Voyage.TestCase


def records(*values: int, key: bytes | None = b"k") -> list[Record]:
    return [Record(key=key, value=b"%d" % value) for value in values]


def values(items: Iterable[tuple[Parcel, Record]]) -> list[int]:
    return [int(record.value) for _, record in items]


def test_what_a_lost_client_had_goes_before_what_waits_in_the_old_order() -> None:
    shipment = Shipment()
    shipment.load(parcel(*records(1, 2, 3, 4, 5)))
    shipment.assign([0], route)
    first, second = shipment.depart(0, 2), shipment.depart(0, 1)
    first.handed_over = second.handed_over = True
    assert shipment.settle(first)
    third = shipment.depart(0, 1)
    assert shipment.take_back() == 1  # the second: the third had not been handed over
    assert values(shipment.lane(0)) == [3, 4, 5]
    assert not any(shipment.settle(bundle) for bundle in (first, second, third))


def test_records_of_a_partition_that_is_gone_go_to_the_others_before_those_that_came_later() -> None:
    shipment = Shipment()
    shipment.load(parcel(*records(1, 2, key=b"abc")))
    shipment.assign(range(7), route)
    (old,) = shipment.loaded()
    assert old != 0
    shipment.load(parcel(*records(3, key=b"abc")))
    shipment.assign([0], route)
    assert shipment.loaded() == [0]
    assert values(shipment.lane(0)) == [1, 2, 3]


def test_records_stay_where_they_are_when_partitions_come() -> None:
    shipment = Shipment()
    shipment.load(parcel(*records(*range(9), key=b"abc")))
    shipment.assign([0], route)
    shipment.assign(range(7), route)
    assert values(shipment.lane(0)) == list(range(9))
