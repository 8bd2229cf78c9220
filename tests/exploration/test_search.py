"""The walk itself: it counts right, finds the shortest way into trouble, and knows dead ends and live-locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.exploration.search import FAIR, Broken, Search, TooManyStatesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Graph:
    """A model written out: for each state where it leads, and whether fairly. "!" breaks an invariant."""

    def __init__(self, edges: Mapping[str, list[tuple[str, bool]]], goal: str = "end") -> None:
        self._edges = edges
        self._goal = goal
        self.attempted = ""

    def initial(self) -> str:
        return "start"

    def successors(self, state: str) -> Iterator[tuple[str, bool, str]]:
        for after, fair in self._edges.get(state, []):
            self.attempted = f"to {after}"
            if after == "!":
                raise Broken("no exclamation", state)
            yield self.attempted, fair, after

    def is_goal(self, state: str) -> bool:
        return state == self._goal

    def describe(self, state: str) -> str:
        return state


def test_each_state_is_visited_once_and_each_transition_counted() -> None:
    edges = {"start": [("a", True), ("b", True)], "a": [("end", True)], "b": [("end", True), ("a", False)]}
    report = Search(Graph(edges)).run()
    assert (report.states, report.transitions, report.goals, report.counter_example) == (4, 5, 1, None)


def test_a_broken_invariant_comes_with_the_shortest_way() -> None:
    edges = {"start": [("a", True), ("b", True)], "a": [("c", True)], "c": [("!", True)], "b": [("!", True)]}
    caught = Search(Graph(edges)).run().counter_example
    assert caught is not None
    assert caught.invariant == "no exclamation"
    assert [what for what, _ in caught.steps] == ["at first", "to b", "to !"]
    assert "broken: no exclamation: b" in str(caught)


def test_a_dead_end_is_found() -> None:
    edges = {"start": [("end", True), ("pit", False)]}
    caught = Search(Graph(edges)).run().counter_example
    assert caught is not None
    assert (caught.invariant, caught.steps[-1]) == (FAIR, ("to pit", "pit"))


def test_a_live_lock_is_found() -> None:
    edges = {"start": [("end", True), ("round", True)], "round": [("about", True)], "about": [("round", True)]}
    caught = Search(Graph(edges)).run().counter_example
    assert caught is not None
    assert caught.steps[-1][1] == "round"


def test_a_loop_with_a_fair_way_out_is_none() -> None:
    edges = {"start": [("round", True)], "round": [("start", True), ("end", True)]}
    assert Search(Graph(edges)).run().counter_example is None


def test_a_way_out_by_a_fault_does_not_count() -> None:
    edges = {"start": [("round", True)], "round": [("start", True), ("end", False)]}
    assert Search(Graph(edges)).run().counter_example is not None


def test_a_world_beyond_the_limit_is_refused() -> None:
    edges = {"start": [(str(number), True) for number in range(10)]}
    with pytest.raises(TooManyStatesError):
        Search(Graph(edges), limit=5).run()
