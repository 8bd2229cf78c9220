"""Repeating: delays by class of failure, any awaitable, an end at once when cancelled."""

from __future__ import annotations

import asyncio

import pytest

from consumer.ports import Failure, SourceError, StoreError
from consumer.retrying import delay_seconds, until_answered
from tests.virtual_time import virtual_time

PASSING = [failure for failure in Failure if failure is not Failure.REFUSED]


def test_a_refusal_waits_thirty_seconds_whatever_the_attempt() -> None:
    assert all(30 <= delay_seconds(Failure.REFUSED, attempt) <= 31 for attempt in (0, 1, 2, 50, 10_000))


@pytest.mark.parametrize("failure", PASSING)
def test_what_passes_backs_off_with_full_jitter_up_to_a_cap(failure: Failure) -> None:
    for attempt, most in ((1, 0.2), (2, 0.4), (5, 3.2), (50, 20.0), (100_000, 20.0)):
        delays = [delay_seconds(failure, attempt) for _ in range(300)]
        assert 0 <= min(delays) < 0.2 * most
        assert 0.8 * most < max(delays) <= most


@virtual_time
async def test_it_asks_until_there_is_an_answer_and_tells_of_each_failure_before_the_wait() -> None:
    loop, told = asyncio.get_running_loop(), []
    errors = [StoreError(Failure.REFUSED, "no"), SourceError("away"), StoreError(Failure.CONFLICT, "busy")]
    left = list(errors)

    async def ask() -> int:
        if left:
            raise left.pop(0)
        return 7

    began = loop.time()
    # A lambda that returns a coroutine is what callers give.
    assert await until_answered(lambda: ask(), on_failure=lambda e: told.append((loop.time(), e))) == 7  # noqa: PLW0108
    assert [error for _, error in told] == errors
    assert told[0][0] == began
    assert told[1][0] - began >= 30


@virtual_time
async def test_anything_else_is_raised_at_once() -> None:
    async def ask() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_answered(ask, on_failure=lambda _: pytest.fail("told"))


@virtual_time
async def test_what_the_hearer_raises_ends_it() -> None:
    async def ask() -> None:
        raise SourceError("away")

    def hear(_: Exception) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_answered(ask, on_failure=hear)


@virtual_time
async def test_cancelling_ends_a_wait_and_a_request_at_once() -> None:
    async def refuse() -> None:
        raise StoreError(Failure.REFUSED, "no")

    async def silent() -> None:
        await asyncio.sleep(1000)

    for ask in (refuse, silent):
        asking = asyncio.create_task(until_answered(ask, on_failure=lambda _: None))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert asyncio.get_running_loop().time() == began
