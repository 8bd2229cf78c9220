"""One assigned partition: it feeds the chain with what came in and does what the chain answers.

Owns: the requests under way for the partition, its timer, its bodies and their memory. Does not own: any decision
(`chain`), what serves all partitions at once (`worker`: polling, offsets, listings, commits, upload slots).

Body work (append, finish) runs off the loop, unless it is little, in the order it was asked for, one piece at a time.
Every task's last act is to feed what it learned; after a Drop, tasks are cancelled, and the chain ignores what they
might still say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from consumer import chain, events
from consumer.keys import CONTENT_TYPES
from consumer.ports import StoreError, Upload
from consumer.retrying import delay_seconds, until_answered
from shared.schemas import ObjectMetadata

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from consumer.encoder import Body, BodyBuilder
    from consumer.ports import SourceError, Store
    from consumer.report import Report

T = TypeVar("T")


class Desk(Protocol):
    """What a partition needs from the worker: the things that are shared by all partitions."""

    rules: chain.Rules
    report: Report
    upload_slots: asyncio.Semaphore
    head_slots: asyncio.Semaphore

    @property
    def store(self) -> Store: ...
    def now(self) -> float: ...
    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]: ...
    async def off_loop(self, work: Callable[[], T], size: int) -> T:
        """Run the work in a thread, unless it is about so few bytes (`size`) that the loop does not feel it."""
        ...

    def new_builder(self) -> BodyBuilder: ...
    def seek(self, partition: int, offset: int) -> None: ...
    def commit(self, partition: int, offset: int) -> None: ...
    def locate(self, partition: Partition, request: events.Locate) -> None: ...
    def recover(self, partition: Partition, request: events.Recover) -> None: ...
    def request_failed(self, what: str, error: StoreError | SourceError) -> None: ...
    def changed(self, partition: Partition) -> None: ...


class Partition:
    """The driver of one chain, from assignment until it is closed or abandoned."""

    def __init__(self, number: int, *, epoch: int, desk: Desk) -> None:
        self.number = number
        self.drained = asyncio.Event()
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._builder = desk.new_builder()
        self._work: deque[events.Append | events.Seal] = deque()
        self._working: object | None = None  # the body work that counts; one that was dropped is another
        self._waiting_bytes = 0
        self._waiting_records = 0  # bytes alone would let tombstones pile up
        self._body: Body | None = None
        self._sealed_at = 0.0
        self.last_object: str | None = None
        self.chain, actions = chain.assigned(number, epoch=epoch)
        self._do_all(actions)

    # ---- in ---------------------------------------------------------------------------------------------------------

    def feed(self, event: events.Event) -> None:
        """Tell the chain, and do what it says."""
        self.chain, actions = chain.step(self.chain, event, rules=self._desk.rules, now=self._desk.now())
        self._do_all(actions)
        self._arm()
        self._desk.changed(self)

    def abandon(self) -> None:
        """Give up everything that is open or under way: it is in Kafka, and read again from the chain's end."""
        self._drop()
        self.chain = chain.closed(self.chain)
        self._arm()
        self.drained.set()

    # ---- what the worker asks ---------------------------------------------------------------------------------------

    @property
    def wants_records(self) -> bool:
        """Whether a poll should bring more: not while a fetch's worth is still on its way into the body."""
        return self.chain.wants_records and not self.grows

    @property
    def grows(self) -> bool:
        """Whether records wait for their turn in the thread, or are in it."""
        return self._waiting_records > 0

    @property
    def unstored_records(self) -> int:
        """Records taken from Kafka that are not known to be in the bucket."""
        in_flight = self.chain.chunk.records if self.chain.chunk else 0
        held = sum(run.count - begin for run, begin, _ in self.chain.held)
        return self.chain.batch.records + in_flight + held

    @property
    def buffered_bytes(self) -> int:
        """Memory of everything held, waiting, open or in flight."""
        held = sum(run.memory_between(begin, run.count) for run, begin, _ in self.chain.held)
        return held + self._waiting_bytes + self._builder.size + self._body_bytes

    @property
    def relievable_bytes(self) -> int:
        """What a Pressure would set free before long: what is open, or all of a chunk whose put keeps failing."""
        if self.chain.retry is not None:
            return self.buffered_bytes
        if self.chain.batch.records and self.chain.chunk is None:
            return self._waiting_bytes + self._builder.size
        return 0

    @property
    def settling_bytes(self) -> int:
        """What is on its way into the bucket and free soon."""
        if self.chain.chunk is None or self.chain.retry is not None:
            return 0
        return self._body_bytes if self._body else self._waiting_bytes + self._builder.size

    @property
    def _body_bytes(self) -> int:
        if self._body is None:
            return 0
        return len(self._body.content) + (len(self._body.quarantine.body) if self._body.quarantine else 0)

    # ---- out --------------------------------------------------------------------------------------------------------

    def _do_all(self, actions: tuple[events.Action, ...]) -> None:
        for action in actions:
            self._do(action)

    def _do(self, action: events.Action) -> None:  # noqa: C901, PLR0912 -- a line an action
        desk = self._desk
        match action:
            case events.Append() | events.Seal():
                self._enqueue(action)
            case events.Put():
                self._spawn(self._put(action), "put")
            case events.PutQuarantine():
                self._spawn(self._put_quarantine(action), "put quarantine")
            case events.Head():
                self._spawn(self._head(action), "head")
            case events.Commit(offset=offset):
                desk.commit(self.number, offset)
            case events.Seek(offset=offset):
                desk.seek(self.number, offset)
            case events.Drop():
                self._drop()
            case events.Locate():
                desk.locate(self, action)
            case events.Recover():
                desk.recover(self, action)
            case events.Linked():
                self._report_linked(action)
            case events.Stalled():
                desk.report.stalled(self.number, action)
            case events.Waiting(reason=reason):
                desk.report.waiting(self.number, reason)
            case events.Unsigned(committed=committed, recovered=recovered):
                desk.report.unsigned(self.number, committed, recovered)
            case events.Drained():
                self.drained.set()

    def _report_linked(self, linked: events.Linked) -> None:
        body = self._body if linked.chunk is not None else None
        self._desk.report.linked(linked, body, self._desk.now() - self._sealed_at)
        self.last_object = linked.key
        self._body = None

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._desk.spawn(work, f"{name} {self.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():  # the one that brought the news ends by itself
                task.cancel()
        self._work.clear()
        self._working = None
        self._waiting_bytes = self._waiting_records = 0
        self._builder = self._desk.new_builder()
        self._body = None

    def _arm(self) -> None:
        due = self.chain.due_at(self._desk.rules.limits)
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = due
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_due = None, None
        self._spawn(self._tick(), "tick")  # a task: should the chain fail, the worker's group hears of it

    async def _tick(self) -> None:
        self.feed(events.Tick())

    # ---- bodies -----------------------------------------------------------------------------------------------------

    def _enqueue(self, work: events.Append | events.Seal) -> None:
        if isinstance(work, events.Append):
            self._desk.report.received(work.run, work.begin, work.end)
            self._waiting_bytes += _memory(work)
            self._waiting_records += work.end - work.begin
        else:
            self._sealed_at = self._desk.now()
        self._work.append(work)
        if self._working is None:
            self._working = object()
            self._spawn(self._work_off(self._working), "body")

    async def _work_off(self, me: object) -> None:
        builder = self._builder
        while self._work and self._working is me:
            appends: list[events.Append] = []
            while self._work and isinstance(self._work[0], events.Append):
                appends.append(self._work.popleft())  # type: ignore[arg-type]  # as just seen
            if appends:
                size = sum(map(_memory, appends))
                await self._desk.off_loop(partial(_append_all, builder, appends), size)
                self._waiting_bytes -= size
                self._waiting_records -= sum(append.end - append.begin for append in appends)
                self._desk.changed(self)
            elif isinstance(seal := self._work.popleft(), events.Seal):
                body = await self._desk.off_loop(builder.finish, builder.size)
                builder = self._builder = self._desk.new_builder()
                self._body = body
                self.feed(events.Finished(epoch=seal.epoch, quarantine=body.quarantine is not None))
        if self._working is me:
            self._working = None

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def _put(self, put: events.Put) -> None:
        desk, chunk = self._desk, put.chunk
        if put.failure is not None:
            await asyncio.sleep(delay_seconds(put.failure, put.attempt))
        upload = self._upload(chunk)
        answer: events.PutAnswered
        async with desk.upload_slots:
            began = desk.now()
            try:
                answer = events.PutAnswered(epoch=put.epoch, answer=await desk.store.put_if_absent(upload))
            except StoreError as error:
                answer = events.PutAnswered(epoch=put.epoch, answer=error.failure, reason=error.reason)
                desk.report.retrying(chunk, error.failure, error.reason, put.attempt + 1)
                desk.request_failed(f"put {chunk.key}", error)
            desk.report.put_took(desk.now() - began)
        self.feed(answer)

    def _upload(self, chunk: events.Chunk) -> Upload:
        body, rules = self._require_body(), self._desk.rules
        metadata = ObjectMetadata(
            chain_id=rules.layout.chain_id,
            topic=rules.layout.topic,
            partition=self.number,
            start_offset=chunk.start,
            next_offset=chunk.next_offset,
            record_count=body.record_count,
            quarantined_count=body.quarantined_count,
            quarantine=self._quarantine_name(chunk, body),
            lost_count=chunk.lost,
            first_timestamp=chunk.first_timestamp,
            max_timestamp=chunk.max_timestamp,
            sha256=body.sha256,
            writer=rules.writer,
        )
        return Upload(
            key=chunk.key,
            body=body.content,
            crc32=body.crc32,
            content_type=CONTENT_TYPES[rules.keys.ext],
            metadata=metadata.encode(),
        )

    def _quarantine_name(self, chunk: events.Chunk, body: Body) -> str:
        if body.quarantine is None:
            return ""
        return self._desk.rules.keys.quarantine_name(
            partition=self.number, start=chunk.start, next_offset=chunk.next_offset, sha256=body.quarantine.sha256
        )

    async def _put_quarantine(self, put: events.PutQuarantine) -> None:
        desk, body = self._desk, self._require_body()
        if body.quarantine is not None:
            upload = Upload(
                key=desk.rules.keys.quarantine_prefix + self._quarantine_name(put.chunk, body),
                body=body.quarantine.body,
                crc32=body.quarantine.crc32,
                content_type=CONTENT_TYPES["jsonl.gz"],
                metadata={},
            )
            # "There" counts as created: the key carries the content's hash.
            await self._until_answered(put.epoch, f"put {upload.key}", lambda: self._put_in_slot(upload))
        self.feed(events.QuarantineStored(epoch=put.epoch))

    async def _put_in_slot(self, upload: Upload) -> None:
        async with self._desk.upload_slots:
            await self._desk.store.put_if_absent(upload)

    async def _head(self, head: events.Head) -> None:
        async def ask() -> events.HeadAnswered:
            async with self._desk.head_slots:
                return events.HeadAnswered(epoch=head.epoch, found=await self._desk.store.head(head.key))

        self.feed(await self._until_answered(head.epoch, f"head {head.key}", ask))

    async def _until_answered(self, epoch: int, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        return await until_answered(ask, on_failure=lambda error: self._request_failed(epoch, what, error))

    def _request_failed(self, epoch: int, what: str, error: StoreError | SourceError) -> None:
        known = self.chain.retry
        vague = isinstance(error, StoreError) and error.vague
        reason = known.reason if known is not None and vague else f"{what}: {error}"
        self.feed(events.Unanswered(epoch=epoch, reason=reason))
        self._desk.report.asking_again(what, error)
        self._desk.request_failed(what, error)

    def _require_body(self) -> Body:
        if self._body is None:
            msg = f"partition {self.number}: a put without a finished body"
            raise AssertionError(msg)
        return self._body


def _memory(append: events.Append) -> int:
    return append.run.memory_between(append.begin, append.end)


def _append_all(builder: BodyBuilder, work: Sequence[events.Append]) -> None:
    for append in work:
        builder.add(append.run, append.begin, append.end)
