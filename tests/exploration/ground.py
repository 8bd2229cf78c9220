"""The ground the writers move on: the bucket, the group's offset, what is in the air, and the effects on them.

Owns: how the effects of a writer's step and of a put change a state, each checked against the invariants; what is
interned. Does not own: what happens when (`model`), the writers (`driver`), the sentences (`invariants`).

Of puts on their way those are forgotten whose key is taken: they can have no effect any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.ports import Committed
from shared.schemas import Layout, sign_offset, signer
from tests.exploration import invariants
from tests.exploration.bucket import Bucket, recovered
from tests.exploration.driver import Driver, Tables
from tests.exploration.moves import Faults, pay
from tests.exploration.search import Broken
from tests.exploration.starting import Starts
from tests.exploration.world import NOBODY, NOTHING, NOWHERE, Stage, State, Thing, World, Writer, put_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from consumer.keys import KeyTemplate
    from tests.exploration.driver import Effect, Fact


class Ground:
    """One world's tables, and the effects on its states."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults = Faults(world.budgets)
        self.tables = Tables()
        count = len(world.processes)
        self.drivers = [Driver(world, index, self.tables) for index in range(count)]
        self.starts = [Starts(world.processes[index], "ab"[index], self.tables.committed) for index in range(count)]
        self._contents: list[tuple[int, ...]] = []
        self._buckets: list[Bucket] = []
        self._numbers: dict[tuple[int, ...], int] = {}
        self._stored: dict[tuple[int, int], int] = {}
        self._facts: dict[int, invariants.Facts] = {}
        self._layouts: dict[int, int | None] = {}
        self._recovered: dict[tuple[int, int, int], int] = {}
        given = None if world.from_start else self._layout_of(world.objects)
        self.agreed = (
            NOTHING if given is None else given
        )  # by every process, in a world that does not begin with starts

    def initial(self) -> State:
        world, tables = self.world, self.tables
        stage = Stage.DOWN if world.from_start else Stage.IDLE
        committed = (
            None if world.committed is None else Committed(offset=world.committed[0], metadata=world.committed[1])
        )
        return State(
            bucket=self._bucket_number(tables.things.number(thing) for thing in world.objects),
            committed=tables.committed.number(committed),
            log_start=world.log_start,
            log_end=len(world.log) if world.log_end is None else world.log_end,
            owner=NOBODY,
            predecessor=world.predecessor,
            topic=0,
            flying=(),
            late=(),
            writers=tuple(tables.writers.number(Writer(stage=stage, layout=self.agreed)) for _ in world.processes),
            budgets=tuple(world.budgets.values()),
        )

    # ---- what is there -----------------------------------------------------------------------------------------------

    def writer(self, state: State, index: int) -> Writer:
        return self.tables.writers[state.writers[index]]

    def layout_number(self, bucket: int) -> int | None:
        """The number of the layout in the bucket."""
        if bucket not in self._layouts:
            self._layouts[bucket] = self._layout_of(self.things(bucket))
        return self._layouts[bucket]

    def _layout_of(self, things: Iterable[Thing]) -> int | None:
        bodies = [thing.body for thing in things if thing.kind == "layout"]
        return self.tables.layouts.number(bodies[0]) if bodies else None

    def end(self, bucket: int) -> int:
        """Where the chain ends; NOWHERE without a layout."""
        return NOWHERE if self.layout_number(bucket) is None else self.facts(bucket).end

    def things(self, bucket: int) -> Sequence[Thing]:
        return [self.tables.things[number] for number in self._contents[bucket]]

    def bucket(self, state: State) -> Bucket:
        return self._buckets[state.bucket]

    def facts(self, bucket: int) -> invariants.Facts:
        """Where the chain stands that the bucket's layout describes, whatever a writer believes."""
        facts = self._facts.get(bucket)
        if facts is None:
            layout = self.layout_number(bucket)
            assert layout is not None, "nobody acts before there is a layout"
            chain = self.tables.layouts[layout]
            facts = self._facts[bucket] = invariants.facts(self.things(bucket), chain.chain_id, chain.origin(0))
        return facts

    def recovered(self, state: State, index: int, keys: KeyTemplate, enough: int) -> int:
        """The number of the thing that the product's listing takes for the chain's end."""
        key = (state.bucket, index, enough)
        number = self._recovered.get(key)
        if number is None:
            thing = recovered(self.bucket(state), keys, enough)
            number = self._recovered[key] = NOTHING if thing is None else self.tables.things.number(thing)
        return number

    def left(self, start: int, end: int) -> bool:
        """Whether the log has records in [start, end)."""
        return bool(invariants.readable(self.world, start, end))

    def _bucket_number(self, things: Iterable[int]) -> int:
        contents = tuple(sorted(things))
        number = self._numbers.get(contents)
        if number is None:
            values = [self.tables.things[thing] for thing in contents]
            invariants.check_bucket(values, self.world)
            number = self._numbers[contents] = len(self._contents)
            self._contents.append(contents)
            self._buckets.append(Bucket(values))
        return number

    # ---- effects -----------------------------------------------------------------------------------------------------

    def with_writer(self, state: State, index: int, writer: Writer | int) -> State:
        number = writer if isinstance(writer, int) else self.tables.writers.number(writer)
        return put_in(state, index, number)

    def fed(self, state: State, index: int, writer: Writer | int, fact: Fact) -> tuple[State, ...]:
        """The writer, as it is given here, learns a fact; one state for each thing that may come of its commit."""
        number = writer if isinstance(writer, int) else self.tables.writers.number(writer)
        number, effects = self.drivers[index].feed(number, fact, member=state.owner == index)
        after = self.affected(self.with_writer(state, index, number), index, effects)
        if any(effect[0] == "commit" for effect in effects):
            return tuple(self._commits(after, index))
        return (after,)

    def _commits(self, state: State, index: int) -> Iterator[State]:
        """A boundary has been noted: it is committed at once, or that fails, or hangs; or it is refused."""
        writer = self.writer(state, index)
        landed = self.landed_commit(state, index)
        yield landed
        if state.owner == index:
            for fault in ("commit", "late commit"):
                failed = pay(state, self.faults.budget(fault))
                if failed is not None and fault == "late commit":
                    late = tuple(sorted({*failed.late, (writer.noted, writer.layout)}))
                    failed = failed._replace(late=late)
                if failed is not None:
                    yield failed

    def landed_commit(self, state: State, index: int) -> State:
        """What is noted is committed, or refused when the partition is another's: forgotten either way."""
        writer = self.writer(state, index)
        if state.owner == index:
            state = self.committed(state, writer.noted, writer.layout)
        return self.with_writer(state, index, writer._replace(noted=NOWHERE))

    def affected(self, state: State, index: int, effects: tuple[Effect, ...]) -> State:
        """What a writer's step did to the world, in its order."""
        for effect in effects:
            match effect:
                case ("put", thing):
                    facts = self.facts(state.bucket)
                    invariants.check_put(self.tables.things[thing], facts, state.log_start, self.world)
                    if index == self.world.refused:
                        raise Broken(invariants.REFUSED, f"it puts {self.tables.things[thing].key}")
                case ("commit", offset):
                    invariants.check_boundary(offset, self.facts(state.bucket))
                case ("linked", key, offset):
                    self._check_link(state, index, key, offset)
                case ("store", thing):
                    state, _ = self.store(state, thing)
                case ("fly", thing):
                    state = self.fly(state, thing)
        return state

    def _check_link(self, state: State, index: int, key: str, offset: int) -> None:
        layout = self.tables.layouts[self.writer(state, index).layout]
        thing = self.bucket(state).things.get(key)
        if thing is None or thing.kind != "data" or thing.chain_id != layout.chain_id or thing.end != offset:
            raise Broken(invariants.LINKED, f"{key} up to {offset} is taken for a link; there is {thing}")

    def store(self, state: State, thing: int) -> tuple[State, bool]:
        """A put lands; whether it created the object."""
        key = self.tables.things[thing].key
        if key in self.bucket(state).things:
            return state, False
        bucket = self._stored.get((state.bucket, thing))
        if bucket is None:
            bucket = self._bucket_number((*self._contents[state.bucket], thing))
            self._stored[state.bucket, thing] = bucket
        taken = self._buckets[bucket].things
        flying = tuple(one for one in state.flying if self.tables.things[one].key not in taken)
        return state._replace(bucket=bucket, flying=flying), True

    def fly(self, state: State, thing: int) -> State:
        """A put's writer waits no longer for it."""
        if thing in state.flying or self.tables.things[thing].key in self.bucket(state).things:
            return state
        return state._replace(flying=tuple(sorted((*state.flying, thing))))

    def committed(self, state: State, offset: int, layout: int) -> State:
        """A commit of ours lands."""
        invariants.check_boundary(offset, self.facts(state.bucket))
        signature = sign_offset(self.tables.layouts[layout].chain_id, offset)
        number = self.tables.committed.number(Committed(offset=offset, metadata=signature))
        return state._replace(committed=number)

    def created_layout(self, state: State, thing: Thing, index: int = NOBODY) -> tuple[State, bool]:
        """A start's put of the layout lands."""
        if index != NOBODY and index == self.world.refused and thing.key not in self.bucket(state).things:
            raise Broken(invariants.REFUSED, f"it makes {thing.key}")
        state, created = self.store(state, self.tables.things.number(thing))
        if created:
            committed = self.tables.committed[state.committed]
            invariants.check_layout(
                Layout.decode(thing.body), committed, predecessor=state.predecessor, log_start=state.log_start
            )
        return state, created

    def signature(self, state: State, offset: int) -> str:
        """Of the chain in the bucket."""
        layout = self.layout_number(state.bucket)
        return "" if layout is None else sign_offset(self.tables.layouts[layout].chain_id, offset)

    def signed_by_another(self, state: State) -> bool:
        """Whether the group's offset is signed by a chain that is not the bucket's."""
        committed = self.tables.committed[state.committed]
        signed_by = signer(committed.offset, committed.metadata) if committed else None
        layout = self.layout_number(state.bucket)
        return signed_by is not None and (layout is None or self.tables.layouts[layout].chain_id != signed_by)
