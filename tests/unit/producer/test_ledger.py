from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producer.ledger import RECORD_OVERHEAD_BYTES, Delivery, Ledger, Parcel, Record


def parcel(*values: bytes) -> Parcel:
    return Parcel(source="s", time="t", topic="task", records=[Record(key=b"k", value=value) for value in values])


def test_what_waits_is_counted_until_its_last_record_is_settled() -> None:
    ledger = Ledger()
    first, second = parcel(b"abc", b"de"), parcel(b"f")
    ledger.take(first, 10.0)
    ledger.take(second, 12.0)
    assert (ledger.unacked_records, ledger.unacked_bytes) == (3, 6 + 3 + 3 * RECORD_OVERHEAD_BYTES)
    assert ledger.oldest_seconds(15.0) == 5.0
    assert ledger.settle(first, first.records[:1]) is None
    assert ledger.oldest_seconds(15.0) == 5.0
    assert ledger.settle(first, first.records[1:], acknowledged=False) == Delivery(
        acknowledged=1, set_aside=(first.records[1],)
    )
    assert ledger.oldest_seconds(15.0) == 3.0
    assert ledger.settle(second, second.records) == Delivery(acknowledged=1)
    assert (ledger.unacked_records, ledger.unacked_bytes, ledger.oldest_seconds(15.0)) == (0, 0, 0.0)


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
