"""When the worker polls, for whom, and what it does on the loop instead of in a thread."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from consumer.partition import _append_all
from consumer.worker import IDLE_SECONDS, POLL_SECONDS, THREAD_BYTES
from tests.fakes.store import Asked, Call
from tests.unit.consumer.worker_worlds import NO_KEYS_TIME, Process, World
from tests.virtual_time import until, virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import pytest

    from consumer.ports import Fetched, OutOfRange

LARGE = '"' + "x" * 2 * THREAD_BYTES + '"'


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def polls_of(process: Process) -> list[tuple[float, list[int], float]]:
    """Every poll from now on: when, for whom, how long it may wait."""
    polls: list[tuple[float, list[int], float]] = []
    poll = process.source.poll

    async def told(wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        polls.append((loop_time(), sorted(wanted), timeout_seconds))
        return await poll(wanted, timeout_seconds)

    process.source.poll = told  # type: ignore[method-assign]
    return polls


def threads(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[Callable[[], Any]]:
    """What goes to a thread from now on; appending lasts that long there."""
    loop, given = asyncio.get_running_loop(), []

    async def work_off(work: Callable[[], Any]) -> Any:
        if isinstance(work, partial) and work.func is _append_all:
            await asyncio.sleep(seconds)
        return work()

    def run_in_executor(_: object, work: Callable[[], Any]) -> asyncio.Future[Any]:
        given.append(work)
        return asyncio.ensure_future(work_off(work))

    monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
    return given


@virtual_time
async def test_a_partition_that_wants_records_again_does_not_wait_for_the_end_of_a_poll_for_others() -> None:
    world = World(partitions=2, records=1, seconds=60.0, compression="none", keys=NO_KEYS_TIME)
    process = await world.start()
    await process.running()

    async def probe_lasts(asked: Asked) -> None:
        if asked.call is Call.HEAD:
            await asyncio.sleep(0.01)

    world.store.before = probe_lasts
    world.produce(0, '"a"')
    await until(lambda: len(world.links(0)) == 1)  # the next poll began during the probe, for partition 1 alone
    began = loop_time()
    world.produce(0, '"b"')
    await until(lambda: len(world.links(0)) == 2)
    assert loop_time() - began < POLL_SECONDS / 4
    await process.end()


@virtual_time
async def test_while_bodies_grow_in_threads_nothing_is_fetched_but_the_group_sees_polls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(partitions=2, seconds=600.0, compression="none", keys=NO_KEYS_TIME)
    process = await world.start()
    await process.running()
    for number in (0, 1):
        world.produce(number, '"first"')
    await until(lambda: all(process[number].chain.batch.records == 1 for number in (0, 1)))
    threads(monkeypatch, seconds=5.0)
    world.produce(0, LARGE)
    await until(lambda: process[0].chain.batch.records == 2)
    polls, began = polls_of(process), loop_time()
    world.produce(1, '"waits"')
    await until(lambda: process[1].chain.batch.records == 2)
    assert loop_time() - began > 4.0
    early = [poll for poll in polls if poll[0] - began < 4.0]
    assert [wanted for _, wanted, _ in early] == [[]] * len(early)
    assert {timeout for _, _, timeout in early} == {0.0}, "waiting in it would keep others waiting"
    assert len(early) >= 4.0 / IDLE_SECONDS - 1
    await process.end()


@virtual_time
async def test_little_work_is_done_on_the_loop_and_much_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(seconds=1.0, compression="none", keys=NO_KEYS_TIME)
    process = await world.start()
    await process.running()
    given = threads(monkeypatch)
    world.produce(0, '"small"')
    await until(lambda: len(world.links(0)) == 1)
    assert given == []
    world.produce(0, LARGE)
    await until(lambda: len(world.links(0)) == 2)
    assert len(given) == 3, "reading, appending, finishing"
    await process.end()


@virtual_time
async def test_a_time_out_of_somebody_elses_is_no_end_of_a_poll() -> None:
    world = World()
    process = await world.start()
    await process.running()

    async def broken(wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        raise TimeoutError("a listener's")

    process.source.poll = broken  # type: ignore[method-assign]
    failure = await process.failure()
    assert isinstance(failure, ExceptionGroup)
    assert failure.subgroup(TimeoutError) is not None
