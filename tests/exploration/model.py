"""Everything that can happen next in a bounded world.

Owns: what a writer may do for all that it knows, its requests and polls, and the whole as `search` sees it. Does not
own: the writers' decisions (`driver`), what a move does to the world (`ground`), starts (`launching`), the group
(`membership`), the rest (`surroundings`), the walk (`search`).

Faults use up a budget; all else is fair, but for what may come and need not: puts and commits that were given up. By
budget: `crash`; `zombie` (the partition goes to another writer, the owner does not notice); `revoke`; `pressure`;
`lost answer` (a put is given up, and lands at any later moment or never); `error` (5xx, no effect); `conflict` (409, no
effect); `silence` (a HEAD or quarantine put fails); `unreadable`; `commit` (it fails, and is made again later);
`late commit` (it lands under any later generation); `lag` (a new leader's high watermark); `group` (offsets deleted or
reset to anything unsigned); `grow`, `trim`, `loss` (the log); `recreate` (the topic); `predecessor` (commits again).

A commit lands at once or fails; whether its answer is lost makes no difference, it is made again either way. A HEAD
that finds an object is one move: objects never change, so reading it earlier makes no difference; one that finds
nothing is two, since the answer may be old when it arrives. So are the two questions of a locate where the log moves.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from consumer.chain import Phase
from tests.exploration import invariants
from tests.exploration.clock import waits
from tests.exploration.driver import answered, without
from tests.exploration.ground import Ground
from tests.exploration.launching import Launching
from tests.exploration.membership import Membership
from tests.exploration.moves import FREE, Move, pay
from tests.exploration.search import Broken
from tests.exploration.surroundings import Surroundings
from tests.exploration.telling import tell
from tests.exploration.world import NOBODY, NOTHING, NOWHERE, Stage, State, World, Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from consumer.chain import Chain
    from tests.exploration.moves import States


class Exploration:
    """The model of one world (`search.Model`)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attempted = ""
        self.ground = Ground(world)
        self._faults = self.ground.faults
        self._log_moves = not {"grow", "trim", "loss", "recreate", "lag"}.isdisjoint(world.budgets)
        self._launching = Launching(self.ground, self._faults)
        self._membership = Membership(self.ground)
        self._surroundings = Surroundings(self.ground, self._faults)
        self._moves: dict[tuple[int, int], tuple[Move, ...]] = {}

    # ---- search.Model ------------------------------------------------------------------------------------------------

    def initial(self) -> State:
        return self.ground.initial()

    def successors(self, state: State) -> Iterator[tuple[str, bool, State]]:
        for index, number in enumerate(state.writers):
            moves = self._moves.get((index, number))
            if moves is None:
                moves = self._moves[index, number] = tuple(self._of_writer(index, self.ground.tables.writers[number]))
            yield from self._made(state, moves, index)
        yield from self._made(state, self._surroundings.moves(state), NOBODY)

    def _made(self, state: State, moves: Iterable[Move], index: int) -> Iterator[tuple[str, bool, State]]:
        budgets = state.budgets
        for name, act, args, budget, fair in moves:
            before = state
            if budget != FREE:
                paid = pay(state, budget)
                if paid is None:
                    continue
                before = paid
            self.attempted = name
            for after in act(before, index, *args):
                yield name, fair and after.budgets == budgets, after

    def is_goal(self, state: State) -> bool:
        """Everything is stored; or, in a world without a way on, everybody has stopped."""
        goal = self.world.goal
        if goal == "stored" or (goal == "stored or stopped" and state.topic == 0):
            end = self.ground.end(state.bucket)
            if end != NOWHERE and not self.ground.left(max(end, state.log_start), state.log_end):
                return True
        return goal != "stored" and all(self._has_stopped(state, number) for number in state.writers)

    def _has_stopped(self, state: State, number: int) -> bool:
        """Stalled, refused, or idle beside an owner; or, without ids, at the end of a re-created log."""
        writer = self.ground.tables.writers[number]
        if writer.stage == Stage.ACTIVE:
            unaware = state.topic != 0 and not self.world.knows_topic_ids
            waits_for_more = unaware and writer.position == state.log_end
            return waits_for_more or self.ground.tables.chains[writer.chain].phase is Phase.STALLED
        return writer.stage == Stage.REFUSED or (writer.stage == Stage.IDLE and state.owner != NOBODY)

    def describe(self, state: State) -> str:
        return tell(self.ground, state)

    # ---- what a writer may do, for all that it knows -----------------------------------------------------------------

    def _of_writer(self, index: int, writer: Writer) -> Iterator[Move]:
        if writer.stage in (Stage.DOWN, Stage.STARTING):
            yield from self._launching.moves(index, writer)
        elif writer.stage == Stage.IDLE:
            yield Move(f"{'ab'[index]} is assigned", self._membership.assign)
            yield from self._faults(index, "zombie", self._membership.take_over)
        elif writer.stage == Stage.ACTIVE:
            yield from self._of_active(index, writer)
        if writer.stage in (Stage.STARTING, Stage.ACTIVE):
            yield from self._faults(index, "crash", self._membership.crash)

    def _of_active(self, index: int, writer: Writer) -> Iterator[Move]:
        name, driver = "ab"[index], self.ground.drivers[index]
        stands = driver.chain(writer)
        if writer.noted != NOWHERE:
            yield Move(f"{name}'s commit lands", self._membership.commit)
        if stands.draining:
            yield Move(f"{name} gives the partition back", self._membership.give_back)
        else:
            yield from self._faults(index, "revoke", self._membership.revoke)
            yield Move(f"{name} wakes and is revoked", self._membership.wake)
        if stands.phase is Phase.CLOSED:
            return
        for number, request in enumerate(writer.requests):
            yield from self._of_request(index, number, request)
        if writer.fetched:
            yield Move(f"{name} takes what it polled", self._hand_over)
            yield from self._faults(index, "unreadable", self._unreadable)
        elif stands.wants_records and writer.position != NOWHERE:
            yield Move(f"{name} polls", self._poll)
        for seconds in waits(stands, driver.limits):
            yield Move(f"{name}'s timer rings after {seconds:g} s", self._ring, (seconds, stands))
        if self.world.ages and stands.batch.records and stands.batch.opened_at == 0:
            yield Move(f"{name}'s batch ages", self._feed, (("age", 5.0),))
        if stands.retry is not None or (stands.phase is Phase.RUNNING and stands.batch.records):
            yield from self._faults(index, "pressure", self._feed, ("pressure",))

    def _of_request(self, index: int, number: int, request: tuple[Any, ...]) -> Iterator[Move]:
        name, (kind, fresh, *rest) = "ab"[index], request
        answer = rest[-1]
        if kind == "finish":
            yield Move(f"{name} finishes a body", self._deliver, (number, ("finished", fresh, answer)))
        elif kind == "set aside":
            yield Move(f"{name}'s quarantine is stored", self._set_aside, (number,))
            yield from self._faults(index, "silence", self._feed, ("unanswered", fresh))
        elif answer:
            fact = {
                "locate": ("located", fresh, answer),
                "recover": ("recovered", fresh, answer),
                "head": ("head", fresh, answer),
                "put": ("put", fresh, answer),
            }[kind]
            told = (*fact[:2], fact[2][0]) if kind in ("recover", "head") else fact
            yield Move(f"{name} hears: {kind} {answer}", self._deliver, (number, told))
        elif kind == "locate" and not rest[0]:
            yield Move(f"{name}'s question for the group's offset is read", self._locate, (number,))
        elif kind == "locate":
            yield Move(f"{name}'s question for the log is read", self._read_log, (number, 0))
            yield from self._faults(index, "lag", self._read_log, number, 1)
        elif kind == "recover":
            yield Move(f"{name}'s listing is read", self._recover, (number,))
        elif kind == "head":
            yield Move(f"{name}'s HEAD is read", self._head, (number,))
            yield from self._faults(index, "silence", self._feed, ("unanswered", fresh))
        elif kind == "put":
            yield Move(f"{name}'s put lands", self._put, (number,))
            yield from self._faults(index, "lost answer", self._lose, number)
            yield from self._faults(index, "error", self._fail, number, "unavailable")
            yield from self._faults(index, "conflict", self._fail, number, "conflict")

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _feed(self, state: State, index: int, fact: tuple[Any, ...]) -> States:
        return self.ground.fed(state, index, state.writers[index], fact)

    def _deliver(self, state: State, index: int, number: int, fact: tuple[Any, ...]) -> States:
        return self.ground.fed(state, index, without(self.ground.writer(state, index), number), fact)

    def _answered(self, state: State, index: int, number: int, answer: object) -> State:
        return self.ground.with_writer(state, index, answered(self.ground.writer(state, index), number, answer))

    def _locate(self, state: State, index: int, number: int) -> States:
        """Identity and the group's offset; the log's range is asked for afterwards, and may be another by then."""
        read = (state.committed, self.world.knows_topic_ids and state.topic != 0)
        writer = self.ground.writer(state, index)
        request = ("locate", self._request(state, index, number)[1], read, ())
        requests = (*writer.requests[:number], request, *writer.requests[number + 1 :])
        state = self.ground.with_writer(state, index, writer._replace(requests=requests))
        return (state,) if self._log_moves else self._read_log(state, index, number, 0)

    def _read_log(self, state: State, index: int, number: int, lag: int) -> States:
        committed, mismatch = self._request(state, index, number)[2]
        high_watermark = max(state.log_start, state.log_end - lag)
        return (self._answered(state, index, number, (committed, state.log_start, high_watermark, mismatch)),)

    def _recover(self, state: State, index: int, number: int) -> States:
        enough = self._request(state, index, number)[2]
        thing = self.ground.recovered(state, index, self.world.processes[index].keys, enough)
        return (self._answered(state, index, number, (thing,)),)

    def _head(self, state: State, index: int, number: int) -> States:
        _, fresh, key, _ = self._request(state, index, number)
        thing = self.ground.bucket(state).things.get(key)
        if thing is None:
            return (self._answered(state, index, number, (NOTHING,)),)
        return self._deliver(state, index, number, ("head", fresh, self.ground.tables.things.number(thing)))

    def _put(self, state: State, index: int, number: int) -> States:
        state, created = self.ground.store(state, self._request(state, index, number)[2])
        return (self._answered(state, index, number, "created" if created else "exists"),)

    def _lose(self, state: State, index: int, number: int) -> States:
        """Given up by time-out; or its answer got lost: then it lands at once."""
        thing = self._request(state, index, number)[2]
        return (self.ground.fly(self._answered(state, index, number, "unavailable"), thing),)

    def _fail(self, state: State, index: int, number: int, failure: str) -> States:
        return (self._answered(state, index, number, failure),)

    def _set_aside(self, state: State, index: int, number: int) -> States:
        _, fresh, thing = self._request(state, index, number)
        state, _created = self.ground.store(state, thing)
        return self._deliver(state, index, number, ("set aside", fresh))

    def _request(self, state: State, index: int, number: int) -> tuple[Any, ...]:
        return self.ground.writer(state, index).requests[number]

    # ---- records -----------------------------------------------------------------------------------------------------

    def _poll(self, state: State, index: int) -> States:
        writer = self.ground.writer(state, index)
        begin = writer.position
        if state.topic != 0 and self.world.knows_topic_ids and not self._polls_anew(state, index, writer):
            return ()
        if not state.log_start <= begin <= state.log_end:
            return self._fetched(state, index, writer, (begin,))
        ends = range(begin + 1, state.log_end + 1)
        if not self.world.any_prefix and ends:
            ends = sorted({begin + 1, state.log_end})  # type: ignore[assignment]
        polled = (self._fetched(state, index, writer._replace(position=end), (begin, end)) for end in ends)
        return chain.from_iterable(polled)

    def _polls_anew(self, state: State, index: int, writer: Writer) -> bool:
        """Whether a poll in a re-created topic is one to look at: of one that has not heard yet, beside the new log.

        Raises Broken when its location told it, or should have: who has the partition got it after the re-creation.
        An assumption: who was frozen from before the re-creation until the new log had grown past its position is
        assigned anew before it polls (docs/guarantees.md, 7).
        """
        if state.owner == index or writer.told:
            raise Broken(invariants.RECREATED, f"{'ab'[index]} polls at {writer.position}, the log is another topic's")
        return not state.log_start <= writer.position <= state.log_end

    def _fetched(self, state: State, index: int, writer: Writer, item: tuple[int, ...]) -> States:
        if self.world.late_polls:
            return (self.ground.with_writer(state, index, writer._replace(fetched=item)),)
        return self.ground.fed(state, index, writer, ("polled", *item))

    def _hand_over(self, state: State, index: int) -> States:
        writer = self.ground.writer(state, index)
        return self.ground.fed(state, index, writer._replace(fetched=()), ("polled", *writer.fetched))

    def _unreadable(self, state: State, index: int) -> States:
        writer = self.ground.writer(state, index)
        return self.ground.fed(state, index, writer._replace(fetched=()), ("unreadable",))

    def _ring(self, state: State, index: int, seconds: float, stands: Chain) -> States:
        """Time is up. Beside a real loss the wait outlasts every other writer and put: an assumption of `skip`."""
        if stands.loss_waited and stands.phase is Phase.WAITING:
            others = [self.ground.writer(state, other) for other in range(len(state.writers)) if other != index]
            if state.flying or any(other.stage == Stage.ACTIVE for other in others):
                return ()
        return self._feed(state, index, ("tick", seconds))
