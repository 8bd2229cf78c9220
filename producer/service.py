"""The composition root: settings in, parts built, run, stopped in order within one budget.

Owns: which parts there are, the tasks, the order of stopping, the exit codes of `serve` and `once`. Does not own: what
any part does.

Order of stopping: no new tick and the running fetch cancelled; what was selected is acknowledged; the Kafka client, the
HTTP client and the side-port close.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.fetcher import Fetcher, FetchError, open_client, proxy_secrets
from producer.ledger import Ledger
from producer.metrics import Metrics
from producer.pacing import RateLimit
from producer.poller import Poller
from producer.probe import ProducerProbe
from producer.publisher import CLOSE_SECONDS, Publisher
from producer.redactor import Redactor
from shared import logs
from shared.health import SidePort
from shared.kafka import connection_options
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, Deadline, StopSignals
from shared.settings import effective

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from producer.settings import Settings
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

ONCE_ACKNOWLEDGED_SECONDS = 60.0
SIDE_PORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything of a producer process, wired. `fetchers` and `pollers` are one an endpoint, in the settings' order."""

    ledger: Ledger
    metrics: Metrics
    client: httpx.AsyncClient
    fetchers: Sequence[Fetcher]
    pollers: Sequence[Poller]
    publisher: Publisher


def assemble(settings: Settings, surroundings: Surroundings) -> Parts:
    """Build the parts; nothing is asked yet. Raises SettingsError when a certificate or proxy cannot be used."""
    plans = settings.endpoints
    redactor = Redactor((*settings.secrets, *proxy_secrets()))
    ledger = Ledger()
    metrics = Metrics(unacked_bytes=lambda: ledger.unacked_bytes)
    options = connection_options(settings)
    publisher = Publisher(
        options, settings.topics, metrics=metrics, ledger=ledger, redactor=redactor, surroundings=surroundings
    )
    client = open_client(len(plans))
    fetchers = [
        Fetcher(
            client,
            limit=None if plan.rate_limit_per_minute is None else RateLimit(plan.rate_limit_per_minute),
            redactor=redactor,
            surroundings=surroundings,
            plan=plan,
        )
        for plan in plans
    ]
    pollers = [
        Poller(
            plan,
            fetcher,
            publisher,
            ledger=ledger,
            # Each topic has its share, so that one that is missing does not hold up the endpoints of others.
            max_unacked_bytes=settings.publish_max_unacked_bytes // len(settings.topics),
            metrics=metrics.endpoint(plan.name),
            redactor=redactor,
            surroundings=surroundings,
            named=settings.api_endpoints is not None,
        )
        for plan, fetcher in zip(plans, fetchers, strict=True)
    ]
    return Parts(ledger=ledger, metrics=metrics, client=client, fetchers=fetchers, pollers=pollers, publisher=publisher)


async def serve(settings: Settings, surroundings: Surroundings) -> int:
    """Poll and publish until a signal; 0 = every selected record was acknowledged, 1 = not."""
    with StopSignals() as stop:
        log.info("Starting", settings=effective(settings))
        parts = assemble(settings, surroundings)
        probe = ProducerProbe(parts.pollers, parts.publisher, parts.ledger, settings.topics)
        side_port = SidePort(settings.http_host, settings.http_port, "producer", probe, parts.metrics.registry)
        async with parts.client:
            await side_port.start()
            try:
                async with asyncio.TaskGroup() as tasks:
                    publishing = tasks.create_task(parts.publisher.run(), name="publisher")
                    polling = [
                        tasks.create_task(poller.run(), name=f"poller {poller.plan.name}") for poller in parts.pollers
                    ]
                    await stop.event.wait()
                    log.info("Stopping", signal=stop.received, unacknowledged=parts.ledger.unacked_records)
                    for task in polling:
                        task.cancel()
                    await _drain(parts, settings.shutdown_timeout_seconds)
                    publishing.cancel()
            finally:
                await side_port.stop(_side_port_seconds(settings.shutdown_timeout_seconds))
        return _last_words(parts.ledger)


async def once(settings: Settings, surroundings: Surroundings) -> int:
    """One tick of each endpoint; 0 = all of it was acknowledged, nothing selected included."""
    with StopSignals() as stop:
        parts = assemble(settings, surroundings)
        async with parts.client, asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(parts.publisher.run(), name="publisher")
            ticking = tasks.create_task(_ticks(parts), name="ticks")
            stopping = tasks.create_task(stop.event.wait(), name="stop")
            await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            succeeded = ticking.done() and ticking.result()
            for task in (ticking, stopping, publishing):
                task.cancel()
        return max(_last_words(parts.ledger), EXIT_STOPPED if succeeded else EXIT_CRASHED)


async def _ticks(parts: Parts) -> bool:
    return all(await asyncio.gather(*(_tick(parts, poller) for poller in parts.pollers)))


async def _tick(parts: Parts, poller: Poller) -> bool:
    name = poller.plan.name
    try:
        delivery = await poller.tick()
    except FetchError as error:
        log.error("Poll failed", endpoint=name, outcome=error.outcome, reason=error.reason)  # noqa: TRY400 -- a fault, not a bug
        return False
    try:
        async with asyncio.timeout(ONCE_ACKNOWLEDGED_SECONDS):
            delivered = await delivery
    except TimeoutError:
        reasons = parts.publisher.not_ready() or [f"no acknowledgement within {ONCE_ACKNOWLEDGED_SECONDS:.0f} s"]
        reason = "; ".join(reasons)
        log.error("Not acknowledged", endpoint=name, records=parts.ledger.unacked_records, reason=reason)  # noqa: TRY400 -- as above
        return False
    if delivered.set_aside:  # why, has been said of each
        log.error("Not acknowledged", endpoint=name, records=len(delivered.set_aside), reason="set aside")
        return False
    log.info("Polled", endpoint=name, records=poller.last_records)
    return True


async def _drain(parts: Parts, budget_seconds: float) -> None:
    """Wait for the acknowledgements, and leave enough of the budget to close what is open."""
    close_seconds = min(CLOSE_SECONDS, budget_seconds / 4)
    deadline = Deadline.after(budget_seconds - close_seconds - _side_port_seconds(budget_seconds))
    parts.publisher.close_within(close_seconds)
    try:
        async with deadline.timeout():
            await parts.publisher.drained()
    except TimeoutError:
        pass  # the ledger knows what is left; `_last_words` says it


def _side_port_seconds(budget_seconds: float) -> float:
    return min(SIDE_PORT_SECONDS, budget_seconds / 4)


def _last_words(ledger: Ledger) -> int:
    if ledger.unacked_records:
        log.error("Stopped, records not acknowledged", records=ledger.unacked_records)
        return EXIT_CRASHED
    log.info("Stopped")
    return EXIT_STOPPED
