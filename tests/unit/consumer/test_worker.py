"""The worker on the fakes: all lands exactly once, within memory, slots and budgets, whatever S3 and Kafka do."""

from __future__ import annotations

import asyncio
import gzip
import logging
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest
import structlog

from consumer.chain import Phase
from consumer.ports import CommitRefusedError, Committed, Failure, Fetched, SourceError, StoreError
from consumer.vitals import GaveUpError
from shared.schemas import ObjectMetadata, sign_offset, signer
from tests.fakes.store import Asked, Call, Fail, Fault, Wrong
from tests.unit.consumer.worker_worlds import CHAIN_ID, KEYS, NO_KEYS_TIME, World
from tests.virtual_time import after, hang, never, run, until, virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from consumer.ports import OutOfRange, WireBatch

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _no_debug_lines() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def refusing(call: Call, failure: Failure = Failure.UNAVAILABLE) -> Callable[[Asked], Fault | None]:
    return lambda asked: Fail(failure=failure, reason="as told") if asked.call is call else None


def has_more_than(items: Sequence[object], count: int) -> bool:
    return len(items) > count


async def silence(asked: Asked) -> None:
    """What an adapter makes of a server that does not answer: a failure at its deadline."""
    await asyncio.sleep(60)
    raise StoreError(Failure.UNAVAILABLE, f"{asked.call} {asked.key}: no answer within 60 s")


# ---- everything lands once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_records_with_gaps_in_several_partitions_all_land_once(seed: int) -> None:
    async def main() -> None:
        world = World(partitions=3, records=17, seconds=3.0)
        for number in range(3):
            world.numbers(number, 40, each=7)
            world.log.append_hidden(number, 3)
            world.numbers(number, 25, each=4, timestamp=HOUR_MS)
            world.log.append_hidden(number)
        world.log.compact(1, {0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 39})
        a, b = await world.start("a"), await world.start("b")
        await world.until_complete()
        world.numbers(2, 30)
        await world.until_complete()
        await a.end()
        world.numbers(0, 9)
        await world.until_complete()
        await b.end()
        assert world.complete()
        for number in range(3):
            assert world.committed(number) == world.links(number)[-1][1]
            assert world.group.offsets[number].metadata == sign_offset(CHAIN_ID, world.committed(number) or -1)

    run(main(), seed=seed)


@virtual_time
async def test_a_chunk_ends_behind_the_trailing_control_batch() -> None:
    world = World()
    world.numbers(0, 3)
    world.log.append_hidden(0, 2)
    process = await world.start()
    await world.until_complete()
    assert [link[:2] for link in world.links(0)] == [(0, 5)]
    await process.end()


@virtual_time
async def test_an_object_costs_one_put_and_the_probe_one_head() -> None:
    world = World(records=10)
    world.numbers(0, 50)
    process = await world.start()
    await world.until_complete()
    assert len(world.store.asked(Call.PUT)) == 5
    assert len(world.store.asked(Call.HEAD)) == 1
    await process.end()


@virtual_time
async def test_objects_say_what_they_hold() -> None:
    world = World(compression="gzip")
    world.produce(0, "1", timestamp=5 * HOUR_MS)
    world.produce(0, "2", "nope", timestamp=4 * HOUR_MS)
    process = await world.start("writer-7")
    await until(lambda: world.links(0))
    ((start, end, key),) = world.links(0)
    stored = world.store.objects[key]
    metadata = ObjectMetadata.decode(stored.metadata)
    assert (start, end, key) == (0, 3, KEYS.render(partition=0, start=0, timestamp=5 * HOUR_MS))
    assert gzip.decompress(stored.body) == b"1\n2\n"
    assert stored.content_type == "application/gzip"
    assert (metadata.record_count, metadata.quarantined_count, metadata.lost_count) == (2, 1, 0)
    assert (metadata.first_timestamp, metadata.max_timestamp) == (5 * HOUR_MS, 5 * HOUR_MS)
    assert (metadata.chain_id, metadata.topic, metadata.writer) == (CHAIN_ID, "task", "writer-7")
    await process.end()


@virtual_time
async def test_a_restart_goes_on_where_the_last_ended() -> None:
    world = World()
    world.numbers(0, 30)
    await (await world.start("a")).end()
    first = await world.start("b")
    await first.running()
    await until(lambda: first[0].chain.batch.records == 30)
    await first.end()  # drains: what is open is put
    assert world.complete()
    assert first.report.count("objects_total", outcome="created") == 1
    second = await world.start("c")
    world.numbers(0, 5)
    await world.until_complete()
    assert Call.LIST not in {asked.call for asked in world.store.calls[-3:]}  # the committed offset was enough
    await second.end()


@virtual_time
async def test_the_page_and_metrics_count_what_was_stored() -> None:
    world = World()
    world.produce(0, "1", "", "{", "2")
    world.log.append(0, [None])
    process = await world.start()
    await until(lambda: world.links(0))
    await until(lambda: process.report.count("records_stored_total") == 2)
    for reason, count in {"empty": 1, "not_json": 1, "tombstone": 1}.items():
        assert process.report.count("records_quarantined_total", reason=reason) == count
    assert process.report.count("rebalances_total") == 1
    world.numbers(0, 7)
    await until(lambda: process.report.count("lag_records", partition="0") == 7)
    await until(lambda: process.report.count("position_lag_records", partition="0") == 0)
    await process.end()
    assert process.report.registry.get_sample_value("ticklake_consumer_lag_records", {"partition": "0"}) is None


# ---- memory --------------------------------------------------------------------------------------------------------


@virtual_time
async def test_memory_stays_within_the_limit_and_one_poll() -> None:
    world = World(partitions=4, memory_bytes=60_000, compression="none", seconds=60.0, records=10**6, keys=PLAIN_KEYS)
    for number in range(4):
        for _ in range(60):
            world.produce(number, *['"' + "x" * 200 + '"'] * 10)  # 2 kB a wire batch
    world.store.before = after(1.0)
    process = await world.start()
    await process.running()
    one_poll = 4 * world.batches_per_poll * 10 * 202 * 2  # as it came, and its values
    peak = 0
    while any(process[number].chain.fetch_next < 600 for number in range(4)):
        peak = max(peak, process.worker.buffered_bytes)
        await asyncio.sleep(0.0005)
    assert 0.8 * world.memory_bytes < peak <= world.memory_bytes + one_poll
    await process.end()


@virtual_time
async def test_pressure_puts_the_largest_first() -> None:
    world = World(partitions=2, memory_bytes=20_000, compression="none", seconds=600.0, keys=PLAIN_KEYS)
    process = await world.start()
    await process.running()
    world.produce(0, '"' + "s" * 4000 + '"')
    await until(lambda: process[0].chain.batch.records == 1)
    world.produce(1, '"' + "l" * 5000 + '"')
    await until(lambda: process[1].chain.batch.records == 1)
    await never(lambda: world.links(0) + world.links(1), seconds=20)  # 9 kB of 16
    world.produce(1, '"' + "l" * 8000 + '"')
    await until(lambda: world.links(1))
    await never(lambda: world.links(0), seconds=20)
    await process.end()
    assert world.complete()


@virtual_time
async def test_a_partition_that_cannot_be_put_is_given_up_when_memory_is_short_and_healed_later() -> None:
    world = World(partitions=2, memory_bytes=10_000, compression="none", seconds=1.0, keys=PLAIN_KEYS)
    world.store.plan = lambda asked: (
        Fail() if asked.call is Call.PUT and asked.upload and asked.upload.metadata["partition"] == "0" else None
    )
    process = await world.start()
    await process.running()
    world.produce(0, '"' + "s" * 5000 + '"')
    await until(lambda: process[0].chain.retry)
    await never(lambda: process[0].chain.stall, seconds=100)  # 5 kB of 8: it keeps its chunk
    world.produce(0, '"' + "s" * 4000 + '"')
    await until(lambda: process[0].chain.stall, seconds=5)
    assert process[0].buffered_bytes == 0
    assert "memory is short" in process[0].chain.stall.reason  # type: ignore[union-attr]
    world.numbers(1, 20)
    await until(lambda: world.stored(1) == world.readable(1), seconds=5)
    world.store.plan = lambda _: None
    await world.until_complete(seconds=90)
    await process.end()


@virtual_time
async def test_tombstones_do_not_pile_up_though_they_weigh_nothing() -> None:
    world = World(records=10**6, batches_per_poll=1)
    for _ in range(300):
        world.log.append(0, [None] * 10)
    process = await world.start()
    await process.running()
    waiting = 0
    while process[0].chain.fetch_next < 3000:
        waiting = max(waiting, process[0]._waiting_records)
        await asyncio.sleep(0.0005)
    assert waiting <= 10
    await process.end()


# ---- upload slots --------------------------------------------------------------------------------------------------


class Slots:
    """Counts puts under way."""

    def __init__(self, world: World, seconds: float) -> None:
        self.now = self.peak = 0
        self._seconds = seconds
        world.store.before, world.store.after = self.before, self.after

    async def before(self, asked: Asked) -> None:
        if asked.call is Call.PUT:
            self.now += 1
            self.peak = max(self.peak, self.now)
            await asyncio.sleep(self._seconds)

    async def after(self, asked: Asked) -> None:
        if asked.call is Call.PUT:
            self.now -= 1


@virtual_time
async def test_puts_run_side_by_side_up_to_the_limit_and_never_beyond() -> None:
    world = World(partitions=8, upload_concurrency=3, records=5)
    slots = Slots(world, 2.0)
    for number in range(8):
        world.numbers(number, 20)
        world.produce(number, "oops")
    process = await world.start()
    await world_stored(world, 20)
    assert slots.peak == 3
    await process.end()


async def world_stored(world: World, count: int) -> None:
    await until(lambda: all(len(world.stored(number)) == count for number in range(len(world.log))))


@virtual_time
async def test_who_waits_to_try_again_holds_no_slot() -> None:
    world = World(partitions=3, upload_concurrency=1, seconds=1.0)
    world.store.plan = lambda asked: (
        Fail(failure=Failure.REFUSED)
        if asked.call is Call.PUT and asked.upload and asked.upload.metadata.get("partition") in ("0", "1")
        else None
    )
    process = await world.start()
    await process.running()
    world.numbers(0, 5)
    world.numbers(1, 5)
    await until(lambda: process[0].chain.retry and process[1].chain.retry)
    world.numbers(2, 5)
    await until(lambda: world.stored(2) == world.readable(2), seconds=3)
    await process.end()


@virtual_time
async def test_a_quarantine_that_waits_to_try_again_holds_no_slot() -> None:
    world = World(partitions=2, upload_concurrency=1, seconds=1.0)
    world.store.plan = lambda asked: (
        Fail(failure=Failure.REFUSED) if asked.call is Call.PUT and "/quarantine/" in asked.key else None
    )
    process = await world.start()
    await process.running()
    world.produce(0, "bad")
    await until(lambda: process[0].chain.retry)
    world.numbers(1, 5)
    await until(lambda: world.stored(1) == world.readable(1), seconds=3)
    assert not world.links(0)  # the main object waits for its quarantine
    world.store.plan = lambda _: None
    await until(lambda: world.links(0))
    await process.end()


# ---- quarantine ----------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_quarantine_is_put_before_the_object_that_names_it() -> None:
    world = World(seconds=1.0)
    world.store.script(Call.PUT, Fail(), Fail(after_effect=True))  # twice tried, then it is there: 412 counts
    world.produce(0, "1", "bad", "2")
    process = await world.start()
    await until(lambda: world.links(0))
    ((_, _, key),) = world.links(0)
    puts = world.store.asked(Call.PUT)
    assert len(set(puts[:3])) == 1
    assert puts[3:] == [key]
    named = world.store.objects[key].metadata["quarantine"]
    assert puts[0] == KEYS.quarantine_prefix + named
    assert world.quarantined() == {named: [1]}
    assert named.startswith("00000-00000000000000000000-00000000000000000003-")
    await process.end()


@virtual_time
async def test_a_chunk_of_nothing_but_quarantine_is_still_a_link() -> None:
    world = World(seconds=1.0)
    world.produce(0, "bad", "")
    process = await world.start()
    await until(lambda: world.links(0))
    ((start, end, key),) = world.links(0)
    assert (start, end) == (0, 2)
    assert gzip.decompress(world.store.objects[key].body) == b""
    assert sum(map(len, world.quarantined().values())) == 2
    await process.end()


# ---- answers of the store ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fail(after_effect=True), "own"),
        (Fail(failure=Failure.REFUSED, after_effect=True), "own"),
        (Wrong.EXISTS_AFTER, "own"),
        (Fail(), "created"),
        (Fail(failure=Failure.CONFLICT), "created"),
        (Fail(failure=Failure.CREDENTIALS), "created"),
        (Wrong.SAYS_EXISTS, "created"),
    ],
)
def test_an_open_outcome_is_settled_by_head(fault: Fault, outcome: str) -> None:
    async def main() -> None:
        world = World(seconds=1.0)
        world.store.script(Call.PUT, fault)
        world.numbers(0, 5)
        process = await world.start()
        await world.until_complete()
        await until(lambda: process.report.count("objects_total", outcome=outcome) == 1)
        assert process.report.count("records_stored_total") == 5
        await process.end()

    run(main())


@virtual_time
async def test_a_refused_put_is_tried_every_thirty_seconds_and_others_sooner() -> None:
    for failure, least, most in ((Failure.REFUSED, 29.9, 31.1), (Failure.UNAVAILABLE, 0.0, 20.1)):
        world = World(seconds=1.0)
        moments: list[float] = []

        def plan(asked: Asked, moments: list[float] = moments, failure: Failure = failure) -> Fault | None:
            if asked.call is not Call.PUT:
                return None
            moments.append(loop_time())
            return Fail(failure=failure)

        world.store.plan = plan
        world.numbers(0, 5)
        process = await world.start()
        await until(partial(has_more_than, moments, 12), seconds=900)
        gaps = [late - early for early, late in pairwise(moments)]
        assert all(least <= gap <= most for gap in gaps)
        assert not world.group.offsets.get(0) or world.committed() == 0
        await process.end()


@virtual_time
async def test_a_foreign_object_in_the_way_stalls_once_and_is_looked_at_every_thirty_seconds() -> None:
    with structlog.testing.capture_logs() as lines:
        world = World(seconds=1.0)
        world.numbers(0, 5)
        key = KEYS.render(partition=0, start=0, timestamp=0)
        world.group.offsets[0] = Committed(offset=0, metadata=sign_offset(CHAIN_ID, 0))
        world.store.place(key, b"somebody's")
        process = await world.start()
        await until(lambda: 0 in process.worker.partitions and process[0].chain.stall)
        said = [line for line in lines if line["event"] == "Stalled"]
        assert len(said) == 1
        assert said[0]["log_level"] == "error"
        assert (said[0]["partition"], said[0]["key"]) == (0, key)
        began, looked = loop_time(), len(world.store.asked(Call.HEAD))
        await asyncio.sleep(601)
        heads = len(world.store.asked(Call.HEAD)) - looked
        assert 18 <= heads <= 20
        said = [line for line in lines if line["event"] == "Stalled"]
        assert 10 <= len(said) <= 11
        assert said[-1]["for_seconds"] == pytest.approx(600, abs=62)
        assert loop_time() - began > 600
        assert process.report.registry.get_sample_value(*STALL_GAUGE) is not None
        del world.store.objects[key]  # a person has made room
        await world.until_complete(seconds=40)
        await asyncio.sleep(1.5)
        assert process.report.registry.get_sample_value(*STALL_GAUGE) is None
        await process.end()


class BrokenWire:
    """A wire batch that arrives whole and cannot be decoded."""

    size_bytes = 1

    def __getattr__(self, name: str) -> object:
        raise SourceError("broken zstd frame")


@virtual_time
async def test_a_wire_batch_that_cannot_be_decoded_stalls_its_partition_and_no_other() -> None:
    world = World(partitions=2, seconds=1.0)
    world.numbers(0, 5)
    world.numbers(1, 5)
    process = await world.start()
    poll, broken = process.source.poll, True

    async def poll_broken(wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        items = await poll(wanted, timeout_seconds)
        return [
            replace(item, batches=[cast("WireBatch", BrokenWire())])
            if broken and isinstance(item, Fetched) and item.partition == 0
            else item
            for item in items
        ]

    process.source.poll = poll_broken  # type: ignore[method-assign]
    await until(lambda: world.links(1) and process[0].chain.stall is not None)
    assert "broken zstd frame" in str(process[0].chain.stall)
    assert world.links(0) == []
    assert world.group.offsets.get(0, Committed(offset=0, metadata="")).offset == 0
    broken = False
    await world.until_complete(seconds=40)
    await process.end()


STALL_GAUGE = ("ticklake_consumer_stalled_since_timestamp_seconds", {"partition": "0"})


# ---- giving up -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_worker_gives_up_when_s3_has_failed_all_along_for_the_limit() -> None:
    world = World(seconds=1.0, give_up_seconds=900.0)
    world.store.plan = lambda _: Fail(reason="broken line")
    world.numbers(0, 5)
    process = await world.start()
    began = loop_time()
    error = await process.failure()
    assert 900 <= loop_time() - began < 960
    (cause,) = error.exceptions  # type: ignore[attr-defined]
    assert isinstance(cause, GaveUpError)
    assert str(cause).startswith("S3 has answered nothing for 900 s; last: ")
    assert "broken line" in str(cause)
    assert process.source not in world.group.members


@pytest.mark.parametrize("call", [Call.PUT, Call.HEAD])
@virtual_time
async def test_one_answer_now_and_then_keeps_it_going(call: Call) -> None:
    world = World(seconds=1.0, give_up_seconds=300.0, partitions=2)
    process = await world.start()
    await process.running()
    world.store.plan = refusing(call)
    world.numbers(0, 5)
    for _ in range(20):
        await asyncio.sleep(100)
        await process.store.get("something")  # 404 is an answer
    assert process.task is not None
    assert not process.task.done()
    await process.end()


@virtual_time
async def test_with_nothing_to_ask_it_stays() -> None:
    world = World(seconds=1.0, give_up_seconds=100.0)
    process = await world.start()
    await process.running()
    world.store.plan = lambda _: Fail()
    await asyncio.sleep(5000)
    world.numbers(0, 3)
    await asyncio.sleep(60)
    assert process.task is not None
    assert not process.task.done()
    world.store.plan = lambda _: None
    await world.until_complete()
    await process.end()


# ---- revocation and stop -------------------------------------------------------------------------------------------


@virtual_time
async def test_a_revocation_puts_and_commits_what_is_open() -> None:
    world = World(partitions=2, seconds=600.0)
    a = await world.start("a")
    await a.running()
    for number in range(2):
        world.numbers(number, 20)
    await until(lambda: all(a[number].chain.batch.records == 20 for number in range(2)))
    b = await world.start("b")
    await b.running(1)
    assert world.complete()
    assert (world.committed(0), world.committed(1)) == (20, 20)
    assert sorted(a.worker.partitions) == [0]
    assert Call.LIST not in {asked.call for asked in world.store.calls[-4:]}
    await a.end()
    await b.end()


@virtual_time
async def test_a_revocation_ends_within_its_share_of_the_time_out_though_s3_hangs() -> None:
    with structlog.testing.capture_logs() as lines:
        world = World(partitions=2, seconds=600.0, rebalance_seconds=60.0)
        a = await world.start("a")
        await a.running()
        for number in range(2):
            world.numbers(number, 20)
        await until(lambda: all(a[number].chain.batch.records == 20 for number in range(2)))
        world.store.before = silence
        began = loop_time()
        b = await world.start("b")
        await until(lambda: b.worker.was_assigned)
        assert 35.9 < loop_time() - began < 36.0 + 60 * 0.6 * 0.1 + 1
        (line,) = [line for line in lines if line["event"] == "Partitions revoked"]
        assert line["partitions"] == [0, 1]
        assert line["left_for_next_owner"] == 40
        world.store.before = after(0.0)
        await world.until_complete(seconds=700)
        await a.end()
        await b.end()


@virtual_time
async def test_a_stop_drains_commits_and_then_leaves() -> None:
    world = World(seconds=600.0)
    world.store.before = after(2.0)
    world.numbers(0, 20)
    process = await world.start()
    await process.running()
    await until(lambda: process[0].chain.batch.records == 20)
    began = loop_time()
    await process.end()
    assert world.complete()
    assert world.committed() == 20
    assert loop_time() - began < 3
    assert world.group.members == []
    assert process.worker.partitions == {}


@virtual_time
async def test_a_stop_keeps_its_budget_though_everything_hangs() -> None:
    world = World(partitions=2, seconds=600.0)
    world.numbers(0, 20)
    process = await world.start(give_back_seconds=16.0)
    await process.running()
    await until(lambda: process[0].chain.batch.records == 20)
    world.store.before = hang
    process.source.commit = hang  # type: ignore[assignment,method-assign]
    process.worker.commit(1, 0)
    began = loop_time()
    with structlog.testing.capture_logs() as lines:
        await process.end()
    assert 15.9 < loop_time() - began < 16 + 1.7
    (line,) = [line for line in lines if line["event"] == "Partitions revoked"]
    assert line["left_for_next_owner"] == 20
    assert world.links(0) == []


@virtual_time
async def test_nothing_is_polled_once_it_stops() -> None:
    world = World(seconds=600.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 5)
    await until(lambda: process[0].chain.batch.records == 5)
    world.store.before = after(5.0)
    process.stop.set()
    await asyncio.sleep(1)
    world.numbers(0, 5)
    await process.end()
    assert [link[:2] for link in world.links(0)] == [(0, 5)]


@virtual_time
async def test_a_stop_before_any_assignment_is_at_once() -> None:
    world = World()
    process = await world.start()
    began = loop_time()
    await process.end()
    assert loop_time() - began < 1


@virtual_time
async def test_a_stop_does_not_wait_for_stalls_retries_and_probes() -> None:
    world = World(partitions=2, seconds=1.0)
    world.store.place(KEYS.render(partition=0, start=0, timestamp=0), b"foreign")
    world.group.offsets[0] = Committed(offset=0, metadata=sign_offset(CHAIN_ID, 0))
    world.numbers(0, 5)
    process = await world.start()
    await until(lambda: 0 in process.worker.partitions and process[0].chain.stall)
    world.store.plan = refusing(Call.HEAD)
    world.numbers(1, 5)
    await until(lambda: process[1].chain.phase is Phase.PROBING and process[1].chain.retry)
    began = loop_time()
    await process.end()
    assert loop_time() - began < 1


@virtual_time
async def test_no_timer_rings_after_a_failure() -> None:
    world = World(partitions=2, seconds=20.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 5)
    await until(lambda: process[0].chain.batch.records == 5)
    process.source.fail_next("poll", ZeroDivisionError("a mistake of ours"))
    error = await process.failure()
    assert isinstance(error.exceptions[0], ZeroDivisionError)  # type: ignore[attr-defined]
    trouble: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    await asyncio.sleep(60)
    assert trouble == []


# ---- Kafka's faults ------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_poll_that_raises_seeks_every_reading_partition_to_its_next_offset() -> None:
    world = World(partitions=2, seconds=600.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 20)
    await until(lambda: process[0].chain.batch.records == 20)
    world.numbers(0, 10)
    process.source._positions[0] = 30  # what a failing getmany drained is lost with it
    process.source.fail_next("poll")
    sought: list[tuple[int, int]] = []
    seek = process.source.seek

    def seeking(partition: int, offset: int) -> None:
        sought.append((partition, offset))
        seek(partition, offset)

    process.source.seek = seeking  # type: ignore[method-assign]
    await until(lambda: process[0].chain.batch.records == 30)
    assert sorted(sought) == [(0, 20), (1, 0)]
    await process.end()
    assert world.complete()


@virtual_time
async def test_a_failing_kafka_is_said_in_readiness_until_it_answers() -> None:
    world = World()
    process = await world.start()
    await process.running()
    for _ in range(3):
        process.source.fail_next("poll", SourceError("no broker"))
    await until(lambda: process.worker.kafka_trouble is not None)
    first = process.worker.kafka_trouble
    assert first is not None
    assert first.reason == "no broker"
    await until(lambda: not process.source.failures["poll"])
    assert process.worker.kafka_trouble == first, "since its first failure"
    await until(lambda: process.worker.kafka_trouble is None, seconds=15)
    await process.end()


@virtual_time
async def test_a_silent_kafka_is_noticed_though_nothing_is_polled_for() -> None:
    world = World()
    process = await world.start()
    await process.running()
    process.source.fail_next("log_ranges", SourceError("no broker"))
    await until(lambda: process.worker.kafka_trouble is not None, seconds=11)
    await process.end()


@pytest.mark.parametrize("refusal", [CommitRefusedError("moved on"), SourceError("no answer")])
def test_a_commit_that_fails_costs_nothing(refusal: Exception) -> None:
    async def main() -> None:
        world = World(seconds=1.0)
        process = await world.start()
        await process.running()
        process.source.fail_next("commit", refusal)
        world.numbers(0, 5)
        await world.until_complete()
        outcome = "refused" if isinstance(refusal, CommitRefusedError) else "failed"
        await until(lambda: process.report.count("commits_total", outcome=outcome) == 1)
        if outcome == "failed":
            await until(lambda: world.committed() == 5, seconds=6)
        world.numbers(0, 5)
        await world.until_complete()
        await until(lambda: world.committed() == 10, seconds=6)
        await process.end()

    run(main())


@virtual_time
async def test_offsets_in_commits_are_boundaries_only() -> None:
    world = World(records=7, seconds=1.0)
    world.numbers(0, 40)
    process = await world.start()
    seen: set[int] = set()
    while not world.complete():
        if 0 in world.group.offsets:
            committed = world.group.offsets[0]
            seen.add(committed.offset)
            assert signer(committed.offset, committed.metadata) == CHAIN_ID
        await asyncio.sleep(0.001)
    assert seen <= {0} | {link[1] for link in world.links(0)}
    await process.end()


@virtual_time
async def test_it_goes_on_polling_while_events_come_on_each_others_heels() -> None:
    world = World(partitions=30, seconds=600.0, records=5)
    process = await world.start()
    await process.running()
    world.store.plan = lambda asked: Fail() if asked.call in (Call.PUT, Call.HEAD) else None
    for number in range(30):
        world.numbers(number, 30)
    await until(lambda: all(process[number].chain.retry for number in range(30)), seconds=60)
    polled: list[float] = []
    poll = process.source.poll

    async def polling(*args: object) -> object:
        polled.append(loop_time())
        return await poll(*args)  # type: ignore[arg-type]

    process.source.poll = polling  # type: ignore[assignment]
    await asyncio.sleep(120)
    gaps = [late - early for early, late in pairwise(polled)]
    assert max(gaps) < 2.5
    await process.end()


# ---- the log's ends ------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_out_of_range_fetch_puts_what_is_open_and_locates_anew() -> None:
    world = World(seconds=600.0, batches_per_poll=1)
    process = await world.start()
    await process.running()
    world.numbers(0, 5)
    await until(lambda: process[0].chain.batch.records == 5)
    world.numbers(0, 20)
    world.log.move_start(0, 20)  # retention overtakes the reader... or not: it may have read on
    if process[0].chain.fetch_next < 20:
        await until(lambda: process[0].chain.stall, seconds=5)
        assert "offsets are gone" in process[0].chain.stall.reason  # type: ignore[union-attr]
        (link,) = world.links(0)
        assert link[:2] == (0, process[0].chain.position)
    await process.end()


@virtual_time
async def test_under_skip_the_next_object_says_what_was_lost() -> None:
    world = World(seconds=1.0, skip_loss=True)
    world.numbers(0, 30)
    world.log.move_start(0, 20)
    began = loop_time()
    process = await world.start()
    await until(lambda: world.links(0), seconds=400)
    assert loop_time() - began >= 165
    ((start, end, key),) = world.links(0)
    assert (start, end) == (0, 30)
    assert world.store.objects[key].metadata["lost-count"] == "20"
    assert world.store.objects[key].metadata["record-count"] == "10"
    await process.end()


@virtual_time
async def test_new_partitions_begin_at_zero() -> None:
    world = World(partitions=1, seconds=1.0)
    process = await world.start()
    await process.running()
    world.log.add_partitions(1)
    world.numbers(1, 5)
    world.group.rebalance()
    await world.until_complete()
    assert [link[:2] for link in world.links(1)] == [(0, 5)]
    await process.end()


@virtual_time
async def test_a_topic_created_anew_stalls_every_partition() -> None:
    world = World(partitions=2)
    world.log.topic_id = "topic-2"
    process = await world.start()
    await until(lambda: len(process.worker.partitions) == 2 and process[0].chain.stall and process[1].chain.stall)
    reason = process[0].chain.stall.reason  # type: ignore[union-attr]
    assert "topic id is topic-2" in reason
    assert "topic-1" in reason
    assert world.group.offsets == {}
    await process.end()


@virtual_time
async def test_a_topic_that_became_compacted_stalls_where_keys_have_a_time_and_compares_none_elsewhere() -> None:
    world = World()
    world.log.compacted = True
    world.numbers(0, 3)
    process = await world.start()
    await until(lambda: 0 in process.worker.partitions and process[0].chain.stall)
    assert "compacted" in process[0].chain.stall.reason  # type: ignore[union-attr]
    world.log.compacted = False
    await world.until_complete()
    await process.end()

    world = World(keys=NO_KEYS_TIME)
    world.log.compacted = True
    world.numbers(0, 3)
    process = await world.start()
    await world.until_complete()
    assert not process.worker.rules.compare_timestamps
    await process.end()


# ---- questions for all at once -------------------------------------------------------------------------------------


@virtual_time
async def test_many_partitions_are_located_by_one_question_and_recovered_by_one_listing() -> None:
    world = World(partitions=50, seconds=1.0)
    asked: list[int] = []
    process = await world.start()
    committed = process.source.committed

    async def counting(partitions: object) -> object:
        asked.append(len(list(partitions)))  # type: ignore[call-overload]
        return await committed(partitions)  # type: ignore[arg-type]

    process.source.committed = counting  # type: ignore[assignment]
    await process.running()
    assert asked == [50]
    assert len(world.store.asked(Call.LIST)) + len(world.store.asked(Call.FOLDERS)) == 1
    assert all(world.committed(number) == 0 for number in range(50))
    await process.end()


@virtual_time
async def test_a_listing_that_fails_is_said_and_repeated() -> None:
    with structlog.testing.capture_logs() as lines:
        world = World(seconds=1.0)
        world.store.script(Call.FOLDERS, *[Fail(reason="slow down")] * 5)
        world.numbers(0, 5)
        process = await world.start()
        await world.until_complete()
        said = [line for line in lines if line["event"] == "Asking again"]
        assert [(line["what"], line["reason"]) for line in said] == [("list the bucket", "slow down")] * 5
        await process.end()


@virtual_time
async def test_offsets_lost_by_the_group_are_found_in_the_bucket() -> None:
    world = World(partitions=2, seconds=1.0)
    for number in range(2):
        world.numbers(number, 20)
    process = await world.start("a")
    await world.until_complete()
    await process.end()
    world.group.offsets.clear()
    world.group.offsets[1] = Committed(offset=3, metadata="")  # by some tool
    for number in range(2):
        world.numbers(number, 5)
    with structlog.testing.capture_logs() as lines:
        process = await world.start("b")
        await world.until_complete()
        await process.end()
    (line,) = [line for line in lines if line["event"] == "Unsigned offset ignored"]
    assert (line["partition"], line["committed"], line["chain_end"]) == (1, 3, 20)


# ---- zombies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_an_evicted_worker_that_goes_on_doubles_nothing(seed: int) -> None:
    async def main() -> None:
        world = World(seconds=2.0, records=8, max_bytes=1 << 16)
        zombie = await world.start("zombie")
        await zombie.running()
        world.numbers(0, 20, each=3)
        await until(lambda: zombie[0].chain.fetch_next > 0)
        heir = await world.start("heir")
        world.group.evict(zombie.source)
        await heir.running()  # both believe that the partition is theirs
        for _ in range(6):
            world.numbers(0, 7, each=2)
            await asyncio.sleep(asyncio.get_running_loop().random.uniform(0, 3))  # type: ignore[attr-defined]
            world.stored(0)
        await world.until_complete()
        await zombie.end()
        await heir.end()
        assert world.complete()

    run(main(), seed=seed)


@pytest.mark.parametrize("effect", [True, False])
def test_a_put_frozen_until_the_heir_has_gone_on_is_adopted_or_met(effect: bool) -> None:
    async def main() -> None:
        world = World(seconds=2.0, records=8)
        zombie = await world.start("zombie")
        await zombie.running()
        frozen = asyncio.Event()

        async def freeze(asked: Asked) -> None:
            if asked.call is Call.PUT and asked.upload and asked.upload.metadata.get("writer") == "zombie":
                await frozen.wait()

        if effect:
            world.store.after = freeze
        else:
            world.store.before = freeze
        world.numbers(0, 30, each=3)
        await until(lambda: zombie[0].chain.chunk and world.store.asked(Call.PUT))
        heir = await world.start("heir")
        world.group.evict(zombie.source)
        await heir.running()
        await until(lambda: world.stored(0) == world.readable(0))
        world.numbers(0, 30, each=3)
        await asyncio.sleep(1)
        frozen.set()
        await world.until_complete()
        await asyncio.sleep(30)
        assert world.complete()
        await zombie.end()
        await heir.end()
        assert world.complete()

    run(main())


PLAIN_KEYS = type(NO_KEYS_TIME)("{partition}-{start}.{ext}", prefix="", topic="task", ext="jsonl")
