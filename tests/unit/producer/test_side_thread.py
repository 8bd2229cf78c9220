from __future__ import annotations

import asyncio
import threading

import pytest

from producer.side_thread import beside


async def test_all_work_is_done_in_one_thread_that_is_not_the_loops() -> None:
    numbers = await asyncio.gather(*(beside(threading.get_ident) for _ in range(20)))
    assert len(set(numbers)) == 1
    assert threading.get_ident() not in numbers


async def test_the_loop_turns_while_work_is_done() -> None:
    turned = threading.Event()

    def work() -> bool:
        return turned.wait(60)

    working = asyncio.create_task(beside(work))
    await asyncio.sleep(0)
    turned.set()
    assert await working


async def test_what_the_work_raises_is_the_callers() -> None:
    def work() -> None:
        raise ValueError("no record")

    with pytest.raises(ValueError, match="no record"):
        await beside(work)
    assert await beside(lambda: 1) == 1
