"""The way into one topic: hands its records to Kafka and does not rest before each is acknowledged or set aside.

Owns: the client in use, its replacement, the wait for broker, topic and leaders. Does not own: the order of records
(`shipment`), what goes into a batch (`packer`), what the topic takes (`inquiry`), aiokafka (`courier`), who is told
(`settlement`, `troubles`), the account (`ledger`).

Invariants: `run` ends by cancellation alone: whatever Kafka answers, records are kept and sent again, or set aside when
the topic can never take them. Once one batch has failed, an idempotent client's sequence of that partition has a hole
and everything after it would be refused: so every failure means another client. A lost client is dead before what it
had under way is taken back; only what it had sent already may be in the topic twice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)

from producer.courier import Courier, StartErrors
from producer.inquiry import Inquiry, Refusal
from producer.packer import lanes, pack
from producer.record_batch import RecordBatch
from producer.settlement import Settlement
from producer.shipment import Shipment
from producer.side_thread import beside
from producer.troubles import Kind, Troubles, reason
from shared import logs
from shared.kafka import connection_trouble, unreachable

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection, Iterable, Mapping

    from producer.ledger import Delivery, Ledger, Parcel, Record
    from producer.limits import Size
    from producer.metrics import Metrics
    from producer.redactor import Redactor
    from producer.shipment import Bundle
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

RETRY_SECONDS = 1.0
REPLACE_SECONDS = (1.0, 30.0)  # before another client: at first, and at most
CLOSE_SECONDS = 3.0
UNACKED_AGE_SECONDS = 10.0
LOOK_SECONDS = 10.0  # whether the topic and its partitions are still there
# Of records given to the client: what a lost one may double, and far below what a request may hold.
UNDER_WAY_BYTES = 16 * 1024 * 1024
THREAD_BYTES = 64 * 1024  # less is compressed faster than a thread is asked


class Feed:
    """`submit` never waits; `run` does the work."""

    def __init__(
        self,
        topic: str,
        options: Mapping[str, object],
        *,
        brokers: str,
        metrics: Metrics,
        ledger: Ledger,
        redactor: Redactor,
        surroundings: Surroundings,
        murmur2: Callable[[bytes], int],
        settled: Callable[[], object],
    ) -> None:
        self._topic = topic
        self._options = options
        self._brokers = brokers
        self._metrics = metrics
        self._ledger = ledger
        self._surroundings = surroundings
        self._murmur2 = murmur2
        self._settlement = Settlement(topic, ledger=ledger, metrics=metrics, redactor=redactor, settled=settled)
        self._inquiry = Inquiry(topic, surroundings)
        self._shipment = Shipment()
        self._lane_tasks: dict[int, asyncio.Task[None]] = {}
        self._lost: asyncio.Future[str] | None = None
        self._losses = 0  # since Kafka last took what it had refused
        self._refused: set[int] = set()  # partitions of which a batch was refused, until they take one
        self._woken = asyncio.Event()
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._close_seconds = CLOSE_SECONDS
        self._troubles = Troubles(topic, brokers, surroundings)
        self._courier: Courier | None = None

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Take the records, one at least. The future is done when each is acknowledged or set aside."""
        delivery = self._settlement.promise(parcel)
        self._shipment.load(parcel)
        self._woken.set()
        return delivery

    def not_ready(self) -> list[str]:
        """Why records are not being acknowledged; empty when they are."""
        reasons = self._troubles.reasons()
        waiting = self._ledger.waiting(self._topic, self._surroundings.monotonic())
        if waiting.oldest_seconds > UNACKED_AGE_SECONDS:
            since = self._surroundings.wall() - waiting.oldest_seconds
            waits = f"{waiting.records} records wait, the oldest for {waiting.oldest_seconds:.0f} s"
            cause = connection_trouble(self._options)
            text = f"Kafka has not acknowledged: {waits}" + (f" ({cause})" if cause else "")
            reasons.append(reason(self._topic, since, text))
        return reasons

    def close_within(self, seconds: float) -> None:
        """Let the closing of the client take no longer than this."""
        self._close_seconds = min(seconds, CLOSE_SECONDS)

    async def run(self) -> None:
        """Publish what is submitted, for ever, with one client after the other."""
        while True:
            courier = self._courier = await self._connect()
            try:
                why = await self._serve(courier)
            finally:
                await self._abandon(courier)
            self._recover(why)
            first, longest = REPLACE_SECONDS
            await self._surroundings.sleep(min(longest, first * 2 ** min(self._losses - 1, 10)))

    # ---- one client -------------------------------------------------------------------------------------------------

    async def _connect(self) -> Courier:
        while True:
            courier = Courier(self._options)
            try:
                await courier.start()
            except StartErrors as error:
                await self._abandon(courier)
                self._troubles.say(Kind.WAITING, unreachable(self._options, error))
            except BaseException:
                await self._abandon(courier)
                raise
            else:
                self._inquiry.begin()
                return courier
            await self._surroundings.sleep(RETRY_SECONDS)

    async def _abandon(self, courier: Courier) -> None:
        if not await courier.abandon(self._close_seconds):
            log.warning(
                "Kafka client left open",
                topic=self._topic,
                reason=f"its tasks and connections did not end within {self._close_seconds:g} s",
            )

    async def _serve(self, courier: Courier) -> str:
        """Publish through this client until it is lost, and why. Nothing of ours uses it any more when this returns."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._lost = lost
        dispatching = asyncio.create_task(self._dispatch(courier), name=f"feed {self._topic}")
        vital = courier.vital_tasks()
        awaited: set[asyncio.Future[Any]] = {dispatching, lost, *vital}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if dispatching.done():
                dispatching.result()  # a bug: it ends by an error only
            if lost.done():
                return lost.result()
            why = "; ".join(_ending(task) for task in vital if task.done())
            self._troubles.note(Kind.WAITING, f"{self._brokers}: {why}")
            return why
        finally:
            tasks = {dispatching, *self._lane_tasks.values()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _lose(self, why: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    def _recover(self, why: str) -> None:
        """After the client's end: what it had waits again."""
        resent = self._shipment.take_back()
        self._losses += 1
        self._metrics.clients_replaced.inc()
        self._metrics.records_resent.inc(resent)
        log.warning("Kafka client replaced", topic=self._topic, reason=why, records_sent_again=resent)

    # ---- what is to be done -----------------------------------------------------------------------------------------

    async def _dispatch(self, courier: Courier) -> None:
        """Start a task for each lane that has records and can send them; say what the others wait for."""
        while True:
            self._woken.clear()
            trouble = await self._obstacle(courier)
            if trouble is None:
                self._troubles.clear(Kind.WAITING)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._woken.wait()
            else:
                self._troubles.say(Kind.WAITING, trouble)
                await self._surroundings.sleep(RETRY_SECONDS)

    async def _obstacle(self, courier: Courier) -> str | None:
        """Let everything go that can; what keeps the rest, None = nothing does."""
        partitions = courier.partitions(self._topic)
        if not partitions:
            answered = await courier.refresh()
            partitions = courier.partitions(self._topic)
        if not partitions:
            return self._missing() if answered else f"{self._brokers} tells no metadata"
        if not await self._inquiry.ask(courier):
            return self._missing()
        if gone := self._shipment.partitions_under_way() - partitions:
            self._lose(f"the topic has lost its partition {min(gone)}: its records go to another one")
            return None
        self._refused &= partitions
        self._shipment.assign(partitions, self._route)
        if leaderless := self._start_lanes(courier):
            answered = await courier.refresh()
            leaderless = self._start_lanes(courier)
            if leaderless:
                return f"{self._brokers}: partition {leaderless[0]} has no leader" + (
                    "" if answered else ", and no broker tells metadata"
                )
        return None

    def _missing(self) -> str:
        return (
            f"the topic does not exist on {self._brokers} or may not be seen; "
            "create it (or grant DESCRIBE), it is waited for"
        )

    def _route(self, records: Iterable[Record], partitions: Collection[int]) -> dict[int, deque[Record]]:
        return lanes(records, partitions, self._surroundings.pick, self._murmur2)

    def _start_lanes(self, courier: Courier) -> list[int]:
        """The partitions with records and without a leader; all others are being worked on."""
        leaderless = []
        for partition in self._shipment.loaded():
            if partition in self._lane_tasks:
                continue
            if courier.has_leader(self._topic, partition):
                task = asyncio.create_task(self._run_lane(courier, partition), name=f"{self._topic}-{partition}")
                self._lane_tasks[partition] = task
                task.add_done_callback(partial(self._lane_ended, partition))
            else:
                leaderless.append(partition)
        return leaderless

    def _lane_ended(self, partition: int, task: asyncio.Task[None]) -> None:
        del self._lane_tasks[partition]
        self._woken.set()
        if task.cancelled() or (error := task.exception()) is None or self._lost is None or self._lost.done():
            return
        if isinstance(error, KafkaError):
            self._lose(f"the client takes nothing any more ({type(error).__name__}: {error})")
        else:
            self._lost.set_exception(error)  # a bug

    # ---- one lane ---------------------------------------------------------------------------------------------------

    async def _run_lane(self, courier: Courier, partition: int) -> None:
        """Send what waits for the partition, batch after batch, while it has a leader."""
        lane = self._shipment.lane(partition)
        limits = self._inquiry.limits
        while lane and courier.has_leader(self._topic, partition):
            batch = RecordBatch(limits.cut_bytes)
            async with self._turn:  # to pack takes milliseconds: one lane each time the loop turns
                await self._room()
                timestamp_ms = int(self._surroundings.wall() * 1000)
                count = pack(batch, lane, timestamp_ms, keyless=not limits.needs_key)
                bundle = self._shipment.depart(partition, count, batch.raw_bytes) if count else None
                await asyncio.sleep(0)
            if bundle is None:
                self._set_aside_keyless(partition)
                continue
            size = batch.build() if batch.raw_bytes < THREAD_BYTES else await beside(batch.build)
            if limits.takes(size):
                if not await self._hand_over(courier, bundle, batch, size):
                    return
            elif size.records == 1:
                self._settlement.too_large(bundle, size, limits.allowed_bytes)
                self._relieve(bundle)
            else:  # the limits have become narrower meanwhile
                limits.refused(size)
                self._return_to_lane(bundle)

    async def _hand_over(self, courier: Courier, bundle: Bundle, batch: RecordBatch, size: Size) -> bool:
        """False = its partition is not there any more, the bundle is in its lane again."""
        answer = await courier.hand_over(batch, self._topic, bundle.partition)
        if answer is None:
            self._return_to_lane(bundle)
            return False
        bundle.handed_over = True
        answer.add_done_callback(partial(self._answered, bundle, size))
        return True

    def _set_aside_keyless(self, partition: int) -> None:
        """All at the front of the lane."""
        if count := len([*takewhile(lambda item: item[1].key is None, self._shipment.lane(partition))]):
            bundle = self._shipment.depart(partition, count)
            self._settlement.keyless(bundle)
            self._relieve(bundle)

    def _relieve(self, bundle: Bundle) -> None:
        """Of what is set aside: when nothing else waits for its partition, nothing of it is refused any more."""
        self._shipment.settle(bundle)
        self._freed.set()
        if self._shipment.is_clear(bundle.partition):
            self._taken(bundle.partition)

    async def _room(self) -> None:
        """Until the client has little enough."""
        while self._shipment.under_way_bytes >= UNDER_WAY_BYTES:
            self._freed.clear()
            await self._freed.wait()

    def _return_to_lane(self, bundle: Bundle) -> None:
        self._shipment.return_to_lane(bundle)
        self._freed.set()

    def _answered(self, bundle: Bundle, size: Size, answer: asyncio.Future[object]) -> None:
        if answer.cancelled():
            return  # the client's end: the bundle is taken back
        error = answer.exception()
        if error is not None:
            self._inquiry.refused(Refusal(bundle=bundle, size=size, error=error))
            why = _words(error)
            self._refused.add(bundle.partition)
            self._troubles.note(Kind.REFUSED, f"{self._brokers}: {why}")
            self._lose(why)
        elif self._shipment.settle(bundle):
            self._freed.set()
            self._taken(bundle.partition)
            self._settlement.acknowledged(bundle)

    def _taken(self, partition: int) -> None:
        """The partition's records go on. Others that go on say nothing of one that is refused."""
        self._refused.discard(partition)
        if not self._refused or self._shipment.is_empty():
            self._refused.clear()
            self._losses = 0
            self._troubles.clear(Kind.REFUSED)


def _ending(task: asyncio.Task[object]) -> str:
    """Of one of a client's own tasks, which should not end."""
    error = None if task.cancelled() else task.exception()
    if error is not None and error.__cause__ is not None:
        error = error.__cause__  # aiokafka's wrapper says only that something happened
    why = "" if error is None else f" ({type(error).__name__}: {error})"
    return f"aiokafka's {task.get_coro().__qualname__} has ended{why}"  # type: ignore[union-attr]


def _words(error: BaseException) -> str:
    """For people."""
    said = f"Kafka refuses records ({type(error).__name__}: {error})"
    match error:
        case MessageSizeTooLargeError():
            return f"{said}; the topic's limit is asked again and batches are cut smaller"
        case TopicAuthorizationFailedError() | ClusterAuthorizationFailedError():
            return f"{said}; grant WRITE on the topic, they are kept and sent again"
        case InvalidTimestampError():
            return f"{said}; check this machine's clock and the topic's message.timestamp settings"
    if type(error) is KafkaError:
        return f"the client has failed ({error}); its records are sent again"
    return f"{said}; they are kept and sent again"
