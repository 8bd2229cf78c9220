"""The consumer process: parts built from the settings, run, and stopped in order within one budget.

Owns: the composition and the order of start and stop. Does not own: any part's work.

Start: side-port, Kafka client, S3 client, the agreement on the layout, then the group. Services may come up in any
order: whatever is away is waited for, readiness red. Stop: no more polls, put and commit what is open, leave the group,
close.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import CollectorRegistry

from consumer.batch import Limits
from consumer.chain import Rules
from consumer.codecs import GZIP_LIBRARY, codec
from consumer.connections import new_source, new_store
from consumer.layout import Agreed, Agreement, Terms
from consumer.report import Report
from consumer.retrying import until_answered
from consumer.status import ConsumerProbe
from consumer.vitals import GIVE_UP_SECONDS, GaveUpError, WatchedStore
from consumer.worker import Budget, Worker
from shared import logs
from shared.health import LoopMonitor, SidePort
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, StopSignals
from shared.settings import effective

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from consumer.settings import Settings
    from consumer.source import KafkaSource

GIVE_BACK_SHARE: Final = 0.55  # of SHUTDOWN_TIMEOUT_SECONDS: puts; then commit, leave, close
GRACE_SECONDS: Final = 0.5  # before the budget ends, for the last words
PROCESS_BYTES: Final = 200 * 1024 * 1024  # what the process needs beside MEMORY_LIMIT_BYTES

T = TypeVar("T")
log = logs.get_logger(__name__)


class Service:
    """One run of the consumer."""

    def __init__(self, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._clock = loop.time
        self._writer = uuid.uuid4().hex
        self._report = Report(CollectorRegistry(), each_record=settings.batch_max_records == 1)
        self._probe = ConsumerProbe(facts=self._facts(), clock=self._clock)

    async def run(self) -> int:
        """The exit code: 0 = stopped as asked, 1 = gave up or crashed. SettingsError for what cannot be used."""
        settings = self._settings
        log.info("Starting", writer=self._writer, gzip=GZIP_LIBRARY, settings=effective(settings))
        for warning in settings.warnings:
            log.warning("Odd setting", reason=warning)
        _warn_of_small_container(settings.memory_limit_bytes)
        async with AsyncExitStack() as closing:
            signals = closing.enter_context(StopSignals())
            side_port = SidePort(settings.http_host, settings.http_port, "consumer", self._probe, self._report.registry)
            await side_port.start()
            closing.push_async_callback(side_port.stop)
            pulse = asyncio.create_task(self._pulse(), name="pulse")
            closing.callback(pulse.cancel)
            watchdog = asyncio.create_task(self._watchdog(signals.event), name="watchdog")
            closing.callback(watchdog.cancel)
            try:
                return await self._consume(signals, closing)
            except* GaveUpError as group:
                reason = "; ".join(str(error) for error in group.exceptions)
                log.error("Gave up", reason=reason)  # noqa: TRY400 -- no fault of the code: a trace would say nothing
            return EXIT_CRASHED

    async def _consume(self, signals: StopSignals, closing: AsyncExitStack) -> int:
        settings = self._settings
        store = WatchedStore(
            await closing.enter_async_context(new_store(settings)),
            clock=self._clock,
            give_up_seconds=GIVE_UP_SECONDS * random.uniform(1.0, 1.2),
        )
        self._probe.store = store
        source = new_source(settings)
        closing.push_async_callback(source.leave)
        agreed = await unless(signals.event, self._agree(source, store))
        if agreed is None:
            return self._stopped(signals)
        # What was made up to now stays: a full collection that looked through it would hold the loop for 60 ms.
        gc.freeze()
        worker = self._worker(source, store, agreed)
        self._probe.starting, self._probe.worker = None, worker
        await worker.run(
            signals.event,
            join=lambda: source.join(worker),
            give_back_seconds=GIVE_BACK_SHARE * settings.shutdown_timeout_seconds,
        )
        return self._stopped(signals)

    async def _agree(self, source: KafkaSource, store: WatchedStore) -> Agreed:
        await until_answered(source.connect, on_failure=lambda error: self._waiting("Kafka", error))
        settings = self._settings
        terms = Terms(
            keys=settings.keys,
            group=settings.kafka_group_id,
            record_format=settings.record_format,
            compression=settings.compression,
            start_from=settings.kafka_start_from,
            new_chain_id=uuid.uuid4().hex,
        )
        agreed = await Agreement(kafka=source, store=store, terms=terms, on_wait=self._waiting).reach()
        log.info("Layout agreed", chain_id=agreed.layout.chain_id, key=terms.keys.layout_key)
        return agreed

    def _worker(self, source: KafkaSource, store: WatchedStore, agreed: Agreed) -> Worker:
        settings = self._settings
        rules = Rules(
            layout=agreed.layout,
            keys=settings.keys,
            limits=Limits(
                records=settings.batch_max_records,
                bytes=settings.batch_max_bytes,
                seconds=settings.batch_max_seconds,
                bucket=settings.keys.bucket,
            ),
            writer=self._writer,
            skip_loss=settings.kafka_on_data_loss == "skip",
            loss_wait_seconds=settings.kafka_session_timeout_seconds
            + settings.kafka_rebalance_timeout_seconds
            + settings.upload_timeout_seconds,
            compare_timestamps=not agreed.identity.compacted,
        )
        return Worker(
            source=source,
            store=store,
            rules=rules,
            budget=Budget(
                memory_bytes=settings.memory_limit_bytes,
                upload_concurrency=settings.upload_concurrency,
                rebalance_timeout_seconds=settings.kafka_rebalance_timeout_seconds,
            ),
            report=self._report,
            record_format=settings.record_format,
            codec=codec(settings.compression, settings.compression_level),
        )

    def _waiting(self, what: str, error: Exception) -> None:
        self._probe.starting = f"starting: waiting for {what}: {error}"
        self._report.waiting_for(what, error)

    def _stopped(self, signals: StopSignals) -> int:
        log.info("Stopped", signal=signals.received)
        return EXIT_STOPPED

    def _facts(self) -> dict[str, str]:
        settings = self._settings
        return {
            "Topic": f"{settings.kafka_topic} at {settings.kafka_bootstrap_servers}",
            "Group": settings.kafka_group_id,
            "Bucket": f"{settings.s3_bucket}/{settings.keys.prefix}",
            "Writer": self._writer,
        }

    async def _pulse(self) -> None:
        monitor = LoopMonitor(self._report.loop_block_seconds.observe)
        async with asyncio.TaskGroup() as group:
            group.create_task(monitor.run(), name="loop monitor")
            while True:
                self._probe.turned()
                await asyncio.sleep(1.0)

    async def _watchdog(self, stop: asyncio.Event) -> None:
        """The budget holds whatever hangs: nothing is lost by an abrupt end, what is open is in Kafka."""
        await stop.wait()
        self._probe.stopping = True
        seconds = self._settings.shutdown_timeout_seconds
        await asyncio.sleep(max(seconds - GRACE_SECONDS, seconds / 2))
        log.error("Not stopped in time", seconds=seconds, hint="nothing is lost: what was open is in Kafka")
        os._exit(EXIT_CRASHED)


async def unless(stop: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`, or None when `stop` is set first; then `work` is cancelled."""
    working = asyncio.create_task(work, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _warn_of_small_container(memory_limit_bytes: int) -> None:
    limit = container_limit_bytes()
    if limit is not None and memory_limit_bytes + PROCESS_BYTES > limit:
        log.warning(
            "Container is small",
            container_bytes=limit,
            memory_limit_bytes=memory_limit_bytes,
            hint=f"MEMORY_LIMIT_BYTES + {PROCESS_BYTES} should be below the container's limit, or the kernel kills us",
        )


def container_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory limit of our control group (v2, else v1); None = none, or not to be read."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # v1 says "none" with a huge number, v2 with "max"
            return int(text)
    return None
