"""Each planted bug is caught, by its name and by the invariant that it breaks."""

from __future__ import annotations

import pytest

from tests.exploration.mutants import MUTANTS, Mutant
from tests.exploration.runs import explore
from tests.exploration.worlds import WORLDS

# The list of the issue that ordered them, in its words.
ORDERED = {
    "end offset in the key",
    "commit before put",
    "unsigned commits trusted",
    "recovery by log start instead of listing",
    "origin per member",
    "adopt without dropping what is buffered",
    "commit before dropping",
    "putting behind a chunk of unknown outcome",
    "adopt trusting our own end",
    "409 treated as exists",
    "no seek after assignment",
    "extension by chunk size",
    "n one record too high at a seal",
    "layout written before a foreign signature is noticed",
    "skip without waiting",
    "quarantine after the main object",
    "quarantine counted by range alone",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutant.plant(patch)
        caught = explore(WORLDS[mutant.world]).counter_example
    assert caught is not None, f"{mutant.world} lets it live"
    assert caught.invariant == mutant.invariant, f"\n{caught}"


def test_every_bug_of_the_list_is_planted() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert set(names) >= ORDERED
    assert len(names) == len(set(names))


def test_a_planted_bug_leaves_nothing_behind() -> None:
    """The worlds of the mutants are whole without them: what was caught was the bug (all of them: test_exploration)."""
    with pytest.MonkeyPatch.context() as patch:
        for mutant in MUTANTS:
            mutant.plant(patch)
    assert explore(WORLDS["late polls"]).counter_example is None
