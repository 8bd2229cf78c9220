"""One exploration from beginning to end, and what it saw, in a line.

Owns: which worlds run (EXPLORE=deep for more), the limits, the table. Does not own: the search.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.exploration.model import Exploration
from tests.exploration.search import Search
from tests.exploration.worlds import DEEP, WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.exploration.search import CounterExample
    from tests.exploration.world import World

LIMIT: Final = 6_000_000  # states of one world; each costs about half a kilobyte
HEAD: Final = f"{'world':32} {'states':>10} {'transitions':>12} {'seconds':>8}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """The result for one world. `unused`: faults that never happened. `seen`: see `driver`."""

    world: World
    states: int
    transitions: int
    goals: int
    seconds: float
    seen: frozenset[str]
    unused: tuple[str, ...]
    counter_example: CounterExample | None

    @property
    def line(self) -> str:
        return line(self.world.name, self.states, self.transitions, self.seconds)


def line(name: str, states: int, transitions: int, seconds: float) -> str:
    return f"{name:32} {states:10,} {transitions:12,} {seconds:8.1f}"


def chosen_worlds() -> dict[str, World]:
    """Those that this run explores."""
    return {**WORLDS, **DEEP} if os.environ.get("EXPLORE") == "deep" else WORLDS


def explore(world: World, *, fairness: bool = True) -> Explored:
    """Visit all of a world, or as far as the first broken invariant."""
    began = time.process_time()
    model = Exploration(world)
    search = Search(model, limit=LIMIT)
    report = search.run(fairness=fairness)
    left = [min(state.budgets[index] for state in search.states()) for index in range(len(world.budgets))]
    return Explored(
        world=world,
        states=report.states,
        transitions=report.transitions,
        goals=report.goals,
        seconds=time.process_time() - began,
        seen=frozenset().union(*(driver.seen for driver in model.ground.drivers)),
        unused=tuple(name for name, count in zip(world.budgets, left, strict=True) if count),
        counter_example=report.counter_example,
    )


def total(all_explored: Iterable[tuple[int, int, float]]) -> str:
    """The last line of the table."""
    sums = [sum(column) for column in zip(*all_explored, strict=True)] or [0, 0, 0.0]
    return line("all", int(sums[0]), int(sums[1]), sums[2])
