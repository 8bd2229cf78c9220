"""One writer: the real chain, and a mirror of what `consumer.partition` and `consumer.worker` do for it.

Owns: feeding events to the real `chain.step`, doing what it answers. Does not own: the objects (`objects`), when
anything happens, what an answer says (`model`), whether it is right (`invariants`).

Requests under way are tuples (kind, fresh, …); `fresh` is False once the chain's epoch has moved on:

    ("locate", fresh, read, answer)        `read`: () until identity and offset are read, then (committed, mismatch);
                                   answer: () until the log is, too: (committed, log start, high watermark, mismatch)
    ("recover", fresh, enough, answer)     () until read, then (thing,), NOTHING when there is none
    ("head", fresh, key, answer)   () until read, then (thing,)
    ("put", fresh, thing, answer)  "" until there is one
    ("finish", fresh, quarantine), ("set aside", fresh, thing)    with `slow_bodies`

As in the product a Drop gives up puts, HEADs and bodies; a question to Kafka or a listing goes on, and a newer one
takes its place unless it has been read already. What a writer does to the world comes out as effects, in order:
("put", thing) a put starts, ("fly", thing) one is given up, ("store", thing) a quarantine object lands,
("commit", offset) a boundary is noted, ("linked", key, offset).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from consumer import chain as chains
from consumer import events
from consumer.batch import Limits
from consumer.ports import Committed, Failure, LogRange, OutOfRange, PutAnswer
from shared.schemas import Layout
from tests.exploration.bucket import found
from tests.exploration.clock import FIRST_EPOCH, canonical, later
from tests.exploration.objects import object_of, quarantine_of
from tests.exploration.search import Broken
from tests.exploration.world import NOTHING, NOWHERE, Interner, Stage, Thing, Writer
from tests.fakes.wire import FakeWire, read_apart

if TYPE_CHECKING:
    from consumer.runs import Read
    from tests.exploration.world import World

Fact: TypeAlias = "tuple[Any, ...]"
Effect: TypeAlias = "tuple[Any, ...]"
Fed: TypeAlias = "tuple[int, tuple[Effect, ...]]"

ALONE = "at most one put of a writer is in flight"
ANSWERS: dict[str, PutAnswer | Failure] = {answer.value: answer for answer in (*PutAnswer, *Failure)}


class Layouts:
    """Layouts by the number of their bytes."""

    def __init__(self) -> None:
        self._bodies: Interner[bytes] = Interner()
        self._layouts: dict[int, Layout] = {}

    def number(self, body: bytes) -> int:
        number = self._bodies.number(body)
        self._layouts.setdefault(number, Layout.decode(body))
        return number

    def __getitem__(self, number: int) -> Layout:
        return self._layouts[number]


PLAIN: dict[str, events.Event] = {
    "tick": events.Tick(),
    "pressure": events.Pressure(),
    "drain": events.Drain(),
    "unreadable": events.Unreadable(reason="cannot be decoded"),
}


@dataclass(frozen=True, slots=True)
class Tables:
    """What is interned for one exploration."""

    chains: Interner[chains.Chain] = field(default_factory=Interner)
    writers: Interner[Writer] = field(default_factory=Interner)
    things: Interner[Thing] = field(default_factory=Interner)
    layouts: Layouts = field(default_factory=Layouts)
    committed: Interner[Committed | None] = field(default_factory=Interner)


class Driver:
    """One process of a world."""

    def __init__(self, world: World, index: int, tables: Tables) -> None:
        self._world = world
        self._name = "ab"[index]
        self._process = world.processes[index]
        self._tables = tables
        keys = self._process.keys
        self.limits = Limits(
            records=self._process.records,
            bytes=self._process.bytes,
            seconds=self._process.seconds,
            bucket=keys.bucket,
        )
        self.seen: set[str] = set()  # what has happened at all: events, actions, outcomes, phases
        self._rules: dict[tuple[int, int], chains.Rules] = {}
        self._fed: dict[tuple[int, Fact, bool], Fed] = {}
        self._steps: dict[tuple[int, int, int, Fact], tuple[int, int, tuple[events.Action, ...]]] = {}

    # ---- what the model asks for -------------------------------------------------------------------------------------

    def assigned(self, writer_number: int) -> Fed:
        """The partition has become this writer's, as far as it knows."""
        writer = self._tables.writers[writer_number]
        chain, actions = chains.assigned(0, epoch=FIRST_EPOCH)
        writer = Writer(
            stage=Stage.ACTIVE,
            incarnation=writer.incarnation,
            layout=writer.layout,
            chain=self._tables.chains.number(canonical(chain, self.limits)),
        )
        writer, effects = self._do(writer, actions, FIRST_EPOCH, member=True)
        return self._tables.writers.number(writer), effects

    def feed(self, writer_number: int, fact: Fact, *, member: bool) -> Fed:
        """A fact comes in; the writer afterwards and what it did. `member`: its commits are not refused."""
        member = member or not self._world.refused_commit_stops
        key = (writer_number, fact, member)
        fed = self._fed.get(key)
        if fed is None:
            writer, effects = self._feed(self._tables.writers[writer_number], fact, member=member)
            fed = self._fed[key] = (self._tables.writers.number(writer), effects)
        return fed

    def given_up(self, writer_number: int, stage: int, incarnation: int) -> Fed:
        """The partition is not this writer's any more, or the process is gone: what is in flight may still land."""
        writer = self._tables.writers[writer_number]
        flying = tuple(("fly", request[2]) for request in writer.requests if request[0] == "put")
        layout = writer.layout if stage == Stage.IDLE else NOTHING
        after = Writer(stage=stage, incarnation=incarnation, layout=layout)
        return self._tables.writers.number(after), flying

    def chain(self, writer: Writer) -> chains.Chain:
        return self._tables.chains[writer.chain]

    # ---- in ----------------------------------------------------------------------------------------------------------

    def _feed(self, writer: Writer, fact: Fact, *, member: bool) -> tuple[Writer, tuple[Effect, ...]]:
        if fact[:2] == ("located", True):
            writer = writer._replace(told=fact[2][-1])
        effects: list[Effect] = []
        waiting = [fact]
        while waiting:
            number, epoch, actions = self._step(writer, waiting.pop(0))
            writer = writer._replace(chain=number)
            if epoch > FIRST_EPOCH:
                stale = tuple((request[0], False, *request[2:]) for request in writer.requests)
                writer = writer._replace(requests=stale)
            writer, done = self._do(writer, actions, epoch, member=member)
            effects += done
            if not self._world.slow_bodies:
                writer, more = self._bodies_at_once(writer, effects)
                waiting += more
        return writer, tuple(effects)

    def _step(self, writer: Writer, fact: Fact) -> tuple[int, int, tuple[events.Action, ...]]:
        key = (writer.chain, writer.layout, writer.incarnation, fact)
        stepped = self._steps.get(key)
        if stepped is None:
            chain = self._tables.chains[writer.chain]
            if fact[0] in ("tick", "age"):
                chain = later(chain, fact[1])
            actions: tuple[events.Action, ...] = ()
            if fact[0] != "age":
                rules = self.rules(writer.layout, writer.incarnation)
                chain, actions = chains.step(chain, self._event(fact), rules=rules, now=0.0)
            number = self._tables.chains.number(canonical(chain, self.limits))
            self.seen |= {f"event {fact[0]}", f"phase {chain.phase}", *(type(action).__name__ for action in actions)}
            self.seen |= {f"outcome {action.outcome}" for action in actions if isinstance(action, events.Linked)}
            stepped = self._steps[key] = (number, chain.epoch, actions)
        return stepped

    def rules(self, layout: int, incarnation: int) -> chains.Rules:
        rules = self._rules.get((layout, incarnation))
        if rules is None:
            rules = self._rules[layout, incarnation] = chains.Rules(
                layout=self._tables.layouts[layout],
                keys=self._process.keys,
                limits=self.limits,
                writer=f"{self._name}{incarnation}",
                skip_loss=self._world.skip_loss,
                loss_wait_seconds=165.0,
                compare_timestamps=True,
            )
        return rules

    def _event(self, fact: Fact) -> events.Event:  # noqa: PLR0911 -- a line an event
        match fact:
            case ("located", fresh, (committed, start, high_watermark, mismatch)):
                return events.Located(
                    epoch=int(fresh),
                    committed=self._tables.committed[committed],
                    log=LogRange(start=start, high_watermark=high_watermark),
                    mismatch="another topic" if mismatch else None,
                )
            case ("recovered", fresh, thing):
                answer = None if thing == NOTHING else found(self._tables.things[thing])
                return events.Recovered(epoch=int(fresh), found=answer)
            case ("polled", start, end):
                return events.Polled(item=self._fetched(start, end))
            case ("polled", offset):
                return events.Polled(item=OutOfRange(partition=0, offset=offset))
            case ("head", fresh, thing):
                answer = None if thing == NOTHING else found(self._tables.things[thing])
                return events.HeadAnswered(epoch=int(fresh), found=answer)
            case ("put", fresh, answer):
                return events.PutAnswered(epoch=int(fresh), answer=ANSWERS[answer], reason=answer)
            case ("finished", fresh, quarantine):
                return events.Finished(epoch=int(fresh), quarantine=quarantine)
            case ("set aside", fresh):
                return events.QuarantineStored(epoch=int(fresh))
            case ("unanswered", fresh):
                return events.Unanswered(epoch=int(fresh), reason="silence")
        return PLAIN[fact[0]]

    def _fetched(self, start: int, end: int) -> Read:
        cuts = sorted({start, end, *(cut for cut in self._world.wires if start < cut < end)})
        batches = []
        for begin, stop in pairwise(cuts):
            records = tuple(record for record in self._world.log[begin:stop] if record is not None)
            if records:
                batches.append(FakeWire(records=records, next_offset=stop))
        return read_apart(0, start, end, batches)

    # ---- out ---------------------------------------------------------------------------------------------------------

    def _do(
        self, writer: Writer, actions: tuple[events.Action, ...], epoch: int, *, member: bool
    ) -> tuple[Writer, tuple[Effect, ...]]:
        effects: list[Effect] = []
        for action in actions:
            if isinstance(action, events.Commit) and not member:
                break  # `refused_commit_stops`: what comes after it in this step is not done
            writer = self._do_one(writer, action, epoch, effects)
        return writer, tuple(effects)

    def _do_one(  # noqa: C901, PLR0911 -- a case an action
        self, writer: Writer, action: events.Action, epoch: int, effects: list[Effect]
    ) -> Writer:
        match action:
            case events.Append(run=run, begin=begin, end=end):
                return writer._replace(open=writer.open + tuple(run.offset(index) for index in range(begin, end)))
            case events.Seal():
                quarantine = any(offset in self._process.judges for offset in writer.open)
                asked = self._asked(writer, ("finish", action.epoch == epoch, quarantine))
                return asked._replace(sealed=writer.open, open=())
            case events.PutQuarantine(chunk=chunk):
                thing = self._tables.things.number(quarantine_of(chunk, writer.sealed, self._process))
                return self._asked(writer, ("set aside", action.epoch == epoch, thing))
            case events.Put(chunk=chunk):
                rules = self.rules(writer.layout, writer.incarnation)
                thing = self._tables.things.number(object_of(chunk, writer.sealed, self._process, rules))
                effects.append(("put", thing))
                if any(request[:2] == ("put", True) for request in writer.requests):
                    raise Broken(ALONE, f"{chunk} is put beside {writer.requests}")
                return self._asked(writer, ("put", action.epoch == epoch, thing, ""))
            case events.Head(key=key):
                return self._asked(writer, ("head", action.epoch == epoch, key, ()))
            case events.Locate():
                return self._asked(writer, ("locate", action.epoch == epoch, (), ()))
            case events.Recover(enough=enough):
                return self._asked(writer, ("recover", action.epoch == epoch, enough, ()))
            case events.Commit(offset=offset):
                effects.append(("commit", offset))
                return writer._replace(noted=offset)
            case events.Seek(offset=offset):
                return writer._replace(position=offset)
            case events.Drop():
                return self._dropped(writer, effects)
            case events.Linked():
                effects.append(("linked", action.key, action.next_offset))
                return writer._replace(sealed=())
        return writer

    def _asked(self, writer: Writer, request: Fact) -> Writer:
        """A newer question to Kafka or for a listing takes the place of one that nothing has been read for yet."""
        kept = tuple(one for one in writer.requests if _stays(one, request))
        return writer._replace(requests=(*kept, request))

    def _dropped(self, writer: Writer, effects: list[Effect]) -> Writer:
        kept: list[Fact] = []
        for request in writer.requests:
            if request[0] == "put":
                effects.append(("fly", request[2]))
            if request[0] in ("locate", "recover"):
                kept.append(request)
            elif self._world.stale_answers and request[0] in ("put", "head") and request[-1]:
                kept.append((request[0], False, *request[2:]))
        return writer._replace(requests=tuple(kept), open=(), sealed=())

    def _bodies_at_once(self, writer: Writer, effects: list[Effect]) -> tuple[Writer, list[Fact]]:
        """Without `slow_bodies`: what is sealed is finished, and set aside, before anything else happens."""
        facts: list[Fact] = []
        kept: list[Fact] = []
        for request in writer.requests:
            if request[0] == "finish":
                facts.append(("finished", request[1], request[2]))
            elif request[0] == "set aside":
                effects.append(("store", request[2]))
                facts.append(("set aside", request[1]))
            else:
                kept.append(request)
        return (writer._replace(requests=tuple(kept)), facts) if facts else (writer, facts)


def _stays(asked: Fact, newer: Fact) -> bool:
    """Whether a request goes on beside a newer one."""
    is_read = asked[-1] or (asked[0] == "locate" and asked[2])
    return asked[0] != newer[0] or asked[0] == "put" or bool(is_read)


def without(writer: Writer, number: int) -> Writer:
    """The writer without one of its requests."""
    return writer._replace(requests=writer.requests[:number] + writer.requests[number + 1 :])


def answered(writer: Writer, number: int, answer: object) -> Writer:
    """The writer with the answer to one of its requests on its way."""
    request = (*writer.requests[number][:-1], answer)
    return writer._replace(requests=(*writer.requests[:number], request, *writer.requests[number + 1 :]))


def noted(writer: Writer) -> bool:
    return writer.noted != NOWHERE
