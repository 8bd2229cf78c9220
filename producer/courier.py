"""One aiokafka producer for one topic, from the first connection to its end.

Owns: all that is known of aiokafka's producer and client, the deadline of every call, an end after which nothing more
is delivered. Does not own: what is sent and what follows from an answer (`feed`), the batch (`record_batch`).

Invariants: no topic is ever created: aiokafka's metadata requests would allow it, ours do not, and while the topic is
unknown nothing that would name it is called. After `abandon` no byte leaves: `stop` of aiokafka would flush, which
hangs with the brokers away and delivers behind the back of whoever sends the same records again.

Reaching into aiokafka is held by the pin `aiokafka==0.14.0` and by tests/integration/test_publisher.py.
"""

# ruff: noqa: SLF001 # see above

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from math import inf
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)
from aiokafka.structs import TopicPartition

from shared.kafka_metadata import metadata_update
from shared.rebinding import rebound
from shared.topic_configs import describe_topic, topic_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from producer.record_batch import RecordBatch
    from shared.topic_configs import DescribeConfigsAnswer

CONNECT_SECONDS: Final = 15.0
REQUEST_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 10.0
METADATA_AGE_SECONDS: Final = 30.0
# aiokafka asks again at once while a partition that it has a batch for is leaderless.
METADATA_PACE_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 0.25
_DISCARD = struct.pack("ii", 1, 0)  # SO_LINGER: what the peer has not got is thrown away at close

StartErrors = (KafkaError, OSError, TimeoutError)


class NotTold(Exception):  # noqa: N818 -- an answer, not a fault
    """The broker does not tell what a topic is set to, and will not: why."""


class Courier:
    """Made, started once, abandoned."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._producer: Any = AIOKafkaProducer(
            **cast("dict[str, Any]", dict(options)),
            client_id="ticklake-producer",
            enable_idempotence=True,
            acks="all",
            compression_type="zstd",
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
            metadata_max_age_ms=int(METADATA_AGE_SECONDS * 1000),
            retry_backoff_ms=int(_RETRY_SECONDS * 1000),
        )
        self._client: Any = self._producer.client
        self._sender: Any = self._producer._sender
        self._connections: WeakSet[Any] = WeakSet()
        self._requests: set[asyncio.Task[object]] = set()
        self._vital: set[asyncio.Task[object]] = set()
        self._next_metadata = -inf
        self._bend()

    async def start(self) -> None:
        """Connect and get a producer id, within CONNECT_SECONDS. Raises one of `StartErrors`."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._producer.start()

    def partitions(self, topic: str) -> frozenset[int]:
        """Those the topic has, as far as is known here; none = there is no such topic."""
        return frozenset(self._client.cluster.partitions_for_topic(topic) or ())

    def has_leader(self, topic: str, partition: int) -> bool:
        """Whether a broker is known that takes records for it."""
        leader = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return leader is not None and leader >= 0

    async def refresh(self) -> bool:
        """Ask what topics and leaders there are; whether a broker told."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return bool(await self._client.force_metadata_update())
        except TimeoutError:
            return False

    async def topic_settings(self, topic: str, names: Sequence[str]) -> Mapping[str, str]:
        """What the topic is set to. NotTold when it will not be told; KafkaError or TimeoutError when it may be."""
        node = self._client.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.send(node, describe_topic(topic, names))
        except (IncompatibleBrokerVersion, NotImplementedError) as error:
            raise NotTold("the broker knows no such request") from error
        try:
            return topic_settings(cast("DescribeConfigsAnswer", answer))
        except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise NotTold("it is denied: grant DescribeConfigs on the topic") from error
        except UnsupportedVersionError as error:
            raise NotTold("the broker knows no such request") from error

    async def hand_over(self, batch: RecordBatch, topic: str, partition: int) -> asyncio.Future[object] | None:
        """Queue a built batch behind the others of its partition; the future is done when the broker has answered.

        None = the topic or the partition is not known (any more), the batch is not queued. The client keeps one batch
        of a partition in its queue: until there is room this waits. Raises what the client died of.
        """
        while partition in self.partitions(topic):
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    return cast(
                        "asyncio.Future[object]", await self._producer.send_batch(batch, topic, partition=partition)
                    )
            except (KafkaTimeoutError, TimeoutError):
                continue  # still full; the batch is not in it, or the future would have been given
        return None

    def vital_tasks(self) -> Collection[asyncio.Task[object]]:
        """The background tasks it lives on. When one has ended, nothing will be answered any more."""
        self._vital.update(task for task in (self._sender.sender_task, self._client._sync_task) if task is not None)
        return self._vital

    async def abandon(self, seconds: float) -> bool:
        """End everything at once; whether all of it ended within `seconds`. Nothing is delivered from now on."""
        self._producer._closed = True
        tasks = {task for task in (*self.vital_tasks(), *self._requests) if not task.done()}
        for task in tasks:
            task.cancel()
        for connection in self._open_connections():
            _discard(connection)
        try:
            async with asyncio.timeout(seconds):
                if tasks:
                    await asyncio.wait(tasks)
                self._client._sync_task = None  # or `close` raises what that task has died of
                await self._client.close()
        except (KafkaError, OSError, TimeoutError):
            return False  # what could deliver is cancelled, its sockets are closed; only the confirmation is missing
        finally:
            self._retrieve()
        return True

    def _bend(self) -> None:
        client, sender = self._client, self._sender
        client._metadata_update = partial(self._paced_metadata, MethodType(metadata_update, client))
        client.bootstrap = MethodType(rebound(AIOKafkaClient.bootstrap, create_conn=self._recorded_connection), client)
        sender._send_produce_req = partial(self._recorded_request, sender._send_produce_req)
        # With idempotence a batch must not expire: the sequence would have a hole, and the client be good for nothing.
        self._producer._message_accumulator._batch_ttl = inf
        # A sender that dies wants to tell a transaction, which an idempotent producer has not.
        untold: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        untold.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._producer._txn_manager._transaction_waiter = untold

    async def _paced_metadata(self, update: Any, *arguments: object) -> bool:  # noqa: ANN401 -- aiokafka has no types
        now = asyncio.get_running_loop().time()
        wait_seconds = max(0.0, self._next_metadata - now)
        self._next_metadata = now + wait_seconds + METADATA_PACE_SECONDS
        if wait_seconds:
            await asyncio.sleep(wait_seconds)
        return bool(await update(*arguments))

    async def _recorded_connection(self, *arguments: object, **options: object) -> object:
        """For the first connections, which aiokafka forgets when its start is interrupted."""
        connection = await create_conn(*arguments, **options)
        self._connections.add(connection)
        return connection

    async def _recorded_request(self, send: Any, *arguments: object) -> None:  # noqa: ANN401
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._requests.add(task)
        try:
            await send(*arguments)
        finally:
            self._requests.discard(task)

    def _open_connections(self) -> Iterator[Any]:
        yield from list(self._client._conns.values())
        yield from list(self._connections)

    def _retrieve(self) -> None:
        """Look at the errors nobody will fetch, or asyncio prints each of them much later. The first was told."""
        futures: list[asyncio.Future[object]] = list(self._vital)
        accumulator = self._producer._message_accumulator
        queued = [batch for batches in accumulator._batches.values() for batch in batches]
        for batch in (*queued, *accumulator._pending_batches):
            futures += (batch.future, batch._drain_waiter)
        for future in futures:
            if future.done() and not future.cancelled():
                future.exception()


def _discard(connection: Any) -> None:  # noqa: ANN401 -- aiokafka has no types
    """Close it and throw away what has been written and not sent."""
    writer = connection._writer
    if writer is not None:
        raw = writer.transport.get_extra_info("socket")
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
        except (OSError, AttributeError):
            pass  # closed already, or no socket of TCP
        writer.transport.abort()
    connection.close()
