"""The protocol of one partition, sentence by sentence of design §6, with literal times and offsets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from consumer import chain, events
from consumer.batch import Limits
from consumer.chain import Phase
from consumer.keys import KeyTemplate
from consumer.ports import Committed, Failure, Found, LogRange, OutOfRange, PutAnswer
from shared.schemas import Layout, ObjectMetadata, sign_offset
from tests.fakes.wire import FakeWire, read_apart, record, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

A = TypeVar("A", bound=events.Action)

OURS = "c0ffee"
HOUR_MS = 3_600_000
KEYS = KeyTemplate("{dt}/{hour}/{partition}-{start}.{ext}", prefix="", topic="task", ext="jsonl.gz")
PARTITION = 3
LAYOUT = Layout(
    version=1,
    chain_id=OURS,
    topic="task",
    topic_id=None,
    cluster_id=None,
    template=KEYS.template,
    ext=KEYS.ext,
    format="value",
    compression="gzip",
    origins={str(PARTITION): 10},
)
RULES = chain.Rules(
    layout=LAYOUT,
    keys=KEYS,
    limits=Limits(records=3, bytes=1000, seconds=60.0, bucket=KEYS.bucket),
    writer="me",
    skip_loss=False,
    loss_wait_seconds=165.0,
    compare_timestamps=True,
)
SKIP = replace(RULES, skip_loss=True)


class Seat:
    """Where the driver sits: it feeds events and remembers all actions."""

    def __init__(self, rules: chain.Rules = RULES) -> None:
        self.rules = rules
        self.now = 100.0
        self.chain, actions = chain.assigned(PARTITION, epoch=5)
        self.all: list[events.Action] = list(actions)
        self._last: Sequence[events.Action] = actions

    def last(self) -> Sequence[events.Action]:
        """What the last event brought."""
        return self._last

    def feed(self, event: events.Event) -> Sequence[events.Action]:
        self.chain, self._last = chain.step(self.chain, event, rules=self.rules, now=self.now)
        self.all += self._last
        return self._last

    def the(self, kind: type[A]) -> A:
        """The one action of the kind that the last event brought."""
        (found,) = [action for action in self.last() if isinstance(action, kind)]
        return found

    def none(self, *kinds: type[events.Action]) -> bool:
        return not any(isinstance(action, kinds) for action in self.last())

    def located(
        self, committed: Committed | None, *, start: int = 0, end: int = 1000, mismatch: str | None = None
    ) -> None:
        log = LogRange(start=start, high_watermark=end)
        self.feed(events.Located(epoch=self.chain.epoch, committed=committed, log=log, mismatch=mismatch))

    def recovered(self, found: Found | None) -> None:
        self.feed(events.Recovered(epoch=self.chain.epoch, found=found))

    def polled(self, *batches: FakeWire, start: int | None = None, end: int | None = None) -> None:
        start = self.chain.fetch_next if start is None else start
        if end is None:
            end = batches[-1].next_offset
        self.feed(events.Polled(item=read_apart(PARTITION, start, end, batches)))

    def out_of_range(self, offset: int) -> None:
        self.feed(events.Polled(item=OutOfRange(partition=PARTITION, offset=offset)))

    def head(self, found: Found | None = None) -> None:
        self.feed(events.HeadAnswered(epoch=self.chain.epoch, found=found))

    def finish(self, *, quarantine: bool = False) -> None:
        self.feed(events.Finished(epoch=self.chain.epoch, quarantine=quarantine))

    def put(self, answer: PutAnswer | Failure, reason: str = "") -> None:
        self.feed(events.PutAnswered(epoch=self.chain.epoch, answer=answer, reason=reason))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.feed(events.Tick())


def signed(offset: int, by: str = OURS) -> Committed:
    return Committed(offset=offset, metadata=sign_offset(by, offset))


def run_of(*offsets: int, hour: int = 1, next_offset: int | None = None) -> FakeWire:
    return wire(*(record(offset, b"x", timestamp=hour * HOUR_MS) for offset in offsets), next_offset=next_offset)


def key(start: int, hour: int = 1) -> str:
    return KEYS.render(partition=PARTITION, start=start, timestamp=hour * HOUR_MS)


def stored(start: int, end: int, *, hour: int = 1, at: str | None = None, **changes: str) -> Found:
    metadata = ObjectMetadata(
        chain_id=OURS,
        topic="task",
        partition=PARTITION,
        start_offset=start,
        next_offset=end,
        record_count=1,
        quarantined_count=0,
        first_timestamp=hour * HOUR_MS,
        max_timestamp=hour * HOUR_MS,
        sha256="ab",
        writer="other",
    ).encode()
    metadata.update({name.replace("_", "-"): text for name, text in changes.items()})
    return Found(key=key(start, hour) if at is None else at, size=1, metadata=metadata)


def positioned(offset: int = 10, rules: chain.Rules = RULES) -> Seat:
    seat = Seat(rules)
    seat.located(signed(offset))
    return seat


def running(*offsets: int, rules: chain.Rules = RULES) -> Seat:
    """Chain's end at the first offset, probed, the records taken."""
    seat = positioned(offsets[0], rules)
    seat.polled(run_of(*offsets))
    seat.head(None)
    return seat


def putting(*offsets: int) -> Seat:
    """A full chunk of three whose put is under way, what is beyond them in the open batch."""
    seat = running(*offsets)
    seat.finish()
    assert seat.the(events.Put).chunk.start == offsets[0]
    return seat


# ---- 1. Assigned ----------------------------------------------------------------------------------------------------


def test_assigned_asks_for_the_committed_offset_first() -> None:
    seat = Seat()
    assert seat.last() == (events.Locate(epoch=5),)
    assert not seat.chain.wants_records


def test_another_topic_or_cluster_stalls() -> None:
    seat = Seat()
    seat.located(signed(10), mismatch="topic id is x, the layout says y")
    assert seat.the(events.Stalled).reason == "topic id is x, the layout says y"
    assert seat.none(events.Seek, events.Commit, events.Recover)


def test_an_offset_signed_by_this_chain_and_not_below_the_logs_start_is_the_chains_end() -> None:
    seat = Seat()
    seat.located(signed(40), start=40)
    assert seat.last() == (events.Seek(offset=40),)
    assert (seat.chain.phase, seat.chain.position, seat.chain.fetch_next) == (Phase.POSITIONED, 40, 40)


def test_an_offset_signed_by_another_chain_stalls() -> None:
    seat = Seat()
    seat.located(signed(40, by="other"))
    assert "signed by chain other" in seat.the(events.Stalled).reason
    assert seat.none(events.Seek, events.Commit, events.Recover)


@pytest.mark.parametrize(
    "committed",
    [None, Committed(offset=40, metadata=""), Committed(offset=41, metadata=sign_offset(OURS, 40)), signed(19)],
)
def test_otherwise_it_is_recovered_from_the_bucket(committed: Committed | None) -> None:
    seat = Seat()
    seat.located(committed, start=20)
    assert seat.last() == (events.Recover(epoch=5, enough=20),)


def test_a_recovered_end_is_the_next_offset_of_the_highest_start_and_is_committed() -> None:
    seat = Seat()
    seat.located(None)
    seat.recovered(stored(30, 40))
    assert seat.last() == (events.Commit(offset=40), events.Seek(offset=40))


def test_without_an_object_the_chain_begins_at_its_origin() -> None:
    seat = Seat()
    seat.located(None)
    seat.recovered(None)
    assert seat.last() == (events.Commit(offset=10), events.Seek(offset=10))


def test_a_partition_that_the_layout_does_not_list_begins_at_0() -> None:
    seat = Seat(replace(RULES, layout=replace_origins({})))
    seat.located(None)
    seat.recovered(None)
    assert seat.the(events.Seek).offset == 0


def replace_origins(origins: dict[str, int]) -> Layout:
    return Layout.decode(
        LAYOUT.encode().replace(b'"3": 10', ",".join(f'"{p}": {o}' for p, o in origins.items()).encode())
    )


def test_an_unsigned_offset_is_ignored_with_a_warning_that_names_both() -> None:
    seat = Seat()
    seat.located(Committed(offset=77, metadata=""))
    seat.recovered(stored(30, 40))
    assert seat.the(events.Unsigned) == events.Unsigned(committed=77, recovered=40)
    assert seat.the(events.Seek).offset == 40


def test_no_warning_when_there_was_no_offset_or_one_of_ours() -> None:
    for committed in (None, signed(5)):
        seat = Seat()
        seat.located(committed, start=20)
        seat.recovered(stored(30, 40))
        assert seat.none(events.Unsigned)


@pytest.mark.parametrize(
    "found",
    [
        stored(30, 40, chain_id="other"),
        stored(30, 40, topic="other"),
        stored(30, 40, partition="4"),
        stored(30, 40, start_offset="31"),
        stored(30, 40, next_offset="30"),
        stored(30, 40, next_offset="x"),
        Found(key=key(30), size=1, metadata={}),
        stored(30, 40, at="1970-01-01/01/03-30.jsonl.gz"),
    ],
)
def test_a_recovered_object_that_is_not_ours_stalls(found: Found) -> None:
    seat = Seat()
    seat.located(None)
    seat.recovered(found)
    assert seat.the(events.Stalled).key == found.key
    assert seat.none(events.Commit, events.Seek)


def test_whatever_was_fetched_before_the_seek_is_dropped() -> None:
    seat = Seat()
    seat.polled(run_of(10, 11), start=10)
    assert seat.last() == ()
    seat.located(signed(10))
    assert seat.chain.held == ()
    seat.polled(run_of(20, 21), start=20)  # drained before the seek
    assert seat.last() == (events.Seek(offset=10),)
    assert seat.chain.held == ()


def test_an_end_above_the_high_watermark_is_asked_again_for_60_seconds_and_then_stalls_for_good() -> None:
    seat = Seat()
    for _ in range(12):
        seat.located(signed(50), end=49)
        assert seat.the(events.Waiting)
        assert seat.none(events.Stalled, events.Seek)
        seat.tick(5.0)
        assert seat.the(events.Locate)
    seat.located(signed(50), end=49)
    assert "the chain ends at 50, the log at 49" in seat.the(events.Stalled).reason
    assert seat.chain.due_at(RULES.limits) is None
    seat.tick(3600.0)
    assert seat.last() == ()


def test_a_leader_that_catches_up_heals_it() -> None:
    seat = Seat()
    seat.located(signed(50), end=49)
    seat.tick(5.0)
    seat.located(signed(50), end=50)
    assert seat.last() == (events.Seek(offset=50),)


def test_the_60_seconds_count_anew_after_another_trouble() -> None:
    seat = Seat()
    seat.located(signed(50), end=49)
    seat.tick(5.0)
    seat.located(signed(50, by="other"), end=49)
    for _ in range(4):
        seat.tick(30.0)
        seat.located(signed(50, by="other"), end=49)
    seat.tick(30.0)
    seat.located(signed(50), end=49)
    assert seat.none(events.Stalled)


def test_an_end_below_the_logs_start_even_after_recovery_stalls_by_default() -> None:
    seat = Seat()
    seat.located(signed(15), start=20)
    assert seat.the(events.Recover)
    seat.recovered(stored(12, 15))
    assert "5 offsets are gone" in seat.the(events.Stalled).reason
    assert seat.none(events.Seek)


def lost_beginning(seat: Seat) -> None:
    """The end is 15, the log starts at 20, and the wait is over."""
    seat.located(signed(15), start=20)
    seat.recovered(stored(12, 15))
    assert seat.the(events.Waiting)
    assert seat.none(events.Seek)
    seat.tick(164.9)
    assert seat.none(events.Locate)
    seat.tick(0.1)
    seat.located(signed(15), start=20)
    seat.recovered(stored(12, 15))


def test_skip_waits_and_recovers_again_and_then_the_next_chunk_starts_at_the_end_all_the_same() -> None:
    seat = Seat(SKIP)
    lost_beginning(seat)
    assert seat.the(events.Seek).offset == 20
    seat.polled(run_of(20, 21, 22))
    assert seat.the(events.Head).key == key(15)
    seat.head(None)
    chunk = seat.the(events.Seal).chunk
    assert (chunk.start, chunk.next_offset, chunk.lost, chunk.records) == (15, 23, 5, 3)
    seat.finish()
    seat.put(PutAnswer.CREATED)
    assert seat.the(events.Commit).offset == 23
    assert seat.chain.batch.lost == 0


def test_skip_uses_what_another_writer_put_during_the_wait() -> None:
    seat = Seat(SKIP)
    seat.located(signed(15), start=20)
    seat.recovered(stored(12, 15))
    seat.tick(165.0)
    seat.located(signed(15), start=20)
    seat.recovered(stored(15, 25))
    assert seat.the(events.Seek).offset == 25
    assert seat.chain.batch.lost == 0


def test_after_a_loss_timestamps_are_not_compared() -> None:
    seat = Seat(SKIP)
    lost_beginning(seat)
    seat.polled(run_of(20, 21, hour=2))
    seat.head(stored(15, 30, hour=1, at=key(15, 2)))
    assert seat.the(events.Linked).outcome is events.Outcome.ADOPTED


def test_every_loss_has_its_own_wait() -> None:
    seat = Seat(SKIP)
    lost_beginning(seat)
    seat.out_of_range(20)
    seat.located(signed(15), start=30)
    seat.recovered(stored(12, 15))
    assert seat.the(events.Waiting)
    assert seat.none(events.Seek)


def test_out_of_range_later_puts_what_is_open_up_to_the_offset_that_failed_then_locates_anew() -> None:
    seat = running(10, 11)
    seat.polled(end=14)
    seat.out_of_range(14)
    chunk = seat.the(events.Seal).chunk
    assert (chunk.start, chunk.next_offset) == (10, 14)
    assert seat.none(events.Locate)
    assert not seat.chain.wants_records
    seat.finish()
    seat.put(PutAnswer.CREATED)
    assert seat.the(events.Commit).offset == 14
    assert seat.the(events.Locate).epoch == 6


def test_out_of_range_with_nothing_open_locates_at_once() -> None:
    for seat in (positioned(10), running(10, 11, 12)):
        if seat.chain.chunk:
            seat.finish()
            seat.put(PutAnswer.CREATED)
        seat.out_of_range(seat.chain.fetch_next)
        assert seat.the(events.Locate)


def test_out_of_range_while_the_probe_is_under_way_waits_for_its_answer() -> None:
    seat = positioned(10)
    seat.polled(run_of(10, 11))
    seat.out_of_range(12)
    assert seat.last() == ()
    seat.head(None)
    assert (seat.the(events.Seal).chunk.start, seat.the(events.Seal).chunk.next_offset) == (10, 12)


def test_an_out_of_range_of_another_offset_is_stale_and_sets_the_source_right() -> None:
    seat = running(10, 11)
    seat.out_of_range(4)
    assert seat.last() == (events.Seek(offset=12),)
    assert not seat.chain.relocate


# ---- 2. Probe -------------------------------------------------------------------------------------------------------


def test_the_key_is_probed_when_the_first_record_is_known() -> None:
    seat = positioned(10)
    seat.polled(end=12)  # nothing readable in [10, 12)
    assert seat.last() == ()
    seat.polled(run_of(13, 14, hour=7))
    assert seat.last() == (events.Head(epoch=5, key=key(10, 7)),)


def test_absent_goes_on() -> None:
    seat = positioned(10)
    seat.polled(run_of(10, 11))
    seat.head(None)
    assert [type(action) for action in seat.last()] == [events.Append]
    assert seat.chain.phase is Phase.RUNNING


def test_present_is_adopted_and_probed_again() -> None:
    seat = positioned(10)
    seat.polled(run_of(10, 11))
    seat.head(stored(10, 20))
    assert [type(action) for action in seat.last()] == [events.Drop, events.Seek, events.Commit, events.Linked]
    assert (seat.the(events.Seek).offset, seat.the(events.Commit).offset) == (20, 20)
    assert seat.chain.held == ()
    seat.polled(run_of(20))
    assert seat.the(events.Head).key == key(20)


def test_records_that_come_during_the_probe_are_kept() -> None:
    seat = positioned(10)
    seat.polled(run_of(10))
    seat.polled(run_of(11))
    assert not seat.chain.wants_records
    seat.head(None)
    assert [action.run.offset(0) for action in seat.last() if isinstance(action, events.Append)] == [10, 11]


# ---- 3. Seal and put ------------------------------------------------------------------------------------------------


def test_a_batch_is_sealed_at_a_limit_where_the_held_back_record_starts() -> None:
    seat = running(10, 11, 14, 17)
    chunk = seat.the(events.Seal).chunk
    assert (chunk.start, chunk.next_offset, chunk.records, chunk.key) == (10, 17, 3, key(10))
    assert [type(action) for action in seat.last()] == [events.Append, events.Seal, events.Append]


def test_the_key_is_that_of_the_first_record_whatever_comes_after_it() -> None:
    seat = running(10, rules=replace(RULES, limits=replace(RULES.limits, records=100)))
    seat.polled(run_of(11, hour=0))
    seat.polled(run_of(12, hour=2))
    seat.tick(60.0)
    chunk = seat.the(events.Seal).chunk
    assert (chunk.key, chunk.first_timestamp, chunk.max_timestamp) == (key(10), HOUR_MS, 2 * HOUR_MS)


def test_without_a_held_back_record_it_ends_at_the_consumed_position() -> None:
    seat = positioned(10)
    seat.polled(run_of(10, 11, 12), end=19)  # control batches trail
    seat.head(None)
    assert seat.the(events.Seal).chunk.next_offset == 19
    assert seat.chain.batch.start == 19


def test_it_is_sealed_when_its_time_is_over_and_not_before() -> None:
    seat = running(10)
    assert seat.chain.due_at(RULES.limits) == 160.0
    seat.tick(59.9)
    assert seat.last() == ()
    seat.tick(0.1)
    assert seat.the(events.Seal).chunk.next_offset == 11


def test_the_time_of_a_batch_counts_from_the_arrival_of_its_first_record_even_if_it_was_held() -> None:
    seat = running(10, 11, 12)
    seat.now = 110.0
    seat.polled(run_of(13, 14, 15, 16))
    assert seat.chain.full, "one chunk is in flight, the batch behind it is full, the record 16 is held"
    seat.now = 150.0
    seat.finish()
    seat.put(PutAnswer.CREATED)
    assert seat.the(events.Seal).chunk.start == 13
    assert seat.chain.batch.opened_at == 110.0
    assert seat.chain.batch.start == 16


def test_a_batch_without_records_is_never_sealed() -> None:
    seat = running(10, 11, 12)
    seat.finish()
    seat.put(PutAnswer.CREATED)
    seat.polled(end=30)
    assert seat.chain.due_at(RULES.limits) is None
    seat.tick(1000.0)
    assert seat.last() == ()


def test_a_later_hour_seals_a_batch_of_5_seconds() -> None:
    seat = running(10)
    seat.now += 5.0
    seat.polled(run_of(11, hour=2))
    assert seat.the(events.Seal).chunk.next_offset == 11


def test_pressure_seals_what_is_open() -> None:
    seat = running(10)
    seat.feed(events.Pressure())
    assert seat.the(events.Seal).chunk.next_offset == 11


def test_pressure_on_an_empty_partition_does_nothing() -> None:
    for seat in (positioned(10), Seat()):
        seat.feed(events.Pressure())
        assert seat.last() == ()


def test_200_moves_the_end_and_commits_it() -> None:
    seat = putting(10, 11, 12)
    seat.put(PutAnswer.CREATED)
    assert seat.the(events.Commit).offset == 13
    assert seat.the(events.Linked).outcome is events.Outcome.CREATED
    assert seat.chain.position == 13


def test_nothing_is_committed_before_the_put_is_known_to_be_there() -> None:
    seat = putting(10, 11, 12)
    assert not any(isinstance(action, events.Commit) for action in seat.all)
    seat.put(Failure.UNAVAILABLE)
    assert seat.none(events.Commit)
    seat.head(None)
    assert seat.none(events.Commit)


@pytest.mark.parametrize("answer", [*Failure, PutAnswer.EXISTS])
def test_anything_else_asks_head_and_puts_the_same_again_only_after_404(answer: PutAnswer | Failure) -> None:
    seat = putting(10, 11, 12)
    chunk = seat.the(events.Put).chunk
    for attempt in (1, 2, 3):
        seat.put(answer, "why")
        assert seat.last() == (events.Head(epoch=5, key=key(10)),)
        seat.head(None)
        failure = answer if isinstance(answer, Failure) else Failure.CONFLICT
        assert seat.last() == (events.Put(epoch=5, chunk=chunk, attempt=attempt, failure=failure),)


def test_a_retrying_partition_says_why_and_since_when() -> None:
    seat = putting(10, 11, 12)
    seat.put(Failure.UNAVAILABLE, "503 SlowDown")
    seat.now += 9.0
    seat.head(None)
    seat.put(Failure.REFUSED, "403 AccessDenied")
    assert seat.chain.retry == chain.Retry(reason="403 AccessDenied", since=100.0)
    seat.head(None)
    seat.put(PutAnswer.CREATED)
    assert seat.chain.retry is None


def test_a_store_that_contradicts_itself_shows_as_retrying() -> None:
    seat = putting(10, 11, 12)
    seat.put(PutAnswer.EXISTS)
    seat.head(None)
    assert seat.chain.retry is not None
    assert seat.chain.retry.since == 100.0


def test_ones_own_put_whose_answer_was_lost_counts_as_own() -> None:
    seat = putting(10, 11, 12)
    seat.put(Failure.UNAVAILABLE)
    seat.head(stored(10, 13, writer="me"))
    assert seat.the(events.Linked).outcome is events.Outcome.OWN
    assert seat.none(events.Drop, events.Seek)


def test_the_open_batch_waits_behind_a_chunk_of_unknown_outcome() -> None:
    seat = putting(10, 11, 12, 13, 14, 15)
    assert seat.chain.full
    for event in (events.Tick(), events.Pressure(), events.Polled(item=OutOfRange(partition=PARTITION, offset=16))):
        seat.now += 100.0
        seat.feed(event)
        assert seat.none(events.Seal, events.Put)
    seat.put(PutAnswer.CREATED)
    chunk = seat.the(events.Seal).chunk
    assert (chunk.start, chunk.next_offset) == (13, 16)


def test_quarantine_is_put_before_the_main_object() -> None:
    seat = running(10, 11, 12)
    chunk = seat.the(events.Seal).chunk
    seat.finish(quarantine=True)
    assert seat.last() == (events.PutQuarantine(epoch=5, chunk=chunk),)
    seat.feed(events.QuarantineStored(epoch=5))
    assert seat.last() == (events.Put(epoch=5, chunk=chunk),)


# ---- 4. Adopt -------------------------------------------------------------------------------------------------------


def test_an_object_of_the_same_end_is_as_good_as_ours_and_what_is_open_stays() -> None:
    seat = putting(10, 11, 12, 13)
    seat.put(PutAnswer.EXISTS)
    seat.head(stored(10, 13))
    assert [type(action) for action in seat.last()] == [events.Commit, events.Linked]
    assert seat.the(events.Linked).outcome is events.Outcome.ADOPTED
    assert (seat.chain.batch.start, seat.chain.batch.records) == (13, 1)


@pytest.mark.parametrize("end", [11, 12, 14, 400])
def test_otherwise_everything_buffered_is_dropped_before_the_seek_and_the_commit(end: int) -> None:
    seat = putting(10, 11, 12, 13)
    seat.put(PutAnswer.EXISTS)
    seat.head(stored(10, end))
    assert [type(action) for action in seat.last()] == [events.Drop, events.Seek, events.Commit, events.Linked]
    assert (seat.the(events.Seek).offset, seat.the(events.Commit).offset) == (end, end)
    assert (seat.chain.batch.start, seat.chain.batch.records, seat.chain.chunk, seat.chain.held) == (end, 0, None, ())
    assert seat.chain.epoch == 6
    seat.polled(run_of(end))
    assert seat.the(events.Head)  # probed again


@pytest.mark.parametrize(
    "found",
    [
        Found(key=key(10), size=1, metadata={}),
        stored(10, 20, chain_id="other"),
        stored(10, 20, topic="other"),
        stored(10, 20, partition="4"),
        stored(10, 20, start_offset="9"),
        stored(10, 10),
        stored(10, 9),
        stored(10, 20, first_timestamp="1"),
    ],
)
def test_a_foreign_object_in_the_way_stalls(found: Found) -> None:
    probing = positioned(10)
    probing.polled(run_of(10))
    probing.head(found)
    in_flight = putting(10, 11, 12)
    in_flight.put(PutAnswer.EXISTS)
    in_flight.head(found)
    for seat in (probing, in_flight):
        assert seat.the(events.Stalled).key == found.key
        assert seat.the(events.Drop)
        assert seat.none(events.Commit, events.Seek, events.Put)


def test_timestamps_of_compacted_topics_are_not_compared() -> None:
    seat = positioned(10, replace(RULES, compare_timestamps=False))
    seat.polled(run_of(10))
    seat.head(stored(10, 20, first_timestamp="1"))
    assert seat.the(events.Linked)


# ---- 5. Commit ------------------------------------------------------------------------------------------------------


def test_a_commit_that_stepped_back_is_probed_forward_again() -> None:
    seat = positioned(10)
    for start, end in ((10, 14), (14, 15), (15, 30)):
        seat.polled(run_of(start))
        seat.head(stored(start, end))
        assert seat.the(events.Commit).offset == end
    seat.polled(run_of(30))
    seat.head(None)
    assert seat.chain.phase is Phase.RUNNING
    assert seat.chain.position == 30


# ---- 6. Revoked -----------------------------------------------------------------------------------------------------


def test_a_drain_puts_what_is_open_and_takes_nothing_more() -> None:
    seat = putting(10, 11, 12, 13, 14, 15, 16)
    seat.feed(events.Drain())
    assert seat.last() == ()
    assert not seat.chain.wants_records
    seat.polled(run_of(17))
    assert seat.last() == ()
    seat.put(PutAnswer.CREATED)
    assert (seat.the(events.Seal).chunk.start, seat.the(events.Seal).chunk.next_offset) == (13, 16)
    seat.finish()
    seat.put(PutAnswer.CREATED)
    assert seat.the(events.Commit).offset == 16
    assert seat.the(events.Drained)
    assert seat.chain.phase is Phase.CLOSED


def test_with_nothing_open_a_drain_is_done_at_once() -> None:
    idle = running(10, 11, 12)
    idle.finish()
    idle.put(PutAnswer.CREATED)
    probing = positioned(10)
    probing.polled(run_of(10))
    for seat in (Seat(), positioned(10), probing, idle):
        seat.feed(events.Drain())
        assert seat.last() == (events.Drained(),)
        assert seat.chain.phase is Phase.CLOSED


def test_a_drain_that_meets_another_end_or_a_foreign_object_gives_up() -> None:
    for found in (stored(10, 12), stored(10, 20, chain_id="other")):
        seat = putting(10, 11, 12, 13)
        seat.feed(events.Drain())
        seat.put(PutAnswer.EXISTS)
        seat.head(found)
        assert seat.the(events.Drop)
        assert seat.the(events.Drained)
        assert seat.chain.phase is Phase.CLOSED


def test_a_closed_chain_does_nothing_any_more() -> None:
    seat = putting(10, 11, 12)
    seat.chain = chain.closed(seat.chain)
    seat.put(PutAnswer.CREATED)
    assert seat.last() == ()
    for event in (events.Tick(), events.Drain(), events.Pressure()):
        assert seat.feed(event) == ()


# ---- stalls ---------------------------------------------------------------------------------------------------------


def stalled() -> Seat:
    seat = positioned(10)
    seat.polled(run_of(10))
    seat.head(stored(10, 20, chain_id="other"))
    return seat


def test_a_stall_drops_the_buffer_and_stops_fetching() -> None:
    seat = stalled()
    assert [type(action) for action in seat.last()] == [events.Drop, events.Stalled]
    assert seat.chain.stall == chain.Stall(
        reason=seat.the(events.Stalled).reason, key=key(10), since=100.0, met_by_reading=True
    )
    assert not seat.chain.wants_records
    seat.polled(run_of(11), start=11)
    assert seat.last() == ()


def test_every_30_seconds_it_is_looked_at_again_from_step_1() -> None:
    seat = stalled()
    seat.tick(29.9)
    assert seat.last() == ()
    seat.tick(0.1)
    assert seat.last() == (events.Locate(epoch=seat.chain.epoch),)


def test_a_wire_batch_that_cannot_be_decoded_stalls_and_is_said_once() -> None:
    seat = running(10)
    seat.feed(events.Unreadable(reason="broken zstd"))
    assert "behind the chain's end 10" in seat.the(events.Stalled).reason
    assert "broken zstd" in seat.the(events.Stalled).reason
    assert seat.none(events.Commit)
    seat.tick(30.0)
    seat.located(signed(10))
    assert seat.chain.stall is not None, "nothing has been read past it"
    seat.feed(events.Unreadable(reason="broken zstd"))
    assert seat.chain.phase is Phase.STALLED
    assert seat.none(events.Stalled)


def test_answers_to_earlier_requests_are_ignored() -> None:
    seat = putting(10, 11, 12)
    seat.put(Failure.UNAVAILABLE)
    seat.head(None)
    old = seat.chain.epoch
    seat.feed(events.Pressure())
    assert seat.the(events.Stalled)
    late: list[events.Event] = [
        events.PutAnswered(epoch=old, answer=PutAnswer.CREATED),
        events.HeadAnswered(epoch=old, found=stored(10, 13)),
        events.Finished(epoch=old, quarantine=False),
        events.QuarantineStored(epoch=old),
        events.Located(epoch=old, committed=signed(10), log=LogRange(start=0, high_watermark=99)),
        events.Recovered(epoch=old, found=None),
        events.Unanswered(epoch=old, reason="late"),
    ]
    seat.tick(30.0)
    before = seat.chain
    for event in late:
        assert seat.feed(event) == ()
        assert seat.chain == before


def test_a_stall_keeps_its_beginning_until_the_probe_says_that_the_way_is_free() -> None:
    seat = stalled()
    seat.tick(30.0)
    seat.located(signed(10))
    assert seat.chain.stall is not None
    seat.polled(run_of(10))
    seat.head(stored(10, 20, chain_id="other"))
    assert seat.chain.stall is not None
    assert seat.chain.stall.since == 100.0
    seat.tick(30.0)
    seat.located(signed(10))
    seat.polled(run_of(10))
    seat.head(None)
    assert seat.chain.stall is None


def test_a_retrying_partition_stalls_when_memory_is_short() -> None:
    seat = putting(10, 11, 12, 13)
    seat.put(Failure.UNAVAILABLE, "503 SlowDown")
    seat.feed(events.Pressure())
    assert "503 SlowDown" in seat.the(events.Stalled).reason
    assert seat.the(events.Drop)


def test_so_does_one_whose_quarantine_or_head_gets_no_answer() -> None:
    quarantining = running(10, 11, 12)
    quarantining.finish(quarantine=True)
    asking = putting(10, 11, 12)
    asking.put(PutAnswer.EXISTS)
    probing = positioned(10)
    probing.polled(run_of(10))
    for seat in (quarantining, asking, probing):
        seat.feed(events.Pressure())
        assert seat.none(events.Stalled)  # it is on its way
        seat.feed(events.Unanswered(epoch=5, reason="403 AccessDenied"))
        assert seat.last() == ()
        assert seat.chain.retry == chain.Retry(reason="403 AccessDenied", since=100.0)
        seat.feed(events.Pressure())
        assert "403 AccessDenied" in seat.the(events.Stalled).reason


def test_an_answer_ends_the_retrying() -> None:
    quarantining = running(10, 11, 12)
    quarantining.finish(quarantine=True)
    quarantining.feed(events.Unanswered(epoch=5, reason="403 AccessDenied"))
    quarantining.feed(events.QuarantineStored(epoch=5))
    probing = positioned(10)
    probing.polled(run_of(10))
    probing.feed(events.Unanswered(epoch=5, reason="403 AccessDenied"))
    probing.head(None)
    for seat in (quarantining, probing):
        assert seat.chain.retry is None


def test_a_poll_with_a_hole_is_not_taken() -> None:
    seat = running(10, 11)
    seat.polled(run_of(14), start=13)
    assert seat.last() == (events.Seek(offset=12),)
    seat.polled(run_of(11), start=11)
    assert seat.last() == (events.Seek(offset=12),)
    assert seat.chain.batch.records == 2
