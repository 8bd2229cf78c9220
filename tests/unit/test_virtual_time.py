"""The loop of virtual time: it jumps, it repeats itself, and it does not hang."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.virtual_time import NothingScheduledError, TooLateError, run, virtual_time


def test_hours_pass_in_no_time_and_in_order() -> None:
    async def main() -> list[float]:
        began, woken = asyncio.get_running_loop().time(), []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(asyncio.get_running_loop().time() - began)

        await asyncio.gather(*(sleeper(seconds) for seconds in (7200.0, 0.1, 3600.0)))
        return woken

    real = time.monotonic()
    assert run(main()) == pytest.approx([0.1, 3600.0, 7200.0])
    assert time.monotonic() - real < 5


def test_waiting_for_nothing_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingScheduledError, match="nothing is ready"):
        run(main())


def test_waiting_beyond_the_limit_is_an_error() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(10)

    with pytest.raises(TooLateError, match="virtual time is"):
        run(main(), limit_seconds=1000)


def test_the_seed_decides_in_which_order_threads_end() -> None:
    async def main() -> list[int]:
        ended: list[int] = []
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, ended.append, number) for number in range(8)))
        return ended

    orders = [run(main(), seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(8))


@virtual_time
async def test_work_in_a_thread_ends_though_nobody_waits_any_more() -> None:
    done: list[str] = []
    waiting = asyncio.get_running_loop().run_in_executor(None, done.append, "work")
    waiting.cancel()
    await asyncio.sleep(1)
    assert done == ["work"]


@virtual_time
async def test_what_a_thread_raises_is_raised_where_it_is_awaited() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)
