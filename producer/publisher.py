"""Hands records to Kafka and knows when they are acknowledged.

Owns: one feed a topic, so that what ails one topic holds up its own records only. Does not own: how records get into a
topic (`feed`), what is published (`selection`), the account of what waits (`ledger`), what a tick does meanwhile
(`poller`).

Invariants: a parcel's delivery is done when Kafka acknowledged each of its records (or the record was set aside: the
topic can never take it), never before; records of one partition go out in the order they were submitted; no topic is
ever created. Each feed has a client of its own: a client that one topic has poisoned would double the records of all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiokafka.partitioner import murmur2

from producer.courier import Courier, StartErrors
from producer.feed import CLOSE_SECONDS, Feed
from producer.ledger import Delivery
from producer.packer import RememberedHashes
from shared.kafka import unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producer.ledger import Ledger, Parcel
    from producer.metrics import Metrics
    from producer.redactor import Redactor
    from producer.surroundings import Surroundings
    from shared.lifecycle import Deadline

__all__ = ["CLOSE_SECONDS", "PublishError", "Publisher"]


class PublishError(Exception):
    """Kafka could not be asked."""


class Publisher:
    """`submit` never waits; `run` does the work and ends only by cancellation."""

    def __init__(
        self,
        options: Mapping[str, object],
        topics: Sequence[str],
        *,
        metrics: Metrics,
        ledger: Ledger,
        redactor: Redactor,
        surroundings: Surroundings,
    ) -> None:
        self._options = options
        self._ledger = ledger
        self._surroundings = surroundings
        self._idle = asyncio.Event()
        self._idle.set()
        hashes = RememberedHashes(murmur2)
        self._feeds = {
            topic: Feed(
                topic,
                options,
                brokers=self.brokers,
                metrics=metrics,
                ledger=ledger,
                redactor=redactor,
                surroundings=surroundings,
                murmur2=hashes,
                settled=self._settled,
            )
            for topic in topics
        }

    @property
    def brokers(self) -> str:
        """Where Kafka is said to be."""
        return ",".join(cast("list[str]", self._options["bootstrap_servers"]))

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Take the records; never waits. The future is done when each is acknowledged or set aside."""
        if not parcel.records:
            delivery: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
            delivery.set_result(Delivery(acknowledged=0))
            return delivery
        self._ledger.take(parcel, self._surroundings.monotonic())
        self._idle.clear()
        return self._feeds[parcel.topic].submit(parcel)

    def not_ready(self) -> list[str]:
        """Why records are not being acknowledged, with the topic and since when; empty when they are."""
        return [reason for feed in self._feeds.values() for reason in feed.not_ready()]

    async def drained(self) -> None:
        """Until everything submitted is acknowledged or set aside. The caller brings the deadline."""
        await self._idle.wait()

    async def run(self) -> None:
        """Publish what is submitted, for ever; cancellation closes the clients within CLOSE_SECONDS."""
        async with asyncio.TaskGroup() as tasks:
            for topic, feed in self._feeds.items():
                tasks.create_task(feed.run(), name=f"publisher {topic}")

    def close_within(self, seconds: float) -> None:
        """Let the closing of the clients take no longer than this."""
        for feed in self._feeds.values():
            feed.close_within(seconds)

    async def partitions(self, deadline: Deadline) -> Mapping[str, int | None]:
        """For `check`: how many partitions each topic has, None when it is not there. Raises PublishError."""
        courier = Courier(self._options)
        try:
            async with deadline.timeout():
                await courier.start()
                await courier.refresh()
            return {topic: len(courier.partitions(topic)) or None for topic in self._feeds}
        except StartErrors as error:
            raise PublishError(unreachable(self._options, error)) from error
        finally:
            await courier.abandon(CLOSE_SECONDS)

    def _settled(self) -> None:
        if self._ledger.unacked_records == 0:
            self._idle.set()
