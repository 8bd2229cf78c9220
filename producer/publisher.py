"""Hands records to Kafka and knows when they are acknowledged.

Owns: the aiokafka producer, the wait for broker and topic, acknowledgements. Does not own: what is published
(`selection`), how it is packed (`packer`), the account of what waits (`ledger`), what a tick does meanwhile (`poller`).

Invariants: a parcel's `delivery` is done when Kafka acknowledged each of its records (or the record was set aside as
too large), never before; records of one partition go out in the order they were submitted; no topic is ever created.
All metadata requests of aiokafka allow creation, so none of them may name our topic: left to itself the client asks
for all topics, and `send_batch`, which would name ours, is called only while the topic is known.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.partitioner import murmur2

from producer.ledger import Delivery
from producer.packer import RECORD_BYTES, lanes, pack
from shared import logs
from shared.kafka import unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producer.ledger import Ledger, Parcel, Record
    from producer.metrics import Metrics
    from producer.packer import Batch
    from producer.surroundings import Surroundings
    from shared.lifecycle import Deadline

log = logs.get_logger(__name__)

CONNECT_SECONDS = 15.0
RETRY_SECONDS = 1.0
REQUEST_SECONDS = 30.0
CLOSE_SECONDS = 3.0
UNACKED_AGE_SECONDS = 10.0
REMIND_SECONDS = 60.0
BATCH_BYTES = 512 * 1024  # before compression; below the broker's default limit of 1 MiB even if nothing compresses
METADATA_AGE_SECONDS = 30


class PublishError(Exception):
    """Records are lost to this process: Kafka refused them for good, or the client can send no more."""


class _Cluster(Protocol):
    def partitions_for_topic(self, topic: str) -> set[int] | None: ...


class _Client(Protocol):
    cluster: _Cluster

    def force_metadata_update(self) -> asyncio.Future[bool]: ...


class _Producer(Protocol):
    """The calls of AIOKafkaProducer, which has no types, that are used here."""

    client: _Client

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def create_batch(self) -> Batch: ...
    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[object]: ...


class Publisher:
    """`submit` never waits; `run` does the work and ends only by cancellation or PublishError."""

    def __init__(
        self,
        options: Mapping[str, object],
        topics: Sequence[str],
        *,
        metrics: Metrics,
        ledger: Ledger,
        surroundings: Surroundings,
    ) -> None:
        self._options = options
        self._topics = tuple(topics)
        (self._topic,) = self._topics
        self._metrics = metrics
        self._ledger = ledger
        self._surroundings = surroundings
        self._queue: asyncio.Queue[tuple[Parcel, asyncio.Future[Delivery]]] = asyncio.Queue()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trouble: str | None = f"not connected to {self.brokers} yet"
        self._reminded = float("-inf")
        self._close_seconds = CLOSE_SECONDS
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def brokers(self) -> str:
        """Where Kafka is said to be."""
        return ",".join(cast("list[str]", self._options["bootstrap_servers"]))

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Take the records; never waits. The future is done when each is acknowledged or set aside."""
        delivery: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        if not parcel.records:
            delivery.set_result(Delivery(acknowledged=0))
            return delivery
        self._ledger.take(parcel, self._surroundings.monotonic())
        self._idle.clear()
        self._queue.put_nowait((parcel, delivery))
        return delivery

    def not_ready(self) -> list[str]:
        """Why records are not being acknowledged; empty when they are."""
        reasons = [] if self._trouble is None else [self._trouble]
        age = self._ledger.oldest_seconds(self._surroundings.monotonic())
        if age > UNACKED_AGE_SECONDS:
            reasons.append(
                f"Kafka has not acknowledged: {self._ledger.unacked_records} records wait, the oldest for {age:.0f} s"
            )
        return reasons

    async def drained(self) -> None:
        """Until everything submitted is acknowledged. The caller brings the deadline."""
        await self._idle.wait()

    async def run(self) -> None:
        """Connect, then publish what is submitted, for ever; cancellation closes the client within CLOSE_SECONDS."""
        producer = await self._connect()
        try:
            await self._wait_for_topic(producer)
            feed = asyncio.create_task(self._feed(producer), name="publisher feed")
            try:
                await asyncio.wait({feed, self._failed}, return_when=asyncio.FIRST_COMPLETED)
                (self._failed if self._failed.done() else feed).result()
            finally:
                feed.cancel()
                await asyncio.wait({feed})
        finally:
            self._failed.cancel()  # whatever fails from now on is in the ledger and nobody would read it here
            await _close(producer, self._close_seconds)

    def close_within(self, seconds: float) -> None:
        """Let the closing of the client take no longer than this."""
        self._close_seconds = min(seconds, CLOSE_SECONDS)

    async def partitions(self, deadline: Deadline) -> Mapping[str, int | None]:
        """For `check`: how many partitions each topic has, None when it is not there. Raises PublishError."""
        producer = self._new()
        try:
            async with deadline.timeout():
                await producer.start()
                await producer.client.force_metadata_update()
            cluster = producer.client.cluster
            known = {topic: cluster.partitions_for_topic(topic) for topic in self._topics}
        except (KafkaError, OSError, TimeoutError) as error:
            raise PublishError(unreachable(self._options, error)) from error
        finally:
            await _close(producer)
        return {topic: None if found is None else len(found) for topic, found in known.items()}

    def _new(self) -> _Producer:
        return cast(
            "_Producer",
            AIOKafkaProducer(
                **cast("dict[str, Any]", dict(self._options)),
                client_id="ticklake-producer",
                enable_idempotence=True,
                acks="all",
                compression_type="zstd",
                max_batch_size=BATCH_BYTES,
                request_timeout_ms=int(REQUEST_SECONDS * 1000),
                metadata_max_age_ms=METADATA_AGE_SECONDS * 1000,
            ),
        )

    async def _connect(self) -> _Producer:
        while True:
            producer = self._new()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await producer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                await _close(producer)
                self._say(unreachable(self._options, error))
            except BaseException:
                await _close(producer)
                raise
            else:
                return producer
            await self._surroundings.sleep(RETRY_SECONDS)

    async def _wait_for_topic(self, producer: _Producer, partition: int = 0) -> None:
        """Until the partition is known; at once if it is. A topic is waited for and never created: see the top."""
        while partition not in self._partitions(producer):
            answered = await self._refresh(producer)
            if partition in self._partitions(producer):
                break
            self._say(self._missing(producer, partition) if answered else f"{self.brokers} tells no metadata")
            await self._surroundings.sleep(RETRY_SECONDS)
        if self._trouble is not None:
            self._trouble = None
            log.info("Kafka is ready", brokers=self.brokers, topic=self._topic)

    def _missing(self, producer: _Producer, partition: int) -> str:
        if self._partitions(producer):
            return f"topic {self._topic} has lost its partition {partition}; it is waited for"
        return (
            f"topic {self._topic} does not exist on {self.brokers} or may not be seen; "
            "create it (or grant DESCRIBE), it is waited for"
        )

    async def _refresh(self, producer: _Producer) -> bool:
        """Whether a broker told what topics there are."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return bool(await producer.client.force_metadata_update())
        except TimeoutError:
            return False

    def _partitions(self, producer: _Producer) -> set[int]:
        return producer.client.cluster.partitions_for_topic(self._topic) or set()

    def _say(self, trouble: str) -> None:
        """Keep the reason for /readyz; log it when it is new and once a minute."""
        now = self._surroundings.monotonic()
        if trouble != self._trouble or now - self._reminded >= REMIND_SECONDS:
            log.warning("Kafka is not ready", reason=trouble)
            self._reminded = now
        self._trouble = trouble

    async def _feed(self, producer: _Producer) -> None:
        while True:
            parcel, delivery = await self._queue.get()
            await self._publish(producer, parcel, delivery)

    async def _publish(self, producer: _Producer, parcel: Parcel, delivery: asyncio.Future[Delivery]) -> None:
        """Encode and enqueue all of a parcel: a batch of each partition in turn, so that one request carries many."""
        await self._wait_for_topic(producer)
        waiting = lanes(parcel.records, self._partitions(producer), self._surroundings.pick, murmur2)
        while waiting:
            for partition, lane in list(waiting.items()):
                batch = producer.create_batch()
                packed = pack(batch, lane, parcel, int(self._surroundings.wall() * 1000))
                for record in packed.too_large:
                    self._set_aside(parcel, delivery, record)
                if not lane:
                    del waiting[partition]
                if packed.records:
                    acknowledgement = await self._enqueue(producer, batch, partition)
                    acknowledgement.add_done_callback(partial(self._acknowledged, parcel, delivery, packed.records))
                await asyncio.sleep(0)  # a batch takes milliseconds to encode: let the loop turn

    async def _enqueue(self, producer: _Producer, batch: Batch, partition: int) -> asyncio.Future[object]:
        """Put a batch into the client's queue of the partition, which holds one; with the broker away this waits."""
        while True:
            await self._wait_for_topic(producer, partition)
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    return await producer.send_batch(batch, self._topic, partition=partition)
            except (KafkaTimeoutError, TimeoutError):
                continue  # still full; the batch is not in it, or the future would have been given
            except KafkaError as error:
                raise self._broken(error) from error

    def _acknowledged(
        self, parcel: Parcel, delivery: asyncio.Future[Delivery], records: list[Record], outcome: asyncio.Future[object]
    ) -> None:
        if outcome.cancelled():
            return  # stopping; the ledger keeps the records as not acknowledged
        error = outcome.exception()
        if error is None:
            self._metrics.records_published.inc(len(records))
            self._settle(parcel, delivery, records, acknowledged=True)
        elif not self._failed.done():
            self._failed.set_exception(self._broken(error))

    def _set_aside(self, parcel: Parcel, delivery: asyncio.Future[Delivery], record: Record) -> None:
        log.error(
            "Record set aside",
            reason="too_large",
            key=record.key,
            bytes=len(record.value),
            allowed_bytes=RECORD_BYTES,
            sha256=hashlib.sha256(record.value).hexdigest(),
        )
        self._metrics.records_set_aside.labels("too_large").inc()
        self._settle(parcel, delivery, [record], acknowledged=False)

    def _settle(
        self, parcel: Parcel, delivery: asyncio.Future[Delivery], records: list[Record], *, acknowledged: bool
    ) -> None:
        count = self._ledger.settle(parcel, records, acknowledged=acknowledged)
        if count is not None and not delivery.done():
            delivery.set_result(count)
        if self._ledger.unacked_records == 0:
            self._idle.set()

    def _broken(self, error: BaseException) -> PublishError:
        return PublishError(
            f"topic {self._topic}: Kafka refused records for good ({type(error).__name__}: {error}); "
            f"{self._ledger.unacked_records} records not acknowledged"
        )


async def _close(producer: _Producer, seconds: float = CLOSE_SECONDS) -> None:
    """Close the client. With the brokers away this may hang for ever: then it is left to the end of the process."""
    try:
        async with asyncio.timeout(seconds):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        log.warning("Kafka client not closed properly", reason=f"{type(error).__name__}: {error}")
