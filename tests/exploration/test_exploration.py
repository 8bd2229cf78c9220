"""In every state of every world the invariants hold, and a fair continuation stores everything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.exploration import scenery, worlds
from tests.exploration.model import Exploration
from tests.exploration.runs import chosen_worlds, explore
from tests.exploration.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exploration.world import World

EVENTS = {
    "located", "recovered", "polled", "head", "put", "finished", "set aside", "unanswered", "tick", "age", "pressure",
    "drain", "unreadable",
}  # fmt: skip
ACTIONS = {
    "Append", "Commit", "Drained", "Drop", "Head", "Linked", "Locate", "Put", "PutQuarantine", "Recover", "Seal",
    "Seek", "Stalled", "Unsigned", "Waiting",
}  # fmt: skip
TELLING = (
    "failing store",
    "late polls",
    "slow bodies",
    "offsets harmed",
    "hours, recovery",
    "lagging leader",
    "cut log",
)
PHASES = {"locating", "recovering", "waiting", "positioned", "probing", "running", "stalled", "closed"}
OUTCOMES = {"created", "own", "adopted"}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world", chosen_worlds().values(), ids=lambda world: world.name)
def test_every_interleaving_keeps_the_chain_and_leads_to_the_end(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    explored = explore(world)
    record_property("explored", (world.name, explored.states, explored.transitions, explored.seconds))
    assert explored.counter_example is None, f"\n{explored.counter_example}"
    assert explored.goals
    assert not explored.unused, "a fault that cannot happen proves nothing"


def test_the_worlds_are_not_too_tame() -> None:
    seen: set[str] = set()
    for name in TELLING:
        world = scenery.coarse(worlds.WORLDS[name])
        short = world if world.objects != scenery.AGREED else replace(world, log=scenery.TWO)
        seen |= explore(short, fairness=False).seen
    wanted = {f"event {name}" for name in EVENTS} | ACTIONS
    wanted |= {f"phase {name}" for name in PHASES} | {f"outcome {name}" for name in OUTCOMES}
    assert wanted <= seen


def test_that_bodies_are_finished_at_once_hides_no_outcome() -> None:
    world = scenery.coarse(
        scenery.from_two(scenery.of_two("bodies", "", scenery.FOUR, crash=1, revoke=1, lost_answer=1))
    )
    assert outcomes(world) == outcomes(replace(world, slow_bodies=True))


def outcomes(world: World) -> set[tuple[object, ...]]:
    """What others can see: the data objects, and what is committed. (Orphans in quarantine are seen by nobody.)"""
    model = Exploration(world)
    search = Search(model)
    search.run(fairness=False)
    seen: set[tuple[object, ...]] = set()
    for state in search.states():
        data = frozenset(thing for thing in model.ground.things(state.bucket) if thing.kind == "data")
        seen.add((data, model.ground.tables.committed[state.committed]))
    return seen
