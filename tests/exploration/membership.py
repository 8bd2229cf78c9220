"""Who has the partition, who believes so, and how it changes hands.

Owns: assignment, revocation, take-over behind a zombie's back, crashes, a commit that is made again. Does not own: when
they may happen (`model`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.exploration.world import NOBODY, NOWHERE, Stage

if TYPE_CHECKING:
    from tests.exploration.driver import Fact
    from tests.exploration.ground import Ground
    from tests.exploration.moves import States
    from tests.exploration.world import State


class Membership:
    """The group of one world."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def assign(self, state: State, index: int) -> States:
        if state.owner != NOBODY or state.predecessor:
            return ()
        number, effects = self._ground.drivers[index].assigned(state.writers[index])
        state = self._ground.with_writer(state._replace(owner=index), index, number)
        return (self._ground.affected(state, index, effects),)

    def take_over(self, state: State, index: int) -> States:
        """The owner does not notice: its commits are refused from now on."""
        if state.owner in (NOBODY, index):
            return ()
        former = self._ground.writer(state, state.owner)
        state = self._ground.with_writer(state, state.owner, former._replace(noted=NOWHERE))
        return self.assign(state._replace(owner=NOBODY), index)

    def revoke(self, state: State, index: int) -> States:
        return self._fed(state, index, ("drain",)) if state.owner == index else ()

    def wake(self, state: State, index: int) -> States:
        """A zombie hears of the revocation as if all were well."""
        return self._fed(state, index, ("drain",)) if state.owner != index else ()

    def give_back(self, state: State, index: int) -> States:
        """Drained, or out of time: what is left is abandoned."""
        return (self._left(state, index, Stage.IDLE, self._ground.writer(state, index).incarnation),)

    def crash(self, state: State, index: int) -> States:
        return (self._left(state, index, Stage.DOWN, self._ground.writer(state, index).incarnation + 1),)

    def _left(self, state: State, index: int, stage: int, incarnation: int) -> State:
        number, effects = self._ground.drivers[index].given_up(state.writers[index], stage, incarnation)
        if state.owner == index:
            state = state._replace(owner=NOBODY)
        return self._ground.affected(self._ground.with_writer(state, index, number), index, effects)

    def commit(self, state: State, index: int) -> States:
        """One that failed before is made again."""
        return (self._ground.landed_commit(state, index),)

    def _fed(self, state: State, index: int, fact: Fact) -> States:
        return self._ground.fed(state, index, state.writers[index], fact)
