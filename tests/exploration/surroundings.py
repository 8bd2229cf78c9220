"""What happens around the writers: puts and commits on their way, the group's offset, the log, the topic, other people.

Owns: those moves. Does not own: the writers' (`model`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.ports import Committed
from tests.exploration.moves import Faults, Move
from tests.exploration.world import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.exploration.ground import Ground
    from tests.exploration.moves import States
    from tests.exploration.world import State


class Surroundings:
    """The moves of nobody."""

    def __init__(self, ground: Ground, faults: Faults) -> None:
        self._ground = ground
        self._world = ground.world
        table = (
            ("group", self._harm_group),
            ("grow", self._grow),
            ("trim", self._trim),
            ("loss", self._lose),
            ("recreate", self._recreate),
        )
        self._always = tuple(move for name, act in table for move in faults(NOBODY, name, act))
        self._predecessor = (
            Move("the predecessor leaves", self._predecessor_leaves),
            *faults(NOBODY, "predecessor", self._predecessor_commits),
        )
        if self._world.person:
            self._always += (Move("a person deletes the group's offset", self._person),)

    def moves(self, state: State) -> Iterator[Move]:
        yield from self._always
        for thing in state.flying:
            key = self._ground.tables.things[thing].key
            yield Move(f"a put given up lands: {key}", self._land, (thing,), fair=False)
            if self._world.skip_loss:
                yield Move(f"a put given up is lost: {key}", self._vanish, (thing,))
        for late in state.late:
            yield Move(f"a late commit lands: {late[0]}", self._land_commit, (late,), fair=False)
        if state.predecessor:
            yield from self._predecessor

    def _land(self, state: State, _: int, thing: int) -> States:
        state = self._vanished(state, thing)
        found = self._ground.tables.things[thing]
        after, _created = self._ground.created_layout(state, found) if found.body else self._ground.store(state, thing)
        return (after,)

    def _vanish(self, state: State, _: int, thing: int) -> States:
        return (self._vanished(state, thing),)

    def _vanished(self, state: State, thing: int) -> State:
        return state._replace(flying=tuple(one for one in state.flying if one != thing))

    def _land_commit(self, state: State, _: int, late: tuple[int, int]) -> States:
        state = state._replace(late=tuple(one for one in state.late if one != late))
        return (self._ground.committed(state, *late),)

    def _harm_group(self, state: State, _: int) -> Iterator[State]:
        """Deleted, reset by a tool, or moved with the signature of another offset left behind."""
        yield self._committed(state, None)
        signature = self._ground.signature(state, 99)
        for offset in range(len(self._world.log) + 2):
            yield self._committed(state, Committed(offset=offset, metadata=""))
            yield self._committed(state, Committed(offset=offset, metadata=signature))

    def _person(self, state: State, _: int) -> States:
        """What a stall before a foreign signature asks for."""
        return (self._committed(state, None),) if self._ground.signed_by_another(state) else ()

    def _committed(self, state: State, committed: Committed | None) -> State:
        return state._replace(committed=self._ground.tables.committed.number(committed))

    def _grow(self, state: State, _: int) -> Iterator[State]:
        for end in range(state.log_end + 1, len(self._world.log) + 1):
            yield state._replace(log_end=end)

    def _trim(self, state: State, _: int) -> Iterator[State]:
        """Kafka's retention, of what is stored."""
        for start in range(state.log_start + 1, self._ground.end(state.bucket) + 1):
            yield state._replace(log_start=start)

    def _lose(self, state: State, _: int) -> Iterator[State]:
        """Kafka's retention, of what is not stored yet."""
        end = self._ground.end(state.bucket)
        for start in range(max(end, state.log_start) + 1, state.log_end + 1):
            yield state._replace(log_start=start)

    def _recreate(self, state: State, _: int) -> Iterator[State]:
        """The topic is deleted and made anew, empty as yet.

        Kafka rebalances: the partition is nobody's now, and who had it still has to hear of that. It also forgets the
        group's offset, sooner or later.
        """
        anew = state._replace(topic=1, log_start=0, log_end=0, owner=NOBODY)
        yield anew
        yield self._committed(anew, None)

    def _predecessor_commits(self, state: State, _: int) -> States:
        committed = self._ground.tables.committed[state.committed]
        offset = 0 if committed is None else committed.offset
        metadata = "" if committed is None or not committed.metadata else self._world.predecessor_signs(offset + 1)
        return (self._committed(state, Committed(offset=offset + 1, metadata=metadata)),)

    def _predecessor_leaves(self, state: State, _: int) -> States:
        return (state._replace(predecessor=False),)
