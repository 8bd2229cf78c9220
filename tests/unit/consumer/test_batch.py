"""The open batch: which records of a wire batch still belong to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from consumer import batch as batches_
from consumer.batch import CALENDAR_MIN_AGE_SECONDS, CALENDAR_MIN_SHARE, Admission, Batch, Limits
from tests.fakes.wire import FakeWire, record, run, wire, wire_of

HOUR = 3_600_000


def admit(batch: Batch, wire: FakeWire, begin: int, *, limits: Limits, now: float) -> Admission:
    """The same whether the run keeps values or lines (which these values are: they have no line breaks)."""
    kept = batches_.admit(batch, run(wire), begin, limits=limits, now=now)
    if None not in wire.values:
        lines = run(wire, lines_of=lambda values: b"".join(b"%s\n" % value for value in values))
        assert batches_.admit(batch, lines, begin, limits=limits, now=now) == kept
    return kept


def bucket(timestamp: int) -> int:
    return timestamp // HOUR


WIDE = Limits(records=1000, bytes=1_000_000, seconds=60.0, bucket=bucket)


@st.composite
def wires(draw: st.DrawFn) -> list[FakeWire]:
    offset, result = 0, []
    for _ in range(draw(st.integers(1, 5))):
        records = []
        for _ in range(draw(st.integers(1, 6))):
            offset += draw(st.integers(0, 3))
            size = draw(st.none() | st.integers(0, 30))
            hour = draw(st.integers(0, 2))
            records.append(record(offset, None if size is None else b"x" * size, timestamp=hour * HOUR + offset))
            offset += 1
        header = draw(st.none() | st.integers(0, 4 * HOUR))
        result.append(FakeWire(records=tuple(records), next_offset=offset, header_max_timestamp=header))
    return result


LIMITS = st.builds(
    Limits,
    records=st.integers(1, 20),
    bytes=st.integers(1, 60),
    seconds=st.just(60.0),
    bucket=st.sampled_from((bucket, lambda _: 0)),
)


def cut(batches: list[FakeWire], limits: Limits, pauses: list[float]) -> list[list[tuple[int, int, int]]]:
    """Sealed batches as (offset, bytes, timestamp) of their records, checked on the way against what the batch says."""
    now, sealed, taken, header_word = 0.0, [], [], 0
    batch = Batch(start=0)
    for one, pause in zip(batches, pauses, strict=True):
        now += pause
        begin = 0
        header_word = max(header_word, one.header_max_timestamp or 0)
        while begin < len(one.values):
            admission = admit(batch, one, begin, limits=limits, now=now)
            assert begin <= admission.end <= len(one.values)
            grown = [(r.offset, len(r.value or b""), r.timestamp) for r in one.records[begin : admission.end]]
            assert admission.size == sum(size for _, size, _ in grown)
            taken += grown
            batch, begin = admission.batch, admission.end
            check(batch, taken, header_word)
            assert admission.full or begin == len(one.values)
            if admission.full:
                assert taken, "an empty batch is never full"
                sealed.append(taken)
                batch, taken = Batch(start=taken[-1][0] + 1), []
    return [*sealed, taken]


def check(batch: Batch, taken: list[tuple[int, int, int]], header_word: int) -> None:
    assert batch.records == len(taken)
    assert batch.bytes == sum(size for _, size, _ in taken)
    if taken:
        assert batch.first_timestamp == taken[0][2]
        exact = max(stamp for _, _, stamp in taken)
        assert exact <= batch.max_timestamp <= max(exact, header_word)


@given(wires(), LIMITS, st.data())
def test_every_record_is_in_one_batch_in_order_and_no_limit_is_exceeded(
    batches: list[FakeWire], limits: Limits, data: st.DataObject
) -> None:
    pauses = [data.draw(st.sampled_from((0.0, 1.0, 6.0))) for _ in batches]
    sealed = cut(batches, limits, pauses)
    assert [one[0] for batch in sealed for one in batch] == [r.offset for one in batches for r in one.records]
    for batch in sealed:
        assert len(batch) <= limits.records
        assert sum(size for _, size, _ in batch) <= limits.bytes or len(batch) == 1  # a giant goes alone


@given(wires(), LIMITS)
def test_without_calendar_a_batch_ends_only_where_the_next_record_does_not_fit(
    batches: list[FakeWire], limits: Limits
) -> None:
    sealed = cut(batches, replace(limits, bucket=lambda _: 0), [0.0] * len(batches))
    for batch, following in pairwise(sealed):
        size = sum(one[1] for one in batch)
        reached = len(batch) == limits.records or size >= limits.bytes
        assert reached or size + following[0][1] > limits.bytes


def exact(values: list[FakeWire]) -> Batch:
    batch = Batch(start=0)
    for one in values:
        batch = admit(batch, one, 0, limits=WIDE, now=0.0).batch
    return batch


def test_the_largest_timestamp_is_kept_wherever_it_stands() -> None:
    assert exact([wire(record(0, timestamp=5), record(1, timestamp=9), record(2, timestamp=7))]).max_timestamp == 9
    assert exact([wire_of([b"1"], timestamp=9), wire_of([b"1"], start=1, timestamp=4)]).max_timestamp == 9
    assert exact([wire_of([b"1"], timestamp=-1)]).max_timestamp == -1


def test_the_largest_timestamp_of_a_part_is_that_parts() -> None:
    one = wire(record(0, timestamp=1), record(1, timestamp=2), record(2, timestamp=9))
    assert admit(Batch(start=0), one, 0, limits=replace(WIDE, records=2), now=0.0).batch.max_timestamp == 2
    assert admit(Batch(start=1), one, 1, limits=replace(WIDE, records=1), now=0.0).batch.max_timestamp == 2


def test_an_exact_fit_is_full_and_takes_no_more() -> None:
    one = wire_of([b"xx", b"xx", b"xx"])
    admission = admit(Batch(start=0), one, 0, limits=replace(WIDE, bytes=4), now=0.0)
    assert (admission.end, admission.size, admission.full) == (2, 4, True)


def test_a_giant_behind_others_waits_and_then_goes_alone() -> None:
    one = wire_of([b"x", b"x" * 100, b"x"])
    limits = replace(WIDE, bytes=10)
    first = admit(Batch(start=0), one, 0, limits=limits, now=0.0)
    assert (first.end, first.full) == (1, True)
    second = admit(Batch(start=1), one, 1, limits=limits, now=0.0)
    assert (second.end, second.size, second.full) == (2, 100, True)


def test_tombstones_and_empty_values_count_as_records_without_bytes() -> None:
    admission = admit(Batch(start=0), wire_of([None, b"", None]), 0, limits=replace(WIDE, bytes=1), now=0.0)
    assert (admission.end, admission.size, admission.full) == (3, 0, False)


def test_the_time_of_a_batch_begins_with_its_first_record() -> None:
    assert Batch(start=0).due_at(WIDE) is None
    batch = admit(Batch(start=0), wire_of([b"1"]), 0, limits=WIDE, now=7.0).batch
    later = admit(batch, wire_of([b"1"], start=1), 0, limits=WIDE, now=20.0).batch
    assert later.due_at(WIDE) == 67.0


def grown(*, at: float = 0.0, count: int = 1, limits: Limits = WIDE) -> Batch:
    return admit(Batch(start=0), wire_of([b"1"] * count, timestamp=HOUR), 0, limits=limits, now=at).batch


def test_a_later_hour_does_not_cut_a_young_and_small_batch() -> None:
    admission = admit(grown(), wire_of([b"1"], start=1, timestamp=2 * HOUR), 0, limits=WIDE, now=4.9)
    assert (admission.end, admission.full) == (1, False)


def test_a_later_hour_cuts_a_batch_of_5_seconds() -> None:
    later = wire(record(1, timestamp=HOUR), record(2, timestamp=2 * HOUR), record(3, timestamp=HOUR))
    admission = admit(grown(), later, 0, limits=WIDE, now=CALENDAR_MIN_AGE_SECONDS)
    assert (admission.end, admission.size, admission.full) == (1, 2, True)
    at_once = admit(grown(), wire_of([b"1"], start=1, timestamp=2 * HOUR), 0, limits=WIDE, now=5.0)
    assert (at_once.end, at_once.full) == (0, True)


def test_a_later_hour_cuts_a_batch_that_holds_a_sixteenth_of_a_limit() -> None:
    later = wire_of([b"1"], start=99, timestamp=2 * HOUR)
    by_records = replace(WIDE, records=160)
    assert not admit(grown(count=9, limits=by_records), later, 0, limits=by_records, now=0.0).full
    assert admit(grown(count=10, limits=by_records), later, 0, limits=by_records, now=0.0).full
    by_bytes = replace(WIDE, bytes=160)
    assert not admit(grown(count=9, limits=by_bytes), later, 0, limits=by_bytes, now=0.0).full
    assert admit(grown(count=10, limits=by_bytes), later, 0, limits=by_bytes, now=0.0).full


def test_the_sixteenth_counts_within_one_wire_batch_too() -> None:
    mixed = wire(*(record(at, b"1", timestamp=HOUR * (2 if at % 2 else 1)) for at in range(100)))
    admission = admit(Batch(start=0), mixed, 0, limits=replace(WIDE, records=160), now=0.0)
    assert (admission.end, admission.full) == (11, True)  # the first of the later hour from the tenth record on


def test_an_earlier_hour_never_cuts() -> None:
    stray = wire_of([b"1"], start=1, timestamp=0)
    admission = admit(grown(count=500), stray, 0, limits=WIDE, now=50.0)
    assert (admission.end, admission.full) == (1, False)


def test_a_calendar_without_units_never_cuts() -> None:
    limits = replace(WIDE, bucket=lambda _: 0)
    admission = admit(grown(limits=limits), wire_of([b"1"], start=1, timestamp=9 * HOUR), 0, limits=limits, now=50.0)
    assert (admission.end, admission.full) == (1, False)


@given(
    hours=st.lists(st.integers(0, 3), min_size=1, max_size=400),
    limit=st.integers(1, 100),
    pause=st.sampled_from((0.0, 0.1, 1.0, 7.0)),
)
def test_interleaved_hours_make_no_storm_of_objects(hours: list[int], limit: int, pause: float) -> None:
    """Each cut by the calendar costs a sixteenth of the limit in records, or 5 seconds."""
    batches = [wire_of([b"x"], start=at, timestamp=hour * HOUR) for at, hour in enumerate(hours)]
    sealed = cut(batches, replace(WIDE, records=limit), [pause] * len(batches))
    share = -(-limit // CALENDAR_MIN_SHARE)
    assert len(sealed) <= len(hours) / share + len(hours) * pause / CALENDAR_MIN_AGE_SECONDS + 1
