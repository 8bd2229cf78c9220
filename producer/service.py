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

from producer.fetcher import Fetcher, FetchError
from producer.ledger import Ledger
from producer.metrics import Metrics
from producer.poller import Plan, Poller
from producer.probe import ProducerProbe
from producer.publisher import CLOSE_SECONDS, Publisher, PublishError
from producer.redactor import Redactor
from shared import logs
from shared.health import SidePort
from shared.kafka import connection_options
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, Deadline, StopSignals
from shared.settings import effective

if TYPE_CHECKING:
    from producer.settings import Settings
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

ONCE_ACKNOWLEDGED_SECONDS = 60.0
SIDE_PORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything of a producer process, wired."""

    plan: Plan
    ledger: Ledger
    metrics: Metrics
    fetcher: Fetcher
    publisher: Publisher
    poller: Poller


def assemble(settings: Settings, surroundings: Surroundings) -> Parts:
    """Build the parts; nothing is opened yet. Raises SettingsError when a certificate or proxy cannot be used."""
    endpoint = settings.endpoint
    redactor = Redactor(settings.secrets)
    plan = Plan(
        source=endpoint.source,
        topic=settings.kafka_topic,
        records_pointer=settings.records_pointer,
        key_pointer=settings.key_pointer,
        select=settings.select_mode,
        max_records=settings.api_max_records,
        max_unacked_bytes=settings.publish_max_unacked_bytes,
        period_seconds=settings.poll_interval_seconds,
        timeout_seconds=settings.api_timeout_seconds,
    )
    ledger = Ledger()
    metrics = Metrics(unacked_bytes=lambda: ledger.unacked_bytes)
    fetcher = Fetcher(
        endpoint,
        redactor=redactor,
        surroundings=surroundings,
        timeout_seconds=settings.api_timeout_seconds,
        max_body_bytes=settings.api_max_body_bytes,
    )
    publisher = Publisher(
        connection_options(settings), [settings.kafka_topic], metrics=metrics, ledger=ledger, surroundings=surroundings
    )
    poller = Poller(
        plan, fetcher, publisher, ledger=ledger, metrics=metrics, redactor=redactor, surroundings=surroundings
    )
    return Parts(plan=plan, ledger=ledger, metrics=metrics, fetcher=fetcher, publisher=publisher, poller=poller)


async def serve(settings: Settings, surroundings: Surroundings) -> int:
    """Poll and publish until a signal; 0 = every selected record was acknowledged, 1 = not."""
    with StopSignals() as stop:
        log.info("Starting", settings=effective(settings))
        parts = assemble(settings, surroundings)
        probe = ProducerProbe(parts.plan, parts.poller, parts.publisher, parts.ledger, settings.kafka_topic)
        side_port = SidePort(settings.http_host, settings.http_port, "producer", probe, parts.metrics.registry)
        async with parts.fetcher:
            await side_port.start()
            try:
                async with asyncio.TaskGroup() as tasks:
                    publishing = tasks.create_task(parts.publisher.run(), name="publisher")
                    polling = tasks.create_task(parts.poller.run(), name="poller")
                    await stop.event.wait()
                    log.info("Stopping", signal=stop.received, unacknowledged=parts.ledger.unacked_records)
                    polling.cancel()
                    await _drain(parts, settings.shutdown_timeout_seconds)
                    publishing.cancel()
            except* PublishError as errors:
                _report(errors)
            finally:
                await side_port.stop()
        return _last_words(parts.ledger)


async def once(settings: Settings, surroundings: Surroundings) -> int:
    """One tick; 0 = all of it was acknowledged, nothing selected included."""
    succeeded = False
    with StopSignals() as stop:
        parts = assemble(settings, surroundings)
        async with parts.fetcher:
            try:
                async with asyncio.TaskGroup() as tasks:
                    publishing = tasks.create_task(parts.publisher.run(), name="publisher")
                    tick = tasks.create_task(_tick(parts), name="tick")
                    stopping = tasks.create_task(stop.event.wait(), name="stop")
                    await asyncio.wait({tick, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    succeeded = tick.done() and tick.result()
                    for task in (tick, stopping, publishing):
                        task.cancel()
            except* PublishError as errors:
                _report(errors)
        return max(_last_words(parts.ledger), EXIT_STOPPED if succeeded else EXIT_CRASHED)


async def _tick(parts: Parts) -> bool:
    try:
        delivery = await parts.poller.tick()
    except FetchError as error:
        log.error("Poll failed", outcome=error.outcome, reason=error.reason)  # noqa: TRY400 -- a fault, not a bug
        return False
    try:
        async with asyncio.timeout(ONCE_ACKNOWLEDGED_SECONDS):
            await delivery
    except TimeoutError:
        reasons = parts.publisher.not_ready() or [f"no acknowledgement within {ONCE_ACKNOWLEDGED_SECONDS:.0f} s"]
        reason = "; ".join(reasons)
        log.error("Not acknowledged", records=parts.ledger.unacked_records, reason=reason)  # noqa: TRY400 -- as above
        return False
    log.info("Polled", records=parts.poller.last_records)
    return True


async def _drain(parts: Parts, budget_seconds: float) -> None:
    """Wait for the acknowledgements, and leave enough of the budget to close what is open."""
    close_seconds = min(CLOSE_SECONDS, budget_seconds / 4)
    deadline = Deadline.after(budget_seconds - close_seconds - min(SIDE_PORT_SECONDS, budget_seconds / 4))
    parts.publisher.close_within(close_seconds)
    try:
        async with deadline.timeout():
            await parts.publisher.drained()
    except TimeoutError:
        pass  # the ledger knows what is left; `_last_words` says it


def _report(errors: BaseExceptionGroup[PublishError]) -> None:
    for error in errors.exceptions:
        log.error("Publishing failed", reason=str(error))


def _last_words(ledger: Ledger) -> int:
    if ledger.unacked_records:
        log.error("Stopped, records not acknowledged", records=ledger.unacked_records)
        return EXIT_CRASHED
    log.info("Stopped")
    return EXIT_STOPPED
