"""Freezing, waking and killing one of several processes on a loop of virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.simulation.processes import ProcessLoop, context_of, current_process
from tests.virtual_time import NothingScheduledError, run

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def live(main: Coroutine[object, object, T]) -> T:
    return run(main, loop_class=ProcessLoop)


def the_loop() -> ProcessLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ProcessLoop)
    return loop


def start(process: str, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work, context=context_of(process))


async def beat(beats: list[float], every: float = 1.0) -> None:
    loop = asyncio.get_running_loop()
    while True:
        beats.append(round(loop.time() - 1000))
        await asyncio.sleep(every)


def test_a_frozen_process_stands_still_and_the_others_do_not() -> None:
    async def main() -> None:
        loop, one, other = the_loop(), list[float](), list[float]()
        tasks = [start("one", beat(one)), start("other", beat(other))]
        await asyncio.sleep(2.25)
        loop.freeze("one")
        await asyncio.sleep(10)
        assert one == [0, 1, 2]
        assert other == list(range(13))
        loop.thaw("one")
        await asyncio.sleep(1.1)
        assert one == [0, 1, 2, 12, 13]  # at once, then on its own clock again
        assert len(other) == 14
        for task in tasks:
            task.cancel()

    live(main())


def test_what_a_process_started_is_frozen_with_it_tasks_callbacks_and_threads() -> None:
    async def main() -> None:
        loop, done = the_loop(), list[str]()

        async def parent() -> None:
            child = asyncio.create_task(asyncio.sleep(1, "task"))
            child.add_done_callback(lambda task: done.append(task.result()))
            asyncio.get_running_loop().call_later(1, done.append, "timer")
            await asyncio.get_running_loop().run_in_executor(None, done.append, "thread")
            await asyncio.sleep(2)

        task = start("one", parent())
        await asyncio.sleep(0)
        loop.freeze("one")
        await asyncio.sleep(100)
        assert not done
        loop.thaw("one")
        await task
        assert sorted(done) == ["task", "thread", "timer"]

    live(main())


def test_an_answer_that_came_is_seen_before_the_deadline_that_ran_out() -> None:
    async def main() -> None:
        loop = the_loop()
        answer: asyncio.Future[str] = loop.create_future()

        async def ask() -> str:
            async with asyncio.timeout(5):
                return await answer

        task = start("one", ask())
        await asyncio.sleep(1)
        loop.freeze("one")
        await asyncio.sleep(10)
        answer.set_result("late, but there")
        await asyncio.sleep(10)
        assert not task.done()
        loop.thaw("one")
        assert await task == "late, but there"

    live(main())


def test_a_deadline_that_ran_out_while_frozen_is_met_on_waking() -> None:
    async def main() -> None:
        loop = the_loop()

        async def ask() -> None:
            async with asyncio.timeout(5):
                await asyncio.Event().wait()

        task = start("one", ask())
        await asyncio.sleep(1)
        loop.freeze("one")
        await asyncio.sleep(60)
        loop.thaw("one")
        with pytest.raises(TimeoutError):
            await task

    live(main())


def test_a_timer_that_was_cancelled_on_waking_does_not_ring() -> None:
    async def main() -> None:
        loop, rung = the_loop(), list[str]()
        wake: asyncio.Future[None] = loop.create_future()

        async def sleeper() -> None:
            timer = asyncio.get_running_loop().call_later(5, rung.append, "rung")
            await wake
            timer.cancel()

        task = start("one", sleeper())
        await asyncio.sleep(1)
        loop.freeze("one")
        await asyncio.sleep(10)
        wake.set_result(None)
        loop.thaw("one")
        await task
        await asyncio.sleep(10)
        assert not rung

    live(main())


def test_the_clock_of_its_deadlines_stands_still_while_it_is_frozen() -> None:
    async def main() -> None:
        loop = the_loop()
        began = loop.awake_seconds("one")
        for _ in range(2):
            await asyncio.sleep(3)
            loop.freeze("one")
            assert loop.is_frozen("one")
            await asyncio.sleep(100)
            loop.thaw("one")
        assert loop.awake_seconds("one") - began == pytest.approx(6)
        assert loop.awake_seconds("other") == loop.time()

    live(main())


def test_a_killed_process_does_nothing_more_until_its_remains_are_cleared_away() -> None:
    async def main() -> None:
        loop, last_words = the_loop(), list[str]()

        async def victim() -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                last_words.append("finally")

        task = start("one", victim())
        await asyncio.sleep(1)
        loop.freeze("one")
        task.cancel()
        await asyncio.sleep(1000)
        assert not last_words
        loop.release()
        await asyncio.wait([task])
        assert last_words == ["finally"]

    live(main())


def test_waiting_for_a_frozen_process_alone_is_waiting_for_nothing() -> None:
    async def main() -> None:
        loop = the_loop()
        task = start("one", asyncio.sleep(1))
        await asyncio.sleep(0)
        loop.freeze("one")
        await asyncio.wait([task])

    with pytest.raises(NothingScheduledError):
        live(main())


def test_the_context_names_the_process() -> None:
    async def who() -> str:
        await asyncio.sleep(1)
        return current_process()

    async def main() -> list[str]:
        return [await start("one", who()), await who()]

    assert live(main()) == ["one", ""]


def test_the_tasks_of_a_process_can_be_told() -> None:
    async def parent() -> None:
        child = asyncio.create_task(asyncio.sleep(5), name="child")
        await child

    async def main() -> list[str]:
        task = start("one", parent())
        task.set_name("parent")
        other = start("other", asyncio.sleep(5))
        await asyncio.sleep(1)
        names = [task.get_name() for task in the_loop().tasks_of("one")]
        await asyncio.wait([task, other])
        assert not the_loop().tasks_of("one")
        return names

    assert live(main()) == ["parent", "child"]
