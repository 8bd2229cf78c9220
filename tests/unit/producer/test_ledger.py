from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producer.ledger import RECORD_OVERHEAD_BYTES, Delivery, Ledger, Parcel, Record, Waiting


def parcel(*values: bytes, topic: str = "task") -> Parcel:
    return Parcel(source="s", time="t", topic=topic, records=[Record(key=b"k", value=value) for value in values])


def test_what_waits_is_counted_until_its_last_record_is_settled() -> None:
    ledger = Ledger()
    first, second = parcel(b"abc", b"de"), parcel(b"f")
    ledger.take(first, 10.0)
    ledger.take(second, 12.0)
    assert (ledger.unacked_records, ledger.unacked_bytes) == (3, 6 + 3 + 3 * RECORD_OVERHEAD_BYTES)
    assert ledger.waiting("task", 15.0).oldest_seconds == 5.0
    assert ledger.settle(first, first.records[:1]) is None
    assert ledger.waiting("task", 15.0).oldest_seconds == 5.0
    assert ledger.settle(first, first.records[1:], acknowledged=False) == Delivery(
        acknowledged=1, set_aside=(first.records[1],)
    )
    assert ledger.waiting("task", 15.0).oldest_seconds == 3.0
    assert ledger.settle(second, second.records) == Delivery(acknowledged=1)
    assert (ledger.unacked_records, ledger.unacked_bytes) == (0, 0)
    assert ledger.waiting("task", 15.0) == Waiting(records=0, unacked_bytes=0, oldest_seconds=0.0)


def test_each_topic_has_an_account_of_its_own() -> None:
    ledger = Ledger()
    one, other = parcel(b"abc"), parcel(b"de", topic="other")
    ledger.take(one, 10.0)
    ledger.take(other, 12.0)
    assert ledger.waiting("task", 15.0) == Waiting(
        records=1, unacked_bytes=one.records[0].cost_bytes, oldest_seconds=5.0
    )
    assert ledger.waiting("other", 15.0) == Waiting(
        records=1, unacked_bytes=other.records[0].cost_bytes, oldest_seconds=3.0
    )
    assert ledger.waiting("third", 15.0) == Waiting(records=0, unacked_bytes=0, oldest_seconds=0.0)
    ledger.settle(one, one.records)
    assert ledger.unacked_bytes == other.records[0].cost_bytes


@given(
    st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=8), st.randoms(use_true_random=False)
)
def test_settled_in_any_order_nothing_is_left(contents: list[list[bytes]], dice: object) -> None:
    ledger = Ledger()
    parcels = [parcel(*values) for values in contents]
    pending = [(each, record) for each in parcels for record in each.records]
    for each in parcels:
        ledger.take(each, 0.0)
    dice.shuffle(pending)  # type: ignore[attr-defined]
    settled = [ledger.settle(each, [record]) for each, record in pending]
    assert sorted(done.acknowledged for done in settled if done is not None) == sorted(map(len, contents))
    assert (ledger.unacked_records, ledger.unacked_bytes) == (0, 0)
