"""How a process comes up: from nothing to a place in the group, or to a refusal.

Owns: the answers that a start gets, and what they change. Does not own: the questions (`starting`), the layout's
invariants (`ground`, `invariants`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.ports import PutAnswer
from tests.exploration.moves import Move
from tests.exploration.starting import Ended
from tests.exploration.world import TOPIC_IDS, Stage, Thing, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.exploration.ground import Ground
    from tests.exploration.moves import Faults, States
    from tests.exploration.starting import Question
    from tests.exploration.world import State


class Launching:
    """The moves of processes that are not in the group yet."""

    def __init__(self, ground: Ground, faults: Faults) -> None:
        self._ground = ground
        self._world = ground.world
        self._faults = faults

    def moves(self, index: int, writer: Writer) -> Iterator[Move]:
        name = "ab"[index]
        if writer.stage == Stage.DOWN:
            yield Move(f"{name} starts", self._start)
            return
        stands = self._ground.starts[index].after(writer.incarnation, writer.answers)
        if isinstance(stands, Ended):
            yield Move(f"{name} {'agrees' if stands.layout else 'is refused: ' + stands.refusal}", self._end, (stands,))
            return
        yield Move(f"{name} asks: {stands.kind}", self._answer, (stands,))
        if stands.kind == "put":
            yield from self._faults(index, "lost answer", self._lose, stands)

    def _start(self, state: State, index: int) -> States:
        writer = self._ground.writer(state, index)
        if self._world.from_start:
            return (self._ground.with_writer(state, index, writer._replace(stage=Stage.STARTING)),)
        agreed = self._ground.agreed
        return (self._ground.with_writer(state, index, writer._replace(stage=Stage.IDLE, layout=agreed)),)

    def _end(self, state: State, index: int, ended: Ended) -> States:
        writer = self._ground.writer(state, index)
        after = Writer(stage=Stage.REFUSED, incarnation=writer.incarnation)
        if ended.layout is not None:
            agreed = self._ground.tables.layouts.number(ended.layout.encode())
            after = Writer(stage=Stage.IDLE, incarnation=writer.incarnation, layout=agreed)
        return (self._ground.with_writer(state, index, after),)

    def _answer(self, state: State, index: int, question: Question) -> States:
        writer = self._ground.writer(state, index)
        if question.kind == "members" and self._has_members(state):
            assert self._ground.starts[index].waits_on(writer.incarnation, writer.answers)
            return ()
        if question.kind == "put":
            state, created = self._ground.created_layout(state, _layout_thing(question), index)
            answer: object = PutAnswer.CREATED if created else PutAnswer.EXISTS
        else:
            answer = self._read(state, question)
        return (
            self._ground.with_writer(state, index, writer._replace(answers=(*writer.answers, (question.kind, answer)))),
        )

    def _has_members(self, state: State) -> bool:
        writers = (self._ground.writer(state, index) for index in range(len(state.writers)))
        return state.predecessor or any(writer.stage in (Stage.IDLE, Stage.ACTIVE) for writer in writers)

    def _read(self, state: State, question: Question) -> object:
        bucket, subject = self._ground.bucket(state), question.subject
        match question.kind:
            case "identity":
                return TOPIC_IDS[state.topic] if self._world.knows_topic_ids else None
            case "committed":
                return state.committed
            case "log":
                return (("start", state.log_start), ("high_watermark", state.log_end))
            case "members":
                return False
            case "keys":
                return tuple(bucket.keys_below(subject))
            case "folders":
                return tuple(bucket.folders_below(subject))
            case "get":
                thing = bucket.things.get(subject)
                return None if thing is None else thing.body
            case "head" if subject not in bucket.things:
                return None
        raise AssertionError(question)

    def _lose(self, state: State, _: int, question: Question) -> States:
        """The layout's put lands later, or never; it is made again, so the start stands where it stood."""
        return (self._ground.fly(state, self._ground.tables.things.number(_layout_thing(question))),)


def _layout_thing(question: Question) -> Thing:
    key, body = question.subject
    return Thing(kind="layout", key=key, body=body)
