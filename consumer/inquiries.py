"""Questions to the brokers about the topic and the group, beside the consumer's own fetching and heartbeats.

Owns: whom to ask (coordinator, leaders, anyone), asking again what may pass, the deadline of each question, and turning
every other answer into a SourceError. Does not own: the bytes (`requests`), the connections (aiokafka's client).

Invariants: a question is answered from one round in which no error occurred anywhere, or not at all. Nothing is cached:
the coordinator is looked up for every question, since a moved one is exactly what must not be believed. Questions have
a connection of their own per broker: on the fetching one they would wait behind a long poll, on the group's behind a
JoinGroup that lasts through a rebalance.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import TopicPartition

from consumer import requests
from consumer.ports import LogRange, SourceError
from consumer.seams import QUESTIONS
from shared.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from consumer.ports import Committed, TopicIdentity
    from shared.topic_configs import DescribeConfigsAnswer

RETRY_SECONDS: Final = 0.2

T = TypeVar("T")
log = get_logger(__name__)


class _Connection(Protocol):
    def close(self) -> object: ...


class _Cluster(Protocol):
    def leader_for_partition(self, partition: TopicPartition) -> int | None: ...


class Client(Protocol):
    """The part of AIOKafkaClient used here."""

    @property
    def cluster(self) -> _Cluster: ...
    @property
    def _conns(self) -> Mapping[tuple[object, int], _Connection]: ...
    def set_topics(self, topics: Sequence[str]) -> object: ...
    def get_random_node(self) -> int | None: ...
    def force_metadata_update(self) -> Awaitable[object]: ...
    async def send(self, node_id: int, request: object, *, group: int) -> object: ...


class Inquiries:
    """About one topic and one group. Every method raises SourceError when the answer could not be had in time.

    `trouble` tells why brokers cannot be connected to, when that is so.
    """

    def __init__(
        self,
        client: Client,
        *,
        topic: str,
        group: str,
        timeout_seconds: float,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._client = client
        self._topic = topic
        self._group = group
        self._timeout_seconds = timeout_seconds
        self._trouble = trouble

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]:
        """The group's offsets; None only when the coordinator itself said so."""

        async def ask() -> Mapping[int, Committed | None]:
            request = requests.offset_fetch(self._group, self._topic, partitions)
            answer = cast("requests.OffsetFetchAnswer", await self._send(await self._coordinator(), request))
            return requests.committed(answer, self._topic, partitions)

        return await self._asked(f"the committed offsets of group {self._group}", ask) if partitions else {}

    async def group_has_members(self) -> bool:
        """Of either group protocol."""

        async def ask() -> bool:
            node = await self._coordinator()
            answer = await self._send(node, requests.describe_group(self._group))
            if requests.has_members(cast("requests.DescribeGroupsAnswer", answer)):
                return True
            try:
                answer = await self._send(node, requests.ConsumerGroupDescribeRequest(self._group))
            except IncompatibleBrokerVersion:
                return False  # a broker without the new protocol has no such groups
            return requests.is_active(cast("requests.ConsumerGroupAnswer", answer))

        return await self._asked(f"the members of group {self._group}", ask)

    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]:
        """Start and high watermark by partition. The start is asked for first, so it is never above the watermark."""

        async def ask() -> Mapping[int, LogRange]:
            starts = await self._listed(partitions, requests.EARLIEST)
            ends = await self._listed(partitions, requests.LATEST)
            return {p: LogRange(start=starts[p], high_watermark=ends[p]) for p in partitions}

        return await self._asked(f"the log's first and last offsets of topic {self._topic}", ask)

    async def identity(self) -> TopicIdentity:
        async def ask() -> TopicIdentity:
            answer = await self._send(self._anyone(), requests.TopicMetadataRequest(self._topic))
            metadata = cast("requests.MetadataAnswer", answer)
            try:
                requests.identity(metadata, self._topic, compacted=False)
            except UnknownTopicOrPartitionError as error:
                message = f"topic {self._topic} does not exist (or may not be described): create it, we never do"
                raise SourceError(message) from error
            return requests.identity(metadata, self._topic, compacted=await self._is_compacted())

        return await self._asked(f"topic {self._topic}", ask)

    async def _is_compacted(self) -> bool:
        try:
            answer = await self._send(self._anyone(), requests.describe_topic(self._topic))
            return requests.is_compacted(cast("DescribeConfigsAnswer", answer))
        except TopicAuthorizationFailedError:
            log.warning(
                "Topic configuration denied",
                topic=self._topic,
                assumed="not compacted",
                todo="grant DescribeConfigs on the topic, or make sure that its cleanup.policy has no compact",
            )
            return False

    async def _listed(self, partitions: Collection[int], at: int) -> dict[int, int]:
        by_leader: dict[int, list[int]] = {}
        for partition in partitions:
            by_leader.setdefault(self._leader(partition), []).append(partition)
        offsets: dict[int, int] = {}
        for leader, led in by_leader.items():
            answer = await self._send(leader, requests.list_offsets(self._topic, led, at))
            offsets |= requests.listed_offsets(cast("requests.ListOffsetsAnswer", answer), self._topic, led)
        return offsets

    async def _coordinator(self) -> int:
        answer = await self._send(self._anyone(), requests.find_coordinator(self._group))
        return requests.coordinator(cast("requests.CoordinatorAnswer", answer))

    def _leader(self, partition: int) -> int:
        node = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        if node is None or node < 0:
            raise LeaderNotAvailableError(f"partition {partition} of topic {self._topic} has no leader")
        return node

    def _anyone(self) -> int:
        node = self._client.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        return node

    async def _send(self, node: int, request: object) -> object:
        return await self._client.send(node, request, group=QUESTIONS)

    async def _asked(self, subject: str, ask: Callable[[], Awaitable[T]]) -> T:
        """The first answer without an error. What may pass is asked again, with fresh metadata, until the deadline."""
        last: KafkaError | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    try:
                        return await ask()
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        last = error
                    await self._client.force_metadata_update()
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as error:
            self._hang_up()
            why = self._trouble() or (f"last answer: {last!r}" if last else "no answer")
            message = f"Kafka did not tell {subject} within {self._timeout_seconds:g} s ({why})"
            raise SourceError(message) from last or error
        except (KafkaError, NotImplementedError) as error:  # the latter: no common version of the request
            raise SourceError(f"Kafka refused to tell {subject}: {error!r}") from error

    def _hang_up(self) -> None:
        """Close our connections: behind an answer that never comes the next question would wait as well."""
        for (_node, group), connection in list(self._client._conns.items()):  # noqa: SLF001 # aiokafka closes all or none
            if group == QUESTIONS:
                connection.close()
