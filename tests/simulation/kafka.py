"""Kafka as a simulated process meets it: a coordinator that loses patience, commits that come late, brokers that go.

Owns: sessions and heartbeats, what becomes of each request, drawn from the seed, and the deadline of a request, as the
real source has one. Does not own: the log, the group's protocol and the source's life (`tests.fakes.source`).

The brokers' side runs outside all processes: the session of a frozen member ends, its commit on the way lands. As
aiokafka does, a commit takes the generation that its member has when it is *sent*: one that had to wait lands under a
newer generation than it was asked for in, and Kafka cannot tell.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from consumer.ports import CommitRefusedError, LogRange, SourceError
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.simulation.processes import ProcessLoop, context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from random import Random

    from consumer.ports import Committed, Fetched, Listener, OutOfRange, TopicIdentity
    from tests.simulation.auditor import Auditor

T = TypeVar("T")

REQUEST_SECONDS: Final = 5.0  # the deadline of a request
LEAVE_SECONDS: Final = 2.0
PROMPT_SECONDS: Final = 3.0  # a commit that took longer is a late one


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """A commit on its way, with the generations in which it was asked for and sent, and when it was asked for."""

    offsets: Mapping[int, Committed]
    asked_in: int
    asked_at: float
    sent_in: int


class Brokers:
    """What the whole of Kafka is like."""

    def __init__(self, random: Random, *, roughness: float, poll_roughness: float, latency_seconds: float) -> None:
        self.random = random
        self.roughness = roughness
        self.poll_roughness = poll_roughness  # of polls that brought something: it is lost
        self.latency_seconds = latency_seconds  # of a request and its answer, on average
        self.away_until = 0.0  # no answer to anything
        self.loading_until = 0.0  # the group's coordinator has moved and reads its log
        self.lagging: dict[int, tuple[float, int]] = {}  # partition → until when, and how far a new leader lags

    def is_away(self) -> bool:
        return asyncio.get_running_loop().time() < self.away_until

    def coordinator_is_away(self) -> bool:
        return asyncio.get_running_loop().time() < max(self.away_until, self.loading_until)

    def mishap(self) -> bool:
        return self.random.random() < self.roughness

    def latency(self) -> float:
        return self.random.expovariate(1.0 / self.latency_seconds)


class Coordinator(FakeGroup):
    """Kafka's own bookkeeping: sessions, a rebalance that waits for everyone, for as long as it may."""

    def __init__(self, log: FakeLog, *, brokers: Brokers, auditor: Auditor, session: float, rebalance: float) -> None:
        super().__init__(log, rebalance_timeout_seconds=rebalance)
        self.brokers = brokers
        self._auditor = auditor
        self._session_seconds = session
        self._is_rebalancing = False
        self._heard: dict[FakeSource, float] = {}
        self._context = context_of()

    # ---- what members ask --------------------------------------------------------------------------------------------

    def enter(self, member: FakeSource) -> None:
        member.told_to_rejoin()  # its JoinGroup makes it a member

    def join(self, member: FakeSource) -> asyncio.Future[list[int]]:
        if member not in self.members:
            member.generation = -1
            self.members.append(member)
        if member not in self._heard:
            self._heard[member] = asyncio.get_running_loop().time()
            self._look_after(member)
        if not self._is_rebalancing:
            self.rebalance()
        return super().join(member)

    def rebalance(self) -> None:
        """Members learn of it by their heartbeats."""
        if self.members and not self._is_rebalancing:
            self._is_rebalancing = True
            self._timer = asyncio.get_running_loop().call_later(
                self._timeout_seconds, self._put_out_laggards, context=self._context
            )
        self._complete()

    def hears(self, member: FakeSource) -> bool:
        """A heartbeat. Whether the member has to join anew."""
        if member not in self.members:
            member.generation = -1
            return True
        self._heard[member] = asyncio.get_running_loop().time()
        return self._is_rebalancing and member not in self._joined

    def accepts(self, member: FakeSource, generation: int) -> bool:
        """Whether a commit under that generation counts. Without one it does, as long as nobody is there."""
        if generation < 0:
            return not self.members
        return member in self.members and generation == self.generation

    # ---- patience ----------------------------------------------------------------------------------------------------

    def _look_after(self, member: FakeSource) -> None:
        loop = asyncio.get_running_loop()
        if member not in self.members:
            self._heard.pop(member, None)
            return
        since = max(self._heard[member], self.brokers.away_until, self.brokers.loading_until)
        if member in self._joined:  # it waits for the others: nothing is heard of it until all are there
            since = loop.time()
        due = since + self._session_seconds
        if due <= loop.time():
            del self._heard[member]
            self._auditor.seen["put out: session over"] += 1
            self.evict(member)
        else:
            loop.call_at(due, self._look_after, member, context=self._context)

    def _put_out_laggards(self) -> None:
        late = [member for member in self.members if member not in self._joined]
        self._auditor.seen["put out: did not rejoin in time"] += len(late)
        super()._put_out_laggards()
        if not self.members:
            self._is_rebalancing = False

    def _complete(self) -> None:
        before = self.generation
        super()._complete()
        if self.generation > before:
            self._is_rebalancing = False
            self._auditor.seen["rebalances"] += 1
            now = asyncio.get_running_loop().time()
            for member in self.members:
                self._heard[member] = now
        elif not self.members and self._timer is not None:
            self._timer.cancel()
            self._timer, self._is_rebalancing = None, False


class SimulatedSource(FakeSource):
    """ports.Source of one process, over brokers that fail."""

    _group: Coordinator

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        process: str,
        auditor: Auditor,
        batches_per_poll: int,
        heartbeat_seconds: float,
        on_polled: Callable[[Sequence[Fetched | OutOfRange]], None],
    ) -> None:
        super().__init__(coordinator, batches_per_poll=batches_per_poll)
        self.polls_since: float | None = None  # since when it is inside a poll
        self.polled_at: float | None = None  # when it last came out of one; both on the process's own clock
        self._process = process
        self._auditor = auditor
        self._brokers = coordinator.brokers
        self._heartbeat_seconds = heartbeat_seconds
        self._on_polled = on_polled
        self._beating: asyncio.Task[None] | None = None

    def own_clock(self) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        return loop.awake_seconds(self._process)

    # ---- life --------------------------------------------------------------------------------------------------------

    def join(self, listener: Listener) -> None:
        super().join(listener)
        self.polled_at = self.own_clock()
        self._beating = asyncio.create_task(self._beat(), name="fake heartbeat")

    async def leave(self) -> None:
        self.polled_at = None  # nobody polls any more
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            self._beating = None
        if self._brokers.coordinator_is_away():
            await asyncio.sleep(LEAVE_SECONDS)
        await super().leave()

    def _say_farewell(self) -> None:
        if self._brokers.coordinator_is_away():
            self._auditor.seen["left without farewell"] += 1
        else:
            super()._say_farewell()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if not self._brokers.coordinator_is_away() and self._group.hears(self):
                self._rejoin.set()

    async def _join_group(self) -> list[int]:
        while self._brokers.coordinator_is_away():
            await asyncio.sleep(0.5)
        await asyncio.sleep(self._brokers.latency())
        return await super()._join_group()

    # ---- records -----------------------------------------------------------------------------------------------------

    async def poll(self, wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        self.polls_since = self.own_clock()
        try:
            if self._brokers.mishap():
                self._auditor.seen["poll failed"] += 1
                raise SourceError("a poll failed")
            items = await super().poll(wanted, timeout_seconds)
            if items and self._brokers.random.random() < self._brokers.poll_roughness:
                self._auditor.seen["poll failed, what it had drained is lost"] += 1
                raise SourceError("a poll failed, what it had drained is lost")
            self._on_polled(items)
            return items
        finally:
            self.polls_since, self.polled_at = None, self.own_clock()

    def _read(self, wanted: Collection[int]) -> Sequence[Fetched | OutOfRange]:
        return () if self._brokers.is_away() else super()._read(wanted)

    # ---- offsets and questions ---------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[int, Committed]) -> None:
        self._enter("commit")
        if not offsets:
            return
        if lost := sorted(offsets.keys() - self._assigned):
            raise CommitRefusedError(f"not assigned any more: partitions {lost}")
        if self.generation < 0:
            raise CommitRefusedError("the group has put us out")
        loop, random, asked_in = asyncio.get_running_loop(), self._brokers.random, self.generation
        asked_at = loop.time()
        answer: asyncio.Future[bool] = loop.create_future()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await asyncio.sleep(random.uniform(0, 2 * REQUEST_SECONDS) if self._brokers.mishap() else 0.0)
                while self._brokers.coordinator_is_away():
                    await asyncio.sleep(0.3)
                there = random.uniform(0, 20.0) if self._brokers.mishap() else self._brokers.latency()
                request = CommitRequest(
                    offsets=dict(offsets), asked_in=asked_in, asked_at=asked_at, sent_in=self.generation
                )
                loop.call_later(there, self._commit_lands, request, answer, context=context_of())
                accepted = await answer
        except TimeoutError:
            self._auditor.seen["commit without an answer"] += 1
            raise SourceError("no answer to a commit") from None
        if not accepted:
            self._auditor.seen["commit refused"] += 1
            self._rejoin.set()
            raise CommitRefusedError("the group has moved on")

    def _commit_lands(self, request: CommitRequest, answer: asyncio.Future[bool]) -> None:
        if self._brokers.coordinator_is_away():
            return
        accepted = self._group.accepts(self, request.sent_in)
        if accepted:
            self._auditor.seen["commit landed under a newer generation"] += request.sent_in != request.asked_in
            self._auditor.seen["commit landed after it was given up"] += answer.done()
            late = answer.done() or asyncio.get_running_loop().time() - request.asked_at > PROMPT_SECONDS
            self._auditor.commit_lands(self._process, request.offsets, before=self._group.offsets, late=late)
            self._group.offsets.update(request.offsets)
        if not answer.done() and not self._brokers.mishap():
            answer.set_result(accepted)

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]:
        if asyncio.get_running_loop().time() < self._brokers.loading_until:
            self._auditor.seen["coordinator loads"] += 1
            raise SourceError("COORDINATOR_LOAD_IN_PROGRESS")
        await self._request()
        return await super().committed(partitions)

    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]:
        await self._request()
        ranges = dict(await super().log_ranges(partitions))
        for partition, (until, behind) in self._brokers.lagging.items():
            if partition in ranges and asyncio.get_running_loop().time() < until:
                log = ranges[partition]
                ranges[partition] = LogRange(
                    start=log.start, high_watermark=max(log.start, log.high_watermark - behind)
                )
        return ranges

    async def identity(self) -> TopicIdentity:
        await self._request()
        return await super().identity()

    async def _request(self) -> None:
        """There and back, or no answer within the deadline."""
        if self._brokers.is_away() or self._brokers.mishap():
            await asyncio.sleep(REQUEST_SECONDS)
            raise SourceError("no answer from Kafka")
        await asyncio.sleep(self._brokers.latency())
