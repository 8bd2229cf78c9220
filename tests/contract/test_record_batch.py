"""A batch built ahead of its turn is byte for byte what aiokafka makes at the time of sending."""

from __future__ import annotations

from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from producer.record_batch import ZSTD, RecordBatch

RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=9), st.binary(max_size=300) | st.just(b"x" * 900), st.integers(0, 2**41)),
    min_size=1,
    max_size=20,
)


@given(RECORDS, st.integers(1, 4000), st.integers(0, 2**62), st.integers(0, 2**15 - 1), st.integers(0, 2**31 - 1))
def test_it_equals_aiokafkas_own_batch(
    records: list[tuple[bytes | None, bytes, int]], cut_bytes: int, producer_id: int, epoch: int, sequence: int
) -> None:
    ours, theirs = RecordBatch(cut_bytes), BatchBuilder(cut_bytes, ZSTD)
    for key, value, timestamp in records:
        headers = [("ce_id", value[:4])]
        taken = [
            batch.append(timestamp=timestamp, key=key, value=value, headers=headers) is None for batch in (ours, theirs)
        ]
        assert taken[0] == taken[1]
    raw_bytes = theirs.size()
    size = ours.build()
    for batch in (ours, theirs):
        batch._set_producer_state(producer_id, epoch, sequence)
    assert ours._build() == theirs._build()
    assert (size.raw_bytes, size.wire_bytes, size.records) == (raw_bytes, len(theirs._build()), theirs.record_count())
    assert ours.closed()
    assert ours.append(timestamp=0, key=None, value=b"", headers=[]) is None
