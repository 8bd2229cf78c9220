"""When things happen: the grid of ticks, the wait between attempts.

Owns: tick n is due at start + n x period; which tick is next and how many were missed; the back-off; the rate limit.
Does not own: a clock (every function is told what time it is), tasks, requests. Pure. All times in seconds.

Invariants: the due time of a tick depends on its number alone (no drift); a tick is run or skipped, once; two ticks
never run at the same time; after an overrun the next tick runs at its own grid point (no burst).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MAX_PHASE_SECONDS = 5.0
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 8.0
RATE_WINDOW_SECONDS = 60.0
RATE_SLACK_SECONDS = 1.0  # of latency that a period under a rate limit has room for, a window
RATE_MARGIN_SECONDS = 0.01  # a server's clock need not tick exactly as ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The due times of one endpoint's ticks on the monotonic clock."""

    start: float
    period: float

    def due(self, tick: int) -> float:
        return self.start + tick * self.period

    def reached(self, now: float) -> int:
        """The greatest tick due at or before `now`; -1 before the start."""
        if now < self.start:
            return -1
        tick = math.floor((now - self.start) / self.period)
        while self.due(tick + 1) <= now:  # the division rounds; the due times decide
            tick += 1
        while self.due(tick) > now:
            tick -= 1
        return tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run this tick now."""

    tick: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Look again at `until`, when tick number `tick` is due; `missed` ticks came due and will not run."""

    tick: int
    until: float
    missed: int


def first_grid(now: float, period: float, uniform: float) -> Grid:
    """The grid of a process that starts now; `uniform` in 0…1 spreads the phases of many processes."""
    return Grid(start=now + uniform * min(period, MAX_PHASE_SECONDS), period=period)


def decide(grid: Grid, upcoming: int, now: float, *, running: bool) -> Run | Wait:
    """What to do now, when `upcoming` is the next tick that has neither run nor been skipped.

    `running`: the tick before it ran until now, so whatever came due meanwhile is missed. When nothing ran, a tick
    whose successor is due as well (a suspended machine) is missed too: running it late would make two in a row.
    """
    reached = grid.reached(now)
    if reached < upcoming:
        return Wait(tick=upcoming, until=grid.due(upcoming), missed=0)
    if reached == upcoming and not running:
        return Run(tick=upcoming)
    return Wait(tick=reached + 1, until=grid.due(reached + 1), missed=reached + 1 - upcoming)


def tick_budget(period: float, timeout: float) -> float:
    """How long one tick may take, attempts and waits included."""
    return max(period, timeout)


def backoff(attempt: int, uniform: float) -> float:
    """The wait after failed attempt number `attempt` (1, 2, …): full jitter, `uniform` in 0…1."""
    return uniform * min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(attempt - 1, 16))


def skip_reason(
    now: float, *, not_before: float, unacked_bytes: int, max_unacked_bytes: int, expected_bytes: int = 0
) -> str | None:
    """Why a due tick must not run, or None. `expected_bytes`: what it will probably add to what waits; a poll that is
    larger than the limit by itself runs when nothing waits.
    """
    if now < not_before:
        return "throttled"
    if unacked_bytes and unacked_bytes + expected_bytes > max_unacked_bytes:
        return "unacked"
    return None


def stretched_period(period: float, per_minute: int | None) -> float:
    """The period under a rate limit: so long that answers of up to a second need no further waiting."""
    return period if per_minute is None else max(period, (RATE_WINDOW_SECONDS + RATE_SLACK_SECONDS) / per_minute)


class RateLimit:
    """Holds one endpoint's requests so far apart that no 60 seconds see more than `per_minute` of them at the server.

    A request that starts at s arrives somewhere in [s, e], where e is when its answer's head was read or it failed:
    then it is settled. Requests do not overlap. Two rules: starts are at least 60/N apart, and a request starts only
    when the N-th last has been settled for more than 60 s. By the second, N + 1 arrivals span more than 60 s, whatever
    the latencies.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._gap = RATE_WINDOW_SECONDS / per_minute
        self._started = -math.inf
        self._settled: deque[float] = deque()  # of the last 60 s, at most `per_minute`

    def wait_seconds(self, now: float) -> float:
        """How long until a request may start; 0 = it may."""
        self._drop_old(now)
        wait = max(0.0, self._started + self._gap - now)
        if len(self._settled) >= self._per_minute:
            wait = max(wait, self._settled[-self._per_minute] + RATE_WINDOW_SECONDS + RATE_MARGIN_SECONDS - now)
        return wait

    def started(self, now: float) -> None:
        """A request starts now, and may arrive at any moment until it is settled."""
        self._started = now
        self._settled.append(math.inf)

    def settled(self, now: float) -> None:
        """The request has arrived or failed; of several calls for one request the first counts."""
        if self._settled and self._settled[-1] == math.inf:
            self._settled[-1] = now

    def _drop_old(self, now: float) -> None:
        while self._settled and self._settled[0] < now - RATE_WINDOW_SECONDS - RATE_MARGIN_SECONDS:
            self._settled.popleft()
