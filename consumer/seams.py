"""Where aiokafka is bent: its consumer with batch views in it, and without the wish to create topics.

Owns: the inner seams, held by the pin `aiokafka==0.14.0`, by the check below and by tests/contract/test_seams.py, which
compares with aiokafka's own path; and what is fetched ahead. Does not own: the views (`views`), how answers are
received (`frames`), the use of the consumer (`source`).

What is fetched ahead and waits here is PREFETCH_BYTES and one answer a broker, however many partitions there are:
beyond that, only what is being polled for is fetched.

The fetcher builds its record iterator by a name of its module, in the middle of a long method; the consumer builds its
fetcher likewise, the client its metadata request. Replacing the names in aiokafka's modules would reach every consumer
of the process (`verify`, tests that compare with the stock path), copying the methods would freeze their other lines.
So each of those methods is copied as a function object whose globals differ in just those names, on our own class.
"""

# ruff: noqa: SLF001 # reaching into aiokafka is what this module is for

from __future__ import annotations

import asyncio
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Final, Protocol, cast

import aiokafka
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from consumer.frames import get_conn
from consumer.views import BatchRecords, WireBytes
from shared.kafka_metadata import metadata_update
from shared.rebinding import rebound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from aiokafka.structs import TopicPartition

    from consumer.inquiries import Client

SUPPORTED: Final = "0.14.0"
QUESTIONS: Final = 2  # a connection of its own a broker, beside aiokafka's ConnectionGroup.DEFAULT and .COORDINATION
ABANDON_SECONDS: Final = 2.0
PREFETCH_BYTES: Final = 16 << 20

if aiokafka.__version__ != SUPPORTED:
    raise ImportError(
        f"aiokafka {aiokafka.__version__} is installed, but consumer/seams.py is written for {SUPPORTED}: install the "
        "locked version, or check the seams against the new one and run tests/contract/test_seams.py"
    )


class _Position(Protocol):
    has_valid_position: bool


class _Assignment(Protocol):
    tps: Collection[TopicPartition]

    def state_value(self, tp: TopicPartition) -> _Position: ...


class BatchFetcher(Fetcher):  # type: ignore[misc] # aiokafka has no types
    """The fetcher, handing out views.Item instead of ConsumerRecord.

    Only partitions that were sought are fetched. aiokafka would ask for the committed offset of the others, one after
    the other, and hold back the broker's next fetch for the answers, which nobody uses.
    """

    _proc_fetch_request = rebound(Fetcher._proc_fetch_request, PartitionRecords=BatchRecords, MemoryRecords=WireBytes)
    _polled: frozenset[TopicPartition] = frozenset()

    async def fetched_records(
        self,
        partitions: Collection[TopicPartition],
        timeout: float = 0,  # noqa: ASYNC109 -- aiokafka's signature
        max_records: int | None = None,
    ) -> object:
        self._polled = frozenset(partitions)  # aiokafka looks each fetched one up in it
        if self._waiting_bytes() > PREFETCH_BYTES:
            self._notify(self._wait_consume_future)  # the routine thinks again
        try:
            return await super().fetched_records(self._polled, timeout, max_records)
        finally:
            self._polled = frozenset()

    def _get_actions_per_node(self, assignment: _Assignment) -> object:
        sought = [tp for tp in assignment.tps if assignment.state_value(tp).has_valid_position]
        if self._waiting_bytes() > PREFETCH_BYTES:
            sought = [tp for tp in sought if tp in self._polled]
        return super()._get_actions_per_node(SimpleNamespace(tps=sought, state_value=assignment.state_value))

    def _waiting_bytes(self) -> int:
        results = [result for result in self._records.values() if isinstance(result, FetchResult)]
        return sum(r._partition_records._records.size_in_bytes() for r in results if r.has_more())


class RetrievingCoordinator(GroupCoordinator):  # type: ignore[misc] # aiokafka has no types
    """The coordinator, keeping an eye on commits that outlive their caller.

    aiokafka shields the request of a commit from its caller's cancellation. When our deadline cuts a commit off, nobody
    fetches what the request came to, and asyncio would print "Task exception was never retrieved" much later. Nothing
    is lost with it: the caller was told that the commit may or may not have landed.
    """

    def _do_commit_offsets(self, assignment: object, offsets: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(super()._do_commit_offsets(assignment, offsets))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


class BatchConsumer(AIOKafkaConsumer):  # type: ignore[misc] # aiokafka has no types
    """The consumer with all seams. `getmany` returns lists of views.Item; nothing else differs."""

    start: Callable[[], Awaitable[None]] = rebound(
        AIOKafkaConsumer.start, Fetcher=BatchFetcher, GroupCoordinator=RetrievingCoordinator
    )

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._client._metadata_update = MethodType(metadata_update, self._client)
        self._client._get_conn = MethodType(get_conn, self._client)

    @property
    def client(self) -> Client:
        return cast("Client", self._client)

    @property
    def generation(self) -> int:
        """Of the group, as this member knows it; negative = not a member (any more)."""
        return -1 if self._coordinator is None else self._coordinator.generation

    def tasks(self) -> Iterator[asyncio.Task[object]]:
        """The background tasks a consumer lives on. One that has ended too early stalls it, mostly in silence."""
        for owner, name in (
            (self._coordinator, "_coordination_task"),
            (self._fetcher, "_fetch_task"),
            (self._client, "_sync_task"),
        ):
            if task := getattr(owner, name, None):
                yield task

    async def abandon(self) -> None:
        """Close what `stop` could not, in about three times ABANDON_SECONDS at most.

        Where the farewell fails too, the group waits for our session to end, nothing worse.
        """
        self._closed = True
        tasks = [*self.tasks()]
        if self._fetcher is not None:
            tasks += self._fetcher._pending_tasks
        if self._coordinator is not None:
            others = (self._coordinator._heartbeat_task, self._coordinator._commit_refresh_task)
            tasks += [task for task in others if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=ABANDON_SECONDS)
        try:
            async with asyncio.timeout(ABANDON_SECONDS):
                await self._say_farewell()
        except (KafkaError, TimeoutError, NotImplementedError):
            pass  # the group finds out by itself
        try:
            async with asyncio.timeout(ABANDON_SECONDS):
                await self._client.close()
        except (KafkaError, TimeoutError):
            pass  # the sockets are closed, only their confirmation is missing

    async def _say_farewell(self) -> None:
        """Not on the group's own connection, where it would wait behind a JoinGroup."""
        coordinator = self._coordinator
        if coordinator is not None and coordinator.generation > 0 and coordinator.coordinator_id is not None:
            farewell = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            await self._client.send(coordinator.coordinator_id, farewell, group=QUESTIONS)
