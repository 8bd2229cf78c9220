"""The simulation's teeth: each planted bug is found within so many seeds."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import live

SEEDS: Final = 150


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_planted_bug_is_found(mutant: Mutant) -> None:
    seeds = range(mutant.first, mutant.first + SEEDS)
    with mutant.planted():
        found = next((life for life in map(live, seeds) if life.failure is not None), None)
    assert found is not None, f"{mutant.name}: not found in {seeds}; worlds have changed: look on, move `first`"
    assert f"--seed {found.seed}" in found.report()
    assert found.trace[-1] in found.report()
    assert live(found.seed).failure is None, "the bug is gone, but the world still goes wrong"


def test_a_bug_whose_place_is_gone_cannot_be_planted() -> None:
    mutant = MUTANTS[0]
    stale = Mutant(name="stale", place=mutant.place, function=mutant.function, was="was never there", now="")
    with pytest.raises(LookupError, match="0 times"), stale.planted():
        pytest.fail("planted")
