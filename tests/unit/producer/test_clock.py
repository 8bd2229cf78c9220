"""The real poller and fetcher in virtual time, in worlds full of faults (`clock_world`)."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right

import pytest

from tests.unit.producer.clock_world import HAIR_SECONDS, WEATHERS, ClockWorld
from tests.virtual_time import run


def ran(due_ticks: int, world: ClockWorld) -> ClockWorld:
    return run(world.run(due_ticks), seed=world.seed)


def test_ten_thousand_ticks_in_a_stormy_world_keep_to_the_grid_and_are_each_run_or_skipped_for_the_right_reason() -> (
    None
):
    world = ran(10_000, ClockWorld(seed=1))
    world.check()
    assert set(world.counted("ticklake_producer_ticks_skipped_total")) == {"overrun", "throttled", "unacked"}
    assert set(world.counted("ticklake_producer_ticks_total")) == {"ok", "throttled", "unreachable"}
    assert world.api.seen_weathers == set(WEATHERS)


@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.parametrize(("interval_seconds", "timeout_seconds"), [(0.5, 3.0), (2.0, 1.0), (15.0, 10.0)])
def test_the_clock_holds_in_every_world(seed: int, interval_seconds: float, timeout_seconds: float) -> None:
    world = ClockWorld(seed=seed, interval_seconds=interval_seconds, timeout_seconds=timeout_seconds)
    ran(500, world).check()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("per_minute", "interval_seconds", "pages"), [(1, 2.0, 1), (5, 2.0, 1), (5, 60.0, 4), (60, 2.0, 2), (60, 20.0, 30)]
)
def test_no_minute_sees_more_requests_than_the_limit_under_faults_retries_and_pages(
    seed: int, per_minute: int, interval_seconds: float, pages: int
) -> None:
    world = ClockWorld(
        seed=seed,
        per_minute=per_minute,
        interval_seconds=interval_seconds,
        pages=pages,
        weathers=("fair", "fair", "fair", "slow", "errors", "resets", "drip", "hang"),
        changeable=0.1,
    )
    ran(200, world).check()
    assert world.fullest_minute() > per_minute / 3  # else it was no strain


def test_fair_weather_needs_no_waiting_for_the_limit() -> None:
    world = ran(600, ClockWorld(seed=1, per_minute=60, interval_seconds=0.1, weathers=["fair"], away_seconds=0.0))
    world.check()
    assert world.counted("ticklake_producer_ticks_total") == {"ok": 600}
    assert all(visit.started == tick.began for visit, tick in zip(world.api.visits, world.ticks, strict=True))


def test_steps_of_the_wall_clock_change_nothing_but_the_time_of_the_events() -> None:
    steady = ran(1000, ClockWorld(seed=7, dates=False))
    stepped = ran(1000, ClockWorld(seed=7, dates=False, stepping=True))
    assert stepped.api.visits == steady.api.visits
    assert stepped.ticks == steady.ticks
    for name in ("ticklake_producer_ticks_total", "ticklake_producer_ticks_skipped_total"):
        assert stepped.counted(name) == steady.counted(name)
    events = [[(each.source, each.topic, each.records) for each in world.kafka.parcels] for world in (steady, stepped)]
    assert events[0] == events[1]
    times = [(one.time, other.time) for one, other in zip(steady.kafka.parcels, stepped.kafka.parcels, strict=True)]
    assert sum(one != other for one, other in times) > len(times) / 2


@pytest.mark.parametrize("per_minute", [None, 30])
@pytest.mark.parametrize("seed", range(3))
def test_a_machine_that_was_suspended_makes_no_burst(seed: int, per_minute: int | None) -> None:
    world = ClockWorld(seed=seed, per_minute=per_minute, weathers=["fair", "slow", "errors"])
    dice = random.Random(seed)
    suspended: list[float] = []

    async def suspended_now_and_then() -> None:
        async with world.polling() as polling:
            for _ in range(40):
                await asyncio.sleep(dice.uniform(0, 60))
                suspended.append(world.loop.time())
                world.loop._now += dice.choice([1.5, 7.0, 300.0, 86_400.0])  # nothing ran, every timer is overdue
            await asyncio.sleep(60)
            assert not polling.done()

    run(suspended_now_and_then(), seed=seed, limit_seconds=1e7)
    numbers = [world.number(tick.began) for tick in world.ticks]
    assert len(numbers) == len(set(numbers)) > 300
    for tick, number in zip(world.ticks, numbers, strict=True):
        if tick.began - world.due(number) > HAIR_SECONDS:  # late, which only the one that came due meanwhile may be
            assert world.number(suspended[bisect_right(suspended, tick.began) - 1]) == number - 1
    world.check_rate()


@pytest.mark.parametrize("seed", range(30))
def test_stopped_at_any_moment_no_request_goes_on_and_none_follows(seed: int) -> None:
    world = ClockWorld(seed=seed, per_minute=60)

    async def stopped() -> None:
        async with world.polling() as polling:
            await asyncio.sleep(random.Random(seed).uniform(0, 120))
            assert not polling.done()
        visits = len(world.api.visits)
        assert all(visit.ended is not None for visit in world.api.visits)
        await asyncio.sleep(100)
        assert len(world.api.visits) == visits

    run(stopped(), seed=seed)
