"""What the chain of one partition is told, and what it answers: the values between `chain` and its driver.

Owns: the events (facts that came in) and the actions (what to do now, in order). Does not own: any decision (`chain`),
any doing (`partition`, `worker`). An answer carries the epoch of the request it answers; the chain ignores those of an
older one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from consumer.ports import Committed, Failure, Found, LogRange, OutOfRange, PutAnswer
    from consumer.runs import Read, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A sealed batch: it becomes the object [start, next_offset) at `key`. Timestamps in ms."""

    key: str
    start: int
    next_offset: int
    first_timestamp: int
    max_timestamp: int
    records: int
    lost: int = 0


# ---- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Answer to Locate. `mismatch` says how topic or cluster do not fit the layout (any more)."""

    epoch: int
    committed: Committed | None
    log: LogRange
    mismatch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Answer to Recover: the object with the highest start of the partition, as HEAD tells it; None = there is none."""

    epoch: int
    found: Found | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What the source had: records, or an offset outside the log."""

    item: Read | OutOfRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A wire batch arrived whole (its CRC is right) but cannot be decoded; nothing of its poll was taken."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Answer to Seal: the body is complete; `quarantine` says whether some of its records must be put aside first."""

    epoch: int
    quarantine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineStored:
    """Answer to PutQuarantine: the quarantine object is there."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutAnswered:
    """Answer to Put. A Failure leaves open whether the object is there."""

    epoch: int
    answer: PutAnswer | Failure
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadAnswered:
    """Answer to Head; silence is no answer: the driver asks until there is one."""

    epoch: int
    found: Found | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A PutQuarantine or a Head failed once more and is being repeated: its answer is still to come."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Memory is short and this partition is among the largest: put what is open, or give up what cannot be put."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The partition is about to be given back: put what is open, take nothing more."""


Event: TypeAlias = (
    Located
    | Recovered
    | Polled
    | Unreadable
    | Finished
    | QuarantineStored
    | PutAnswered
    | HeadAnswered
    | Unanswered
    | Tick
    | Pressure
    | Drain
)


# ---- actions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """Ask Kafka: the group's committed offset and the log's range."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """Ask the bucket: the partition's key with the highest start, and HEAD it.

    When there are starts at or above `enough`, any of them will do; when there are none, only the highest.
    """

    epoch: int
    enough: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Fetch from `offset` on; what was fetched before is dropped."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Let the open body grow by the records [begin, end) of the run: `size` bytes of values."""

    run: Run
    begin: int
    end: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Finish the open body: it is the chunk's. The next Append opens another."""

    epoch: int
    chunk: Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class PutQuarantine:
    """Create the chunk's quarantine object; repeat until it is there."""

    epoch: int
    chunk: Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Create the chunk's object, once. `attempt` counts from 0; after a `failure`, with the delay of its class."""

    epoch: int
    chunk: Chunk
    attempt: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Ask what is at the key; repeat until there is an answer."""

    epoch: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Commit the boundary, signed. Nothing waits for it: the bucket is the truth."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Forget every record and body of the partition, and give up what is under way for it."""


class Outcome(StrEnum):
    """How a link of the chain came about."""

    CREATED = "created"  # by our put
    OWN = "own"  # by our put, whose answer was lost
    ADOPTED = "adopted"  # by another writer, or an earlier self


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """Report: the chain now ends at `next_offset`, with the object at `key`; `chunk` when it is the one we sealed."""

    key: str
    start: int
    next_offset: int
    outcome: Outcome
    chunk: Chunk | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Report: the partition cannot go on; a person is needed."""

    reason: str
    key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Report: the partition cannot go on yet and asks again later."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """Report: the group's offset was nobody's signature and is ignored; the chain's end in the bucket counts."""

    committed: int
    recovered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Report: nothing is open or in flight, and nothing more will come. The chain is closed."""


Action: TypeAlias = (
    Locate
    | Recover
    | Seek
    | Append
    | Seal
    | PutQuarantine
    | Put
    | Head
    | Commit
    | Drop
    | Linked
    | Stalled
    | Waiting
    | Unsigned
    | Drained
)
