from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.pacing import (
    Grid,
    RateLimit,
    Run,
    Wait,
    backoff,
    decide,
    first_grid,
    skip_reason,
    stretched_period,
    tick_budget,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def walk(grid: Grid, durations: list[float]) -> tuple[list[tuple[int, float, float]], int]:
    """Run ticks of these durations in virtual time: (number, began, ended) of each, and how many were missed."""
    now = grid.start - 1
    upcoming, missed, running = 0, 0, False
    ran: list[tuple[int, float, float]] = []
    waiting = iter(durations)
    while True:
        step = decide(grid, upcoming, now, running=running)
        running = False
        if isinstance(step, Wait):
            assert step.until >= now
            missed += step.missed
            upcoming, now = step.tick, step.until
            continue
        duration = next(waiting, None)
        if duration is None:
            return ran, missed
        ran.append((step.tick, now, now + duration))
        upcoming, now, running = step.tick + 1, now + duration, True


def test_ten_thousand_ticks_do_not_drift() -> None:
    dice = random.Random(3)
    grid = Grid(start=1234.5678, period=0.1)
    ran, missed = walk(grid, [dice.uniform(0, 0.099) for _ in range(10_000)])
    assert [tick for tick, _, _ in ran] == list(range(10_000))
    assert [began for _, began, _ in ran] == [1234.5678 + tick * 0.1 for tick in range(10_000)]
    assert missed == 0


@given(
    start=st.floats(0, 1e6),
    period=st.floats(0.01, 100),
    durations=st.lists(st.floats(0, 10), min_size=1, max_size=50),
)
def test_ticks_never_overlap_never_burst_and_are_run_or_missed_once(
    start: float, period: float, durations: list[float]
) -> None:
    grid = Grid(start=start, period=period)
    ran, missed = walk(grid, [duration * period for duration in durations])
    for (_, _, ended), (tick, began, _) in itertools.pairwise(ran):
        assert began >= ended
        assert began == grid.due(tick)
    last = ran[-1][0]
    assert len({tick for tick, _, _ in ran}) == len(ran)
    assert len(ran) + missed >= last + 1


def test_an_overrun_skips_what_came_due_and_goes_on_at_the_next_grid_point() -> None:
    grid = Grid(start=10.0, period=2.0)
    assert decide(grid, 1, 15.0, running=True) == Wait(tick=3, until=16.0, missed=2)
    assert decide(grid, 1, 11.9, running=True) == Wait(tick=1, until=12.0, missed=0)


def test_a_machine_that_slept_does_not_run_two_ticks_in_a_row() -> None:
    grid = Grid(start=10.0, period=2.0)
    assert decide(grid, 1, 12.3, running=False) == Run(tick=1)
    assert decide(grid, 1, 20.5, running=False) == Wait(tick=6, until=22.0, missed=5)


def test_a_clock_that_wakes_early_waits_on() -> None:
    assert decide(Grid(start=10.0, period=2.0), 1, 11.999, running=False) == Wait(tick=1, until=12.0, missed=0)


@given(start=st.floats(0, 1e9), period=st.floats(1e-3, 1e5), now=st.floats(0, 1e9))
def test_the_reached_tick_is_the_last_that_is_due(start: float, period: float, now: float) -> None:
    grid = Grid(start=start, period=period)
    reached = grid.reached(now)
    assert (grid.due(reached) <= now < grid.due(reached + 1)) or (reached == -1 and now < start)


def test_the_phase_is_at_most_the_period_and_at_most_five_seconds() -> None:
    assert first_grid(100.0, 2.0, 0.5) == Grid(start=101.0, period=2.0)
    assert first_grid(100.0, 60.0, 1.0).start == 105.0
    assert first_grid(100.0, 60.0, 0.0).start == 100.0


def test_the_budget_is_the_longer_of_period_and_timeout() -> None:
    assert tick_budget(2.0, 10.0) == 10.0
    assert tick_budget(60.0, 10.0) == 60.0


@given(attempt=st.integers(1, 10_000), uniform=st.floats(0, 1))
def test_the_backoff_has_full_jitter_and_a_ceiling(attempt: int, uniform: float) -> None:
    assert 0 <= backoff(attempt, uniform) <= 8.0
    assert backoff(attempt, 0.0) == 0.0
    assert backoff(attempt, 1.0) == min(8.0, 0.5 * 2.0 ** min(attempt - 1, 16))


@pytest.mark.parametrize(
    ("now", "unacked", "expected"), [(9.9, 0, "throttled"), (10.0, 0, None), (11.0, 100, None), (11.0, 101, "unacked")]
)
def test_why_a_due_tick_does_not_run(now: float, unacked: int, expected: str | None) -> None:
    assert skip_reason(now, not_before=10.0, unacked_bytes=unacked, max_unacked_bytes=100) == expected
    assert skip_reason(now, not_before=-math.inf, unacked_bytes=0, max_unacked_bytes=100) is None


def test_a_poll_that_would_exceed_what_may_wait_is_skipped_unless_nothing_waits() -> None:
    def skipped(unacked: int, expected: int) -> str | None:
        return skip_reason(
            0.0, not_before=-math.inf, unacked_bytes=unacked, max_unacked_bytes=100, expected_bytes=expected
        )

    assert skipped(40, 60) is None
    assert skipped(41, 60) == "unacked"
    assert skipped(0, 500) is None
    assert skipped(1, 500) == "unacked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`late` seconds after it was allowed, arriving at `arrives` (0…1) of its `latency`; settled at the end of that."""

    late: float
    latency: float
    arrives: float


ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        late=st.one_of(st.just(0.0), st.floats(0, 100)),
        latency=st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 70)),
        arrives=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
    ),
    max_size=60,
)


def run_attempts(limit: RateLimit, attempts: Iterable[Attempt], now: float = 1000.0) -> tuple[list[float], list[float]]:
    """Starts and arrivals when each attempt is made as early as it is allowed, or later."""
    starts, arrivals = [], []
    for attempt in attempts:
        now += attempt.late
        while (wait := limit.wait_seconds(now)) > 0:
            now += wait
        limit.started(now)
        starts.append(now)
        arrivals.append(now + attempt.latency * attempt.arrives)
        now += attempt.latency
        limit.settled(now)
        limit.settled(now + 50.0)  # the body's end, after the head: it does not count
    return starts, arrivals


@given(st.sampled_from([1, 2, 5, 7, 30, 600]), ATTEMPTS)
def test_no_60_seconds_hold_more_requests_than_the_limit_wherever_in_their_latency_they_arrive(
    per_minute: int, attempts: list[Attempt]
) -> None:
    _, arrivals = run_attempts(RateLimit(per_minute), attempts)
    assert arrivals == sorted(arrivals)
    for first, one_too_many in zip(arrivals, arrivals[per_minute:], strict=False):
        assert one_too_many - first > 60.0


@given(st.sampled_from([1, 2, 5, 7, 30, 600]), ATTEMPTS)
def test_requests_start_at_least_their_share_of_a_minute_apart(per_minute: int, attempts: list[Attempt]) -> None:
    starts, _ = run_attempts(RateLimit(per_minute), attempts)
    assert all(later - earlier >= 60 / per_minute - 1e-9 for earlier, later in itertools.pairwise(starts))


@given(st.sampled_from([1, 5, 600]), ATTEMPTS)
def test_the_wait_for_a_turn_is_never_longer_than_the_window(per_minute: int, attempts: list[Attempt]) -> None:
    limit, now = RateLimit(per_minute), 0.0
    for attempt in attempts:
        wait = limit.wait_seconds(now)
        assert 0 <= wait <= 60.02
        now += wait + attempt.late
        limit.started(now)
        now += attempt.latency
        limit.settled(now)


def test_the_first_request_may_start_at_once_and_a_request_under_way_holds_its_place() -> None:
    limit = RateLimit(2)
    assert limit.wait_seconds(0.0) == 0.0
    limit.started(0.0)
    assert limit.wait_seconds(10.0) == 20.0
    limit.settled(29.0)  # a slow one: it may have arrived as late as that
    limit.started(30.0)
    limit.settled(30.1)
    assert limit.wait_seconds(60.0) == pytest.approx(29.01)


def test_a_grid_under_the_limit_needs_no_waiting_while_answers_take_less_than_a_second() -> None:
    for per_minute in (1, 5, 60, 600):
        period = stretched_period(0.0, per_minute)
        limit = RateLimit(per_minute)
        for tick in range(3 * per_minute):
            now = tick * period
            assert limit.wait_seconds(now) == 0.0
            limit.started(now)
            limit.settled(now + min(0.9, period / 2))


def test_a_period_longer_than_the_limits_is_kept() -> None:
    assert stretched_period(15.0, 5) == 15.0
    assert stretched_period(2.0, 5) == pytest.approx(12.2)
    assert stretched_period(2.0, None) == 2.0


def test_a_limit_of_millions_costs_only_what_was_asked() -> None:
    limit = RateLimit(10**6)
    for number in range(100_000):
        now = number * 0.01
        assert limit.wait_seconds(now) == 0.0
        limit.started(now)
        limit.settled(now)
    assert len(limit._settled) < 6100
