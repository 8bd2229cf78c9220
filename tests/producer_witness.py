"""A producer that is watched from outside: what its log, its pages and its topic say together.

Owns: reading its metrics, watching its health over a time, the judgement of a whole run. Does not own: the process
(`processes`), the API and the account (`numbered_api`), what is done to the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.numbered_api import account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.numbered_api import Account, NumberedApi
    from tests.processes import ServiceProcess
    from tests.servers import Kafka

PERIOD_SECONDS = 0.2
WATCH_SECONDS = 0.5
SINCE = re.compile(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def environ(bootstrap_servers: str, topic: str, url: str, **settings: str) -> dict[str, str]:
    """Everything of every poll, five times a second, unless told otherwise."""
    return {
        "API_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "POLL_INTERVAL_SECONDS": str(PERIOD_SECONDS),
        "SELECT": "all",
        **settings,
    }


def said(producer: ServiceProcess) -> list[int]:
    """How many records each of its `Message sent` lines speaks of."""
    return [int(str(line["records"])) for line in producer.lines("Message sent")]


def left(producer: ServiceProcess) -> int:
    """How many records it said, at its end, were not acknowledged."""
    return sum(int(str(line["records"])) for line in producer.lines("Stopped, records not acknowledged"))


def total(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels, and perhaps others; 0 when there are none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def metrics(producer: ServiceProcess) -> str:
    status, page = await producer.get("/metrics")
    assert status == 200
    return page


async def judged(kafka: Kafka, topic: str, api: NumberedApi, producer: ServiceProcess, *, resent: float = 0) -> Account:
    """The account of its run, which has ended: nothing lost, nothing that no API gave, no more doubles than `resent`.

    What the API gave is in the topic or in the number that was left, but for a fetch that the end cut off; an exit code
    of 0 means moreover that every record of the topic was said to be sent.
    """
    records = await kafka.read(topic)
    values = [record.value or b"" for partition in records.values() for record in partition]
    found = account(api, said(producer), values)
    assert "Traceback" not in producer.output()
    assert found.lost == ()
    assert found.strange == ()
    assert found.said_again == ()
    assert len(found.doubled) <= resent, found.doubled[:10]
    if producer.process.returncode in {0, 1}:
        assert (left(producer) > 0) == (producer.process.returncode == 1)
        nowhere = [each for each in found.missing if each.poll not in found.cut_off]
        assert len(nowhere) <= left(producer) <= sum(api.served) - found.said
    if producer.process.returncode == 0:
        assert found.in_topic - found.said <= resent
    return found


@dataclass(slots=True, kw_only=True)
class Watch:
    """What was seen of a producer twice a second."""

    alive: list[bool] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # of each time that it was not ready
    unacked_bytes: list[float] = field(default_factory=list)


@contextlib.asynccontextmanager
async def watched(producer: ServiceProcess) -> AsyncIterator[Watch]:
    """See its three pages again and again while the block runs."""
    watch = Watch()

    async def look() -> None:
        while True:
            watch.alive.append((await producer.get("/healthz"))[0] == 200)
            status, reasons = await producer.get("/readyz")
            if status != 200:
                watch.reasons.append(reasons)
            watch.unacked_bytes.append(total(await metrics(producer), "ticklake_producer_unacked_bytes"))
            await asyncio.sleep(WATCH_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look(), name="watch")
        yield watch
        looking.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """The ticks of a producer up to a moment: they ran or were skipped."""

    at: float
    ran: float
    skipped: float
    skipped_unacked: float

    @property
    def due(self) -> float:
        return self.ran + self.skipped


async def ticks(producer: ServiceProcess) -> Ticks:
    page = await metrics(producer)
    return Ticks(
        at=time.monotonic(),
        ran=total(page, "ticklake_producer_ticks_total"),
        skipped=total(page, "ticklake_producer_ticks_skipped_total"),
        skipped_unacked=total(page, "ticklake_producer_ticks_skipped_total", reason="unacked"),
    )
