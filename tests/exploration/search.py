"""Exhaustive search of a bounded world: every state that any interleaving can reach, each visited once.

Owns: the breadth-first walk, the count of states and transitions, the shortest way to a broken invariant, and whether
every state still leads to the goal. Does not own: what a state is and how it changes (`model`).

The last question is answered exactly: a state is doomed when no sequence of *fair* transitions (those that use up no
budget of faults) leads from it to the goal. In a finite graph a run that stays fair for ever ends, if it treats every
transition fairly, in a component that it cannot leave; when no state is doomed, each such component holds the goal. So
"nobody is doomed" excludes dead ends and live-locks alike, without fixing an order in which things have to happen.
"""

from __future__ import annotations

import gc
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

S = TypeVar("S", bound="Hashable")

FAIR = "a fair continuation stores everything"


class Broken(Exception):  # noqa: N818 -- an invariant is broken; whether that is an error, the caller knows
    """An invariant does not hold: its name, and what was seen instead."""

    def __init__(self, invariant: str, seen: str) -> None:
        super().__init__(f"{invariant}: {seen}")
        self.invariant = invariant
        self.seen = seen


class Model(Protocol[S]):
    """What is searched."""

    def initial(self) -> S: ...

    def successors(self, state: S) -> Iterator[tuple[str, bool, S]]:
        """What can happen next: its name, whether it is fair, the state afterwards. Raises Broken in the midst.

        `attempted` names the transition that raised.
        """
        ...

    @property
    def attempted(self) -> str: ...
    def is_goal(self, state: S) -> bool: ...
    def describe(self, state: S) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterExample:
    """The shortest way into trouble: what happened, and the state after each step."""

    invariant: str
    seen: str
    steps: Sequence[tuple[str, str]]

    def __str__(self) -> str:
        lines = [f"broken: {self.invariant}: {self.seen}", f"in {len(self.steps) - 1} steps:"]
        for number, (what, state) in enumerate(self.steps):
            lines += [f"{number:4} {what}", f"       {state}"]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a search saw. `counter_example` None = every invariant holds in every state."""

    states: int
    transitions: int
    goals: int
    counter_example: CounterExample | None


class TooManyStatesError(Exception):
    """The world is larger than it was said to be: the search ends instead of filling the memory."""


@contextmanager
def _no_collections() -> Iterator[None]:
    """States hold no cycles: looking for some, again and again among millions, costs as much as the search itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Search(Generic[S]):
    """One walk through a model; at most `limit` states."""

    def __init__(self, model: Model[S], *, limit: int = 5_000_000) -> None:
        self._model = model
        self._limit = limit
        self._states: list[S] = []
        self._index: dict[S, int] = {}
        self._parents = array("l")
        self._sources, self._targets = array("l"), array("l")  # of the fair transitions
        self._transitions = 0

    def run(self, *, fairness: bool = True) -> Report:
        """Visit everything; stop at the first broken invariant. Without `fairness` nobody asks who is doomed."""
        with _no_collections():
            counter_example = self._walk(self._model.initial())
        goals = [number for number, state in enumerate(self._states) if self._model.is_goal(state)]
        if counter_example is None and fairness:
            counter_example = self._doomed(goals)
        return Report(
            states=len(self._states),
            transitions=self._transitions,
            goals=len(goals),
            counter_example=counter_example,
        )

    def states(self) -> Sequence[S]:
        """All that were visited, in the order of their distance."""
        return self._states

    def _walk(self, first: S) -> CounterExample | None:
        model, index, states = self._model, self._index, self._states
        parents, sources, targets = self._parents, self._sources, self._targets
        index[first] = 0
        states.append(first)
        parents.append(-1)
        current = 0
        while current < len(states):
            try:
                for _, fair, after in model.successors(states[current]):
                    self._transitions += 1
                    number = index.setdefault(after, len(states))
                    if number == len(states):
                        states.append(after)
                        parents.append(current)
                    if fair:
                        sources.append(current)
                        targets.append(number)
            except Broken as broken:
                attempted = model.attempted
                steps = [*self._way_to(current), (attempted, "here it breaks")]
                return CounterExample(invariant=broken.invariant, seen=broken.seen, steps=steps)
            if len(states) > self._limit:
                raise TooManyStatesError(f"more than {self._limit} states")
            current += 1
        return None

    def _doomed(self, goals: Sequence[int]) -> CounterExample | None:
        """The nearest state from which no fair transitions lead to a goal."""
        count = len(self._states)
        begins = array("l", bytes(8 * (count + 2)))
        for target in self._targets:
            begins[target + 2] += 1
        for number in range(2, count + 2):
            begins[number] += begins[number - 1]
        before = array("l", bytes(8 * len(self._targets)))
        for source, target in zip(self._sources, self._targets, strict=True):
            before[begins[target + 1]] = source
            begins[target + 1] += 1
        saved = bytearray(count)
        for goal in goals:
            saved[goal] = 1
        waiting = list(goals)
        while waiting:
            target = waiting.pop()
            for source in before[begins[target] : begins[target + 1]]:
                if not saved[source]:
                    saved[source] = 1
                    waiting.append(source)
        first = saved.find(0)
        if first < 0:
            return None
        seen = f"{saved.count(0)} of {count} states lead nowhere; the nearest is the last one here"
        return CounterExample(invariant=FAIR, seen=seen, steps=self._way_to(first))

    def _way_to(self, number: int) -> list[tuple[str, str]]:
        way = [number]
        while self._parents[way[-1]] >= 0:
            way.append(self._parents[way[-1]])
        way.reverse()
        steps = [("at first", self._model.describe(self._states[way[0]]))]
        for parent, child in pairwise(way):
            steps.append((self._name(parent, child), self._model.describe(self._states[child])))
        return steps

    def _name(self, parent: int, child: int) -> str:
        """Names are not kept: the way is walked once more."""
        after = self._states[child]
        return next(name for name, _, state in self._model.successors(self._states[parent]) if state == after)
