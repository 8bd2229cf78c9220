"""The driver of one chain: what is dropped stays dropped, whatever its threads and requests still do."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import structlog

from consumer import events
from consumer.ports import Committed
from shared.schemas import ObjectMetadata, sign_offset
from tests.fakes.store import Call, Fail
from tests.unit.consumer.worker_worlds import CHAIN_ID, KEYS, World
from tests.virtual_time import until, virtual_time

if TYPE_CHECKING:
    from consumer.ports import Upload
    from tests.fakes.store import Asked


def foreign_end(world: World, *, start: int, end: int) -> None:
    """Another writer's object at `start`."""
    lines = b"".join(value + b"\n" for value in world.readable(0)[start:end] if value)
    metadata = ObjectMetadata(
        chain_id=CHAIN_ID,
        topic="task",
        partition=0,
        start_offset=start,
        next_offset=end,
        record_count=end - start,
        quarantined_count=0,
        first_timestamp=0,
        max_timestamp=0,
        sha256="0" * 64,
        writer="other",
    )
    world.store.place(KEYS.render(partition=0, start=start, timestamp=0), gzip.compress(lines), metadata.encode())


@virtual_time
async def test_after_adopting_a_shorter_object_nothing_buffered_is_put() -> None:
    world = World(records=10, seconds=1.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 3)
    await until(lambda: process[0].chain.batch.records == 3)
    foreign_end(world, start=0, end=2)
    world.numbers(0, 30)
    await world.until_complete()
    assert [link[:2] for link in world.links(0)][:2] == [(0, 2), (2, 12)]
    assert process[0].buffered_bytes == 0
    await process.end()


@virtual_time
async def test_the_task_that_brings_the_news_of_a_drop_ends_by_itself() -> None:
    world = World(records=5, seconds=1.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 3)
    await until(lambda: process[0].chain.batch.records == 3)
    foreign_end(world, start=0, end=1)
    partition = process[0]
    await until(lambda: partition.chain.position == 3)
    assert partition._tasks == set()
    await world.until_complete()
    await process.end()


@virtual_time
async def test_a_thread_that_still_works_on_dropped_records_touches_nothing_new() -> None:
    world = World(records=1000, seconds=2.0)
    process = await world.start()
    await process.running()
    world.produce(0, *['"' + "x" * 1000 + '"'] * 20)  # less would not go to a thread
    partition = process[0]
    while not partition._waiting_records:  # a thread's work lasts two milliseconds at most
        await asyncio.sleep(0.0001)
    partition._drop()  # as a stall does
    assert (partition.buffered_bytes, partition._waiting_records) == (0, 0)
    assert partition._builder.size == 0
    builder = partition._builder
    await asyncio.sleep(1)
    assert partition._builder is builder
    assert (partition.buffered_bytes, partition._waiting_records, partition._working) == (0, 0, None)
    assert builder.finish().record_count == 0
    process.task.cancel()  # type: ignore[union-attr]


@virtual_time
async def test_a_cancelled_put_that_lands_after_the_stall_is_adopted() -> None:
    world = World(records=5, seconds=1.0)
    process = await world.start()
    await process.running()
    world.store.script(Call.PUT, Fail())
    on_its_way: list[Upload] = []

    async def lose(asked: Asked) -> None:
        """The request lasts; it is cancelled meanwhile, and takes effect all the same."""
        if asked.upload is not None and len(world.store.asked(Call.PUT)) == 2:
            on_its_way.append(asked.upload)
            await asyncio.sleep(1000)

    world.store.before = lose
    world.numbers(0, 5)
    await until(lambda: on_its_way)
    partition = process[0]
    (put,) = partition._tasks
    partition.feed(events.Pressure())  # memory is short, its put keeps failing
    assert partition.chain.stall is not None
    await asyncio.sleep(0.01)
    assert put.cancelled()
    assert partition._tasks == set()
    assert not process.worker.upload_slots.locked()
    await world.store.put_if_absent(on_its_way[0])
    world.numbers(0, 3)
    await world.until_complete()
    assert [link[:2] for link in world.links(0)] == [(0, 5), (5, 8)]
    assert process.report.count("objects_total", outcome="adopted") == 1
    assert partition.chain.stall is None
    await process.end()


@virtual_time
async def test_abandoning_in_the_middle_of_a_put_ends_its_task_and_frees_its_slot() -> None:
    world = World(records=5, upload_concurrency=1)
    process = await world.start()
    await process.running()

    async def silent(asked: Asked) -> None:
        if asked.call is Call.PUT:
            await asyncio.sleep(1000)

    world.store.before = silent
    world.numbers(0, 5)
    await until(lambda: world.store.asked(Call.PUT))
    assert process.worker.upload_slots.locked()
    partition = process[0]
    partition.abandon()
    await asyncio.sleep(0.01)
    assert partition._tasks == set()
    assert not process.worker.upload_slots.locked()
    assert partition.drained.is_set()
    assert partition.buffered_bytes == 0
    partition.feed(events.Tick())  # closed: nothing happens any more
    assert partition._tasks == set()
    await process.end()
    assert world.links(0) == []


@virtual_time
async def test_a_timer_that_rings_early_or_late_changes_nothing() -> None:
    world = World(seconds=30.0)
    process = await world.start()
    await process.running()
    world.numbers(0, 5)
    await until(lambda: process[0].chain.batch.records == 5)
    process[0].feed(events.Tick())
    assert process[0].chain.chunk is None
    began = asyncio.get_running_loop().time()
    await until(lambda: world.links(0))
    assert 29 < asyncio.get_running_loop().time() - began < 31
    assert process[0]._timer is None
    await process.end()


@virtual_time
async def test_heads_are_repeated_until_they_answer_and_each_failure_is_said() -> None:
    with structlog.testing.capture_logs() as lines:
        world = World(seconds=1.0)
        world.group.offsets[0] = Committed(offset=0, metadata=sign_offset(CHAIN_ID, 0))
        world.store.script(Call.HEAD, *[Fail(reason="reset")] * 3)
        world.numbers(0, 5)
        process = await world.start()
        await world.until_complete()
        key = KEYS.render(partition=0, start=0, timestamp=0)
        assert [line["what"] for line in lines if line["event"] == "Asking again"] == [f"head {key}"] * 3
        await process.end()
