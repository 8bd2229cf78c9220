"""The chain of one partition, as one writer sees it: the exactly-once protocol as a function of values.

Owns: every decision from assignment to revocation: where the chain ends, what may be put and when, what an answer of
the store means, when to adopt, to stall, to ask again. Does not own: requests, bodies, time, the delays of retries
(`partition`), where a batch ends (`batch`), the names of things (`keys`).

The objects of a partition form a chain: ranges [start, next) without gap or overlap. The bucket is the truth, the
group's offsets a sometimes stale pointer into it. Invariants, whatever comes in:

1. A put starts only at an offset that this writer has *seen* to be the chain's end: a committed offset of ours, the end
   of its own acknowledged put, of an adopted object, of the recovered one, or the origin; never at the end of a put
   whose outcome it does not know. So at most one chunk is in flight, and what is open behind it waits.
2. After adopting an object that ends elsewhere than our chunk, everything buffered is dropped before anything else
   happens: it starts at no boundary, and put, it would lose or double records.
3. Only boundaries of the chain, or its origin, are committed.
4. Records are taken in offset order, from the offset asked for, without a hole: a poll that starts elsewhere is stale.
5. Answers of an older epoch are ignored: what they were asked for has been dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from consumer.batch import Batch, Limits, admit
from consumer.events import (
    Action,
    Append,
    Chunk,
    Commit,
    Drain,
    Drained,
    Drop,
    Event,
    Finished,
    Head,
    HeadAnswered,
    Linked,
    Locate,
    Located,
    Outcome,
    Polled,
    Pressure,
    Put,
    PutAnswered,
    PutQuarantine,
    QuarantineStored,
    Recover,
    Recovered,
    Seal,
    Seek,
    Stalled,
    Tick,
    Unanswered,
    Unreadable,
    Unsigned,
    Waiting,
)
from consumer.ports import Failure, OutOfRange, PutAnswer
from shared.schemas import ObjectMetadata, SchemaError, signer

if TYPE_CHECKING:
    from consumer.keys import KeyTemplate
    from consumer.ports import Found, LogRange
    from consumer.runs import Read, Run
    from shared.schemas import Layout

STALL_LOOK_SECONDS: Final = 30.0
ABOVE_LOG_SECONDS: Final = 60.0  # how long a new leader may lag behind the chain's end
ABOVE_LOG_ASK_SECONDS: Final = 5.0
_NO_BATCH: Final = Batch(start=-1)


class Phase(StrEnum):
    """Where a partition stands."""

    LOCATING = "locating"  # asking Kafka for the committed offset and the log's range
    RECOVERING = "recovering"  # asking the bucket for the chain's end
    WAITING = "waiting"  # to ask again, later
    POSITIONED = "positioned"  # the end is known, the first record after it is not
    PROBING = "probing"  # asking whether an object starts here already
    RUNNING = "running"
    STALLED = "stalled"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for every partition of one run. `loss_wait_seconds` only matters with `skip_loss`."""

    layout: Layout
    keys: KeyTemplate
    limits: Limits
    writer: str
    skip_loss: bool
    loss_wait_seconds: float
    compare_timestamps: bool  # off for compacted topics: there the first record of a range can change


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Why a partition cannot go on, and since when (monotonic seconds). `key` when an object is in the way.

    `met_by_reading`: found where the next record is, so only going on past it shows that it is gone.
    """

    reason: str
    key: str | None
    since: float
    met_by_reading: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Requests that keep failing and hold memory meanwhile: the last reason, and since when (monotonic seconds)."""

    reason: str
    since: float


class Held(NamedTuple):
    """A run from the record at index `begin` on, and when it arrived (monotonic seconds)."""

    run: Run
    begin: int
    arrived_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The state. `position` is the chain's end as seen, `fetch_next` the offset of the next record to be taken.

    `held` are runs that arrived but are not in the open batch yet.
    """

    partition: int
    epoch: int
    phase: Phase = Phase.LOCATING
    position: int | None = None
    fetch_next: int = -1
    batch: Batch = _NO_BATCH
    full: bool = False  # the open batch is sealed as soon as nothing is in flight
    held: tuple[Held, ...] = ()
    chunk: Chunk | None = None
    asking: bool = False  # the outcome of the chunk's put is unknown, HEAD is under way
    attempt: int = 0
    failure: Failure | None = None
    retry: Retry | None = None
    stall: Stall | None = None
    waiting: str | None = None  # why it is asked again later
    due: float | None = None
    log: LogRange | None = None
    unsigned: int | None = None
    above_since: float | None = None
    loss_waited: bool = False
    relocate: bool = False  # the next offset is outside the log: put what is open, then locate anew
    draining: bool = False

    @property
    def wants_records(self) -> bool:
        """Whether fetched records would be taken now."""
        ready = self.phase in (Phase.POSITIONED, Phase.RUNNING) and not self.held and not self.full
        return ready and not self.draining and not self.relocate

    @property
    def reads(self) -> bool:
        """Whether `fetch_next` is where the next fetch has to start."""
        return self.phase in (Phase.POSITIONED, Phase.PROBING, Phase.RUNNING)

    def due_at(self, limits: Limits) -> float | None:
        """When a Tick will change something (monotonic seconds); None = not by time alone."""
        if self.phase in (Phase.STALLED, Phase.WAITING):
            return self.due
        if self.phase is Phase.RUNNING and self.chunk is None:
            return self.batch.due_at(limits)
        return None


def assigned(partition: int, *, epoch: int) -> tuple[Chain, tuple[Action, ...]]:
    """The chain of a partition that has just become ours, with the epoch of the first answers it takes."""
    return Chain(partition=partition, epoch=epoch), (Locate(epoch=epoch),)


def closed(chain: Chain) -> Chain:
    """The same chain given up: no event changes it any more, nothing is open."""
    return replace(chain, phase=Phase.CLOSED, held=(), chunk=None, retry=None, stall=None, batch=_NO_BATCH)


def step(chain: Chain, event: Event, *, rules: Rules, now: float) -> tuple[Chain, tuple[Action, ...]]:
    """One event in; the new state, and what to do now, in this order, out. `now` in monotonic seconds."""
    turn = _Turn(chain, rules, now)
    turn.take(event)
    return turn.chain, tuple(turn.actions)


def check_object(
    found: Found, *, layout: Layout, partition: int, start: int, first_timestamp: int | None
) -> ObjectMetadata:
    """The metadata of an object that may be a link of our chain at `start`.

    Raises SchemaError, saying what is foreign about it. `first_timestamp` (ms) None = not known or not comparable.
    """
    metadata = ObjectMetadata.decode(found.metadata)
    expected = {
        "chain-id": (metadata.chain_id, layout.chain_id),
        "topic": (metadata.topic, layout.topic),
        "partition": (metadata.partition, partition),
        "start-offset": (metadata.start_offset, start),
        "first-timestamp": (
            metadata.first_timestamp,
            metadata.first_timestamp if first_timestamp is None else first_timestamp,
        ),
    }
    for name, (is_, ours) in expected.items():
        if is_ != ours:
            msg = f"metadata {name} is {is_}, ours would be {ours}"
            raise SchemaError(msg)
    if metadata.next_offset <= metadata.start_offset:
        msg = f"metadata next-offset {metadata.next_offset} is not above start-offset {metadata.start_offset}"
        raise SchemaError(msg)
    return metadata


class _Turn:
    """One step under way: the state so far, and the actions so far."""

    def __init__(self, chain: Chain, rules: Rules, now: float) -> None:
        self.chain = chain
        self.rules = rules
        self.now = now
        self.actions: list[Action] = []

    def take(self, event: Event) -> None:  # noqa: C901, PLR0912 -- a line an event
        if self.chain.phase is Phase.CLOSED:
            return
        match event:
            case Polled(item=item):
                self._polled(item)
            case Unreadable(reason=reason):
                self._unreadable(reason)
            case Tick():
                self._tick()
            case Pressure():
                self._pressure()
            case Drain():
                self._drain()
            case _ if event.epoch != self.chain.epoch:
                return  # what this answers has been dropped
            case Located():
                self._located(event)
            case Recovered():
                self._recovered(event)
            case Finished():
                self._finished(quarantine=event.quarantine)
            case QuarantineStored():
                self._set(retry=None)
                self._put()
            case Unanswered(reason=reason):
                self._failed(reason)
            case PutAnswered():
                self._put_answered(event)
            case HeadAnswered():
                self._head_answered(event.found)

    def _set(self, **changes: object) -> None:
        self.chain = replace(self.chain, **changes)  # type: ignore[arg-type]

    def _do(self, *actions: Action) -> None:
        self.actions.extend(actions)

    # ---- where the chain ends (design §6.1) ------------------------------------------------------------------------

    def _locate(self) -> None:
        self._set(phase=Phase.LOCATING, epoch=self.chain.epoch + 1, due=None, relocate=False)
        self._do(Locate(epoch=self.chain.epoch))

    def _located(self, event: Located) -> None:
        if event.mismatch is not None:
            self._stall(event.mismatch)
            return
        committed = event.committed
        signed_by = signer(committed.offset, committed.metadata) if committed else None
        ours = self.rules.layout.chain_id
        self._set(log=event.log, unsigned=None)
        if committed and signed_by not in (None, ours):
            self._stall(
                f"the group's committed offset {committed.offset} is signed by chain {signed_by}, this prefix holds"
                f" chain {ours}: two prefixes share one group; stop one of them or give it a group of its own"
            )
        elif committed and signed_by and committed.offset >= event.log.start:
            self._begin(committed.offset)
        else:
            self._set(phase=Phase.RECOVERING, unsigned=committed.offset if committed and not signed_by else None)
            self._do(Recover(epoch=self.chain.epoch, enough=event.log.start))

    def _recovered(self, event: Recovered) -> None:
        end = self.rules.layout.origin(self.chain.partition)
        if event.found is not None:
            try:
                end = self._recovered_end(event.found)
            except SchemaError as error:
                self._stall(f"the object with the partition's highest start is not ours: {error}", event.found.key)
                return
        if self.chain.unsigned is not None:
            self._do(Unsigned(committed=self.chain.unsigned, recovered=end))
        self._do(Commit(offset=end))
        self._begin(end)

    def _recovered_end(self, found: Found) -> int:
        parsed = self.rules.keys.parse(found.key)
        if parsed is None:
            msg = "the template cannot have rendered its key"
            raise SchemaError(msg)
        metadata = check_object(
            found, layout=self.rules.layout, partition=self.chain.partition, start=parsed.start, first_timestamp=None
        )
        return metadata.next_offset

    def _begin(self, end: int) -> None:
        """Go on from `end` if the log allows it."""
        log = self.chain.log
        if log is not None and end > log.high_watermark:
            self._above_log(end, log)
        elif log is None or end >= log.start:
            self._start(end)
        elif not self.rules.skip_loss:
            self._stall(
                f"the chain ends at {end}, the log starts at {log.start}: {log.start - end} offsets are gone from Kafka"
                " before they were stored; restore them, or set KAFKA_ON_DATA_LOSS=skip to go on without them"
            )
        elif not self.chain.loss_waited:
            # Another writer may still put at `end` with the record that was there: wait until none can.
            self._wait(
                self.rules.loss_wait_seconds,
                f"the chain ends at {end}, the log starts at {log.start}: going on without the lost offsets once no"
                " other writer can still be there",
            )
            self._set(loss_waited=True)
        else:
            self._start(end, lost=log.start - end)

    def _above_log(self, end: int, log: LogRange) -> None:
        since = self.now if self.chain.above_since is None else self.chain.above_since
        self._set(above_since=since)
        if self.now - since < ABOVE_LOG_SECONDS:
            self._wait(
                ABOVE_LOG_ASK_SECONDS,
                f"the chain ends at {end}, the log at {log.high_watermark}: a new leader may lag, asking again",
            )
            return
        self._stall(
            f"the chain ends at {end}, the log at {log.high_watermark}: the topic was truncated or created anew; start"
            " with a new S3_PREFIX and group, or restore the topic, then restart"
        )
        self._set(due=None)  # new records would take offsets that the chain holds already: no growth heals this

    def _wait(self, seconds: float, reason: str) -> None:
        self._set(phase=Phase.WAITING, due=self.now + seconds, waiting=reason)
        self._do(Waiting(reason=reason))

    def _start(self, end: int, *, lost: int = 0) -> None:
        stall = self.chain.stall
        self._set(
            phase=Phase.POSITIONED,
            position=end,
            fetch_next=end + lost,
            batch=Batch(start=end, lost=lost),
            full=False,
            held=(),
            stall=stall if stall and stall.met_by_reading else None,
            waiting=None,
            due=None,
            above_since=None,
            loss_waited=False,
        )
        self._do(Seek(offset=end + lost))

    # ---- records in (design §6.2, §6.3) ----------------------------------------------------------------------------

    def _polled(self, item: Read | OutOfRange) -> None:
        chain = self.chain
        if not chain.reads or chain.draining or chain.relocate:
            return  # not taken and not counted as taken: they are read again from where the chain then ends
        if isinstance(item, OutOfRange):
            if item.offset == chain.fetch_next:
                self._set(relocate=True)
                self._advance()
            else:
                self._do(Seek(offset=chain.fetch_next))
        elif item.start != chain.fetch_next:
            self._do(Seek(offset=chain.fetch_next))
        else:
            arrived = tuple(Held(run, 0, self.now) for run in item.runs)
            self._set(held=chain.held + arrived, fetch_next=item.next_offset)
            self._advance()

    def _unreadable(self, reason: str) -> None:
        if self.chain.reads and not self.chain.draining and not self.chain.relocate:
            self._stall(
                f"a batch of records behind the chain's end {self.chain.position} cannot be decoded: {reason}; it stays"
                " in Kafka; repair the topic or move the chain behind them by a new S3_PREFIX",
                met_by_reading=True,
            )

    def _advance(self) -> None:
        """Everything that can be done with what is there."""
        if self.chain.phase is Phase.POSITIONED:
            if self.chain.held:
                self._probe()
            elif self.chain.relocate:
                self._locate()
        elif self.chain.phase is Phase.RUNNING:
            self._fill()
            if self.chain.chunk is None and self._must_seal():
                self._seal()
                self._fill()
            if self.chain.chunk is None and not self.chain.batch.records:
                if self.chain.draining:
                    self._close()
                elif self.chain.relocate and not self.chain.held:
                    self._locate()

    def _probe(self) -> None:
        run, begin, _ = self.chain.held[0]
        self._set(phase=Phase.PROBING)
        key = self._key(self.chain.batch.start, run.timestamp(begin))
        self._do(Head(epoch=self.chain.epoch, key=key))

    def _fill(self) -> None:
        while self.chain.held and not self.chain.full and not self.chain.draining:
            (run, begin, arrived_at), *rest = self.chain.held
            admission = admit(self.chain.batch, run, begin, limits=self.rules.limits, now=self.now)
            if admission.end > begin:
                self._do(Append(run=run, begin=begin, end=admission.end, size=admission.size))
            if admission.end < run.count:
                rest = [Held(run, admission.end, arrived_at), *rest]
            batch = admission.batch
            if not self.chain.batch.records:
                batch = replace(batch, opened_at=arrived_at)  # its time counts from there, however long it was held
            self._set(batch=batch, full=admission.full, held=tuple(rest))

    def _must_seal(self) -> bool:
        batch = self.chain.batch
        due = batch.due_at(self.rules.limits)
        if due is None:
            return False
        return self.chain.full or self.chain.draining or self.chain.relocate or self.now >= due

    def _seal(self) -> None:
        batch = self.chain.batch
        end = self.chain.fetch_next
        if self.chain.held:
            run, begin, _ = self.chain.held[0]
            end = run.offset(begin)
        first_timestamp = 0 if batch.first_timestamp is None else batch.first_timestamp
        chunk = Chunk(
            key=self._key(batch.start, first_timestamp),
            start=batch.start,
            next_offset=end,
            first_timestamp=first_timestamp,
            max_timestamp=batch.max_timestamp,
            records=batch.records,
            lost=batch.lost,
        )
        self._set(chunk=chunk, batch=Batch(start=end), full=False, attempt=0, failure=None, asking=False)
        self._do(Seal(epoch=self.chain.epoch, chunk=chunk))

    def _key(self, start: int, timestamp: int) -> str:
        return self.rules.keys.render(partition=self.chain.partition, start=start, timestamp=timestamp)

    # ---- the chunk in flight (design §6.3, §6.4) -------------------------------------------------------------------

    def _finished(self, *, quarantine: bool) -> None:
        if self.chain.chunk is None:
            return
        if quarantine:
            self._do(PutQuarantine(epoch=self.chain.epoch, chunk=self.chain.chunk))
        else:
            self._put()

    def _put(self) -> None:
        chain = self.chain
        if chain.chunk is not None:
            self._set(asking=False)
            self._do(Put(epoch=chain.epoch, chunk=chain.chunk, attempt=chain.attempt, failure=chain.failure))

    def _put_answered(self, event: PutAnswered) -> None:
        chunk = self.chain.chunk
        if chunk is None or self.chain.asking:
            return
        if event.answer is PutAnswer.CREATED:
            self._linked(chunk, Outcome.CREATED)
            return
        if isinstance(event.answer, Failure):
            self._set(failure=event.answer)
            self._failed(event.reason)
        else:
            self._set(failure=Failure.CONFLICT)  # counts only should HEAD say that there is nothing after all
        self._set(asking=True, attempt=self.chain.attempt + 1)
        self._do(Head(epoch=self.chain.epoch, key=chunk.key))

    def _failed(self, reason: str) -> None:
        since = self.now if self.chain.retry is None else self.chain.retry.since
        self._set(retry=Retry(reason=reason, since=since))

    def _head_answered(self, found: Found | None) -> None:
        if self.chain.phase is Phase.PROBING:
            if found is not None:
                run, begin, _ = self.chain.held[0]
                self._adopt(found, first_timestamp=run.timestamp(begin), lost=self.chain.batch.lost)
                return
            self._set(phase=Phase.RUNNING, stall=None, retry=None)
            self._advance()
        elif self.chain.chunk is not None and self.chain.asking:
            if found is not None:
                chunk = self.chain.chunk
                self._adopt(found, first_timestamp=chunk.first_timestamp, lost=chunk.lost)
            else:
                if self.chain.retry is None:
                    self._failed(f"the store says that {self.chain.chunk.key} is there, and then that it is not")
                self._put()

    def _adopt(self, found: Found, *, first_timestamp: int, lost: int) -> None:
        start = self.chain.batch.start if self.chain.chunk is None else self.chain.chunk.start
        comparable = self.rules.compare_timestamps and not lost
        try:
            metadata = check_object(
                found,
                layout=self.rules.layout,
                partition=self.chain.partition,
                start=start,
                first_timestamp=first_timestamp if comparable else None,
            )
        except SchemaError as error:
            self._stall(f"a foreign object lies where the next one belongs: {error}", found.key, met_by_reading=True)
            return
        end, chunk = metadata.next_offset, self.chain.chunk
        if chunk is not None and chunk.next_offset == end:
            self._linked(chunk, Outcome.OWN if metadata.writer == self.rules.writer else Outcome.ADOPTED)
            return
        self._drop()
        self._set(stall=None)
        self._start(end)
        linked = Linked(key=found.key, start=start, next_offset=end, outcome=Outcome.ADOPTED, chunk=None)
        self._do(Commit(offset=end), linked)
        if self.chain.draining:
            self._close()

    def _linked(self, chunk: Chunk, outcome: Outcome) -> None:
        end = chunk.next_offset
        self._set(position=end, chunk=None, asking=False, attempt=0, failure=None, retry=None, stall=None)
        self._do(Commit(offset=end))
        self._do(Linked(key=chunk.key, start=chunk.start, next_offset=end, outcome=outcome, chunk=chunk))
        self._advance()

    # ---- time, memory, the end -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        due = self.chain.due_at(self.rules.limits)
        if due is None or self.now < due:
            return
        if self.chain.phase is Phase.RUNNING:
            self._advance()
        else:
            self._locate()

    def _pressure(self) -> None:
        if self.chain.retry is not None:
            self._stall(f"memory is short and S3 does not take what is there: {self.chain.retry.reason}")
        elif self.chain.phase is Phase.RUNNING and self.chain.batch.records:
            self._set(full=True)
            self._advance()

    def _drain(self) -> None:
        self._set(draining=True)
        if self.chain.phase is Phase.RUNNING:
            self._advance()
        else:
            self._close()  # nothing is open: what is held has not been taken, the next owner reads it

    def _close(self) -> None:
        self._set(phase=Phase.CLOSED)
        self._do(Drained())

    def _drop(self) -> None:
        self._set(
            epoch=self.chain.epoch + 1,
            held=(),
            chunk=None,
            asking=False,
            attempt=0,
            failure=None,
            retry=None,
            full=False,
            relocate=False,
        )
        self._do(Drop())

    def _stall(self, reason: str, key: str | None = None, *, met_by_reading: bool = False) -> None:
        before = self.chain.stall
        since = self.now if before is None else before.since
        self._drop()
        self._set(
            phase=Phase.STALLED,
            stall=Stall(reason=reason, key=key, since=since, met_by_reading=met_by_reading),
            batch=_NO_BATCH,
            waiting=None,
            due=self.now + STALL_LOOK_SECONDS,
            above_since=None,
        )
        if before is None or before.reason != reason:  # looked at again and found the same: said already
            self._do(Stalled(reason=reason, key=key))
        if self.chain.draining:
            self._close()
