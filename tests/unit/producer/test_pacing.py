from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.pacing import Grid, Run, Wait, backoff, decide, first_grid, skip_reason, tick_budget


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
