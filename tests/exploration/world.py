"""A bounded world: what is fixed in it, and the immutable state that changes.

Owns: the values. Does not own: what can happen (`model`), what must hold (`invariants`), the worlds by name (`worlds`).

A state is a tuple of small numbers: buckets, writers and committed offsets are interned (`Interner`), so that hashing
and comparing states costs next to nothing and what follows from one of them is worked out once.

Time is made relative. Each writer's clock stands at zero; when time has to pass, the moments that its chain remembers
move into the past instead, and what is past its effect is clamped there. The writers' clocks are independent of each
other: this allows more than a common clock would, never less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from consumer.keys import KeyTemplate
from shared.schemas import sign_offset

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from consumer.ports import Record

T = TypeVar("T", bound="Hashable")

HOUR_MS = 3_600_000
TOPIC = "task"
TOPIC_IDS = ("topic-1", "topic-2")  # the second once it is re-created
KEYS = KeyTemplate("{partition}-{start}.{ext}", prefix="p", topic=TOPIC, ext="jsonl")
KEYS_BY_HOUR = KeyTemplate("dt={dt}/hour={hour}/{partition}-{start}.{ext}", prefix="p", topic=TOPIC, ext="jsonl")

NOBODY = -1
NOWHERE = -1  # no offset
NOTHING = -1  # no interned value


class Interner(Generic[T]):
    """Values and their numbers, one-to-one."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []

    def number(self, value: T) -> int:
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> T:
        return self._values[number]


class Thing(NamedTuple):
    """An object of the bucket. `kind`: data, quarantine, layout. `lines`: the offsets of the records that stand in it.

    A data object says its range in `metadata`, where `start`, `end`, `chain_id` and `named` are taken from: `named` is
    the last part of its quarantine object's key. `body` is a layout's.
    """

    kind: str
    key: str
    lines: tuple[int, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    start: int = NOWHERE
    end: int = NOWHERE
    chain_id: str = ""
    named: str = ""
    lost: int = 0


class Stage:
    """Where a process stands."""

    DOWN = 0  # crashed, or not started yet
    STARTING = 1  # on its way to the layout
    IDLE = 2  # in the group, or about to join, without the partition
    ACTIVE = 3  # believes that the partition is its own
    REFUSED = 4  # exit code 2


class Writer(NamedTuple):
    """One process as its driver has it (`driver`). `requests` are (kind, fresh, …), see there.

    `told`: its last location said that the topic is another. `position` is where its source fetches next, NOWHERE until
    it is sought. `fetched` is a poll's item on its way to the chain: (start, next), or (offset,) when that is outside
    the log. `noted` is the boundary to be committed next.
    """

    stage: int
    incarnation: int = 0
    layout: int = NOTHING
    answers: tuple[tuple[object, ...], ...] = ()
    chain: int = NOTHING
    told: bool = False
    position: int = NOWHERE
    fetched: tuple[int, ...] = ()
    open: tuple[int, ...] = ()
    sealed: tuple[int, ...] = ()
    requests: tuple[tuple[object, ...], ...] = ()
    noted: int = NOWHERE


class State(NamedTuple):
    """Everything that changes. `flying`: puts whose writer does not wait for them any more; they land at any moment.

    `late`: commits (offset, layout) on their way that no generation stops. `budgets`: how often each fault may still
    happen.
    """

    bucket: int
    committed: int
    log_start: int
    log_end: int
    owner: int
    predecessor: bool
    topic: int
    flying: tuple[int, ...]
    late: tuple[tuple[int, int], ...]
    writers: tuple[int, ...]
    budgets: tuple[int, ...]


def put_in(state: State, index: int, writer: int) -> State:
    """The state with another writer at `index`. What `_replace` does, in a third of the time: it is called most."""
    bucket, committed, log_start, log_end, owner, predecessor, topic, flying, late, writers, budgets = state
    writers = (*writers[:index], writer, *writers[index + 1 :])
    return State(bucket, committed, log_start, log_end, owner, predecessor, topic, flying, late, writers, budgets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The settings of one writer. `judges`: offsets of the records that its version puts into quarantine."""

    keys: KeyTemplate = KEYS
    records: int = 100
    bytes: int = 1000
    seconds: float = 60.0
    judges: frozenset[int] = frozenset()
    start_from: str = "earliest"
    compression: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is fixed: the log's records (None = a gap), how they lie in wire batches, the processes, the faults.

    `budgets`: the faults that can happen, and how often (see `model`). `committed` and `objects` are there at first.
    `from_start`: the processes have yet to agree on a layout. Switches for reductions and for what a world is about:

    - `late_polls`: handing over what was polled is a step of its own (in the product a thread decodes in between).
    - `slow_bodies`: finishing a body and storing its quarantine are steps of their own; else they follow the seal at
      once. Nobody else can see either, and whatever could come in between can come right after: a Drop then leaves a
      put in flight that may never land, which is as if it had not been started.
    - `stale_answers`: answers to what was dropped still arrive. (Those of Kafka and of listings always do.)
    - `ages`: batches reach the age at which a later hour cuts them.
    - `any_prefix`: a poll brings any part of what is there; else one record, or everything.
    - `refused_commit_stops`: a driver whose refused commit ends the step in the midst, as an exception would.
    """

    name: str
    about: str
    log: tuple[Record | None, ...]
    processes: tuple[Process, ...]
    budgets: Mapping[str, int] = field(default_factory=dict)
    wires: tuple[int, ...] = ()  # offsets where a wire batch begins, beside the first
    log_start: int = 0
    log_end: int | None = None
    committed: tuple[int, str] | None = None
    objects: tuple[Thing, ...] = ()
    predecessor: bool = False
    from_start: bool = False
    skip_loss: bool = False
    knows_topic_ids: bool = True
    late_polls: bool = False
    slow_bodies: bool = False
    stale_answers: bool = False
    any_prefix: bool = True
    ages: bool = False
    refused_commit_stops: bool = False
    goal: str = "stored"  # or "stopped": there is no way on, everybody stalls or is refused
    refused: int = NOBODY  # the writer that must write nothing
    person: bool = False  # somebody heeds the stall before a foreign signature
    predecessor_chain: str = ""  # the predecessor is another ticklake, of this chain

    def predecessor_signs(self, offset: int) -> str:
        return sign_offset(self.predecessor_chain, offset) if self.predecessor_chain else ""
