"""The loop of one endpoint: at each tick of the grid fetch, take apart, select, hand over.

Owns: the ticks of one API, what they came to, the log lines of a poll. Does not own: when a tick is due (`pacing`), the
request (`fetcher`), the way into Kafka (`publisher`).

Invariants: one tick at a time, so no overlap; a tick never waits for Kafka, it is skipped before fetching while too
much waits; a tick that fails costs nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from producer import pacing
from producer.fetcher import Fetched, FetchError
from producer.ledger import Parcel, Record
from producer.parser import BodyError, Parsed, SetAside, parse, record_key
from producer.selection import Select, select
from producer.surroundings import rfc3339
from shared import logs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from producer.ledger import Delivery, Ledger
    from producer.metrics import Metrics
    from producer.pointer import Pointer
    from producer.redactor import Redactor
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

ALIVE_SLACK_SECONDS = 30.0
_SAMPLES = 3


class Source(Protocol):
    """Where bodies come from."""

    async def fetch(self, budget_seconds: float) -> Fetched:
        """A body, or FetchError."""
        ...

    def unusable(self, error: BodyError) -> FetchError:
        """The fault of a body as the tick's."""
        ...


class Outlet(Protocol):
    """Where records go."""

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Take them; done when each is acknowledged or set aside."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one endpoint's loop does, from its settings. `source` is what its events name as theirs."""

    source: str
    topic: str
    records_pointer: Pointer
    key_pointer: Pointer | None
    select: Select
    max_records: int
    max_unacked_bytes: int
    period_seconds: float
    timeout_seconds: float

    @property
    def budget_seconds(self) -> float:
        """How long one tick may take."""
        return pacing.tick_budget(self.period_seconds, self.timeout_seconds)


class Poller:
    """Runs the ticks. `failure` is why the last one failed, None after a success, a text before the first."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        outlet: Outlet,
        *,
        ledger: Ledger,
        metrics: Metrics,
        redactor: Redactor,
        surroundings: Surroundings,
    ) -> None:
        self._plan = plan
        self._source = source
        self._outlet = outlet
        self._ledger = ledger
        self._metrics = metrics
        self._redactor = redactor
        self._surroundings = surroundings
        self._not_before = float("-inf")
        self._expected = surroundings.monotonic()
        self._told: set[str] = set()  # oddities that have been logged and still last
        self.failure: str | None = "no poll has succeeded yet"
        self.failing_since = surroundings.wall()
        self.last_success: float | None = None
        self.last_records = 0

    def overdue_seconds(self) -> float:
        """How long the loop has been expected to turn and did not; waiting on purpose is turning."""
        return max(0.0, self._surroundings.monotonic() - self._expected - ALIVE_SLACK_SECONDS)

    async def run(self) -> None:
        """Tick after tick until cancelled, which ends a running fetch too; what was selected is handed over by then."""
        clock = self._surroundings
        grid = pacing.first_grid(clock.monotonic(), self._plan.period_seconds, clock.uniform())
        upcoming = 0
        running = False
        while True:
            now = clock.monotonic()
            step = pacing.decide(grid, upcoming, now, running=running)
            if isinstance(step, pacing.Wait):
                if step.missed:
                    self._skip("overrun", step.missed)
                elif running:
                    self._told.discard("overrun")
                upcoming, running = step.tick, False
                self._expected = step.until
                await clock.sleep(step.until - now)
                continue
            upcoming, running = step.tick + 1, self._may_run(now)
            if running:
                self._expected = now + self._plan.budget_seconds
                await self._run_tick()

    async def tick(self) -> asyncio.Future[Delivery]:
        """One poll; the future is the outlet's for everything selected. Raises FetchError."""
        fetched = await self._source.fetch(self._plan.budget_seconds)
        try:
            parsed = self._parse(fetched)
        except BodyError as error:
            raise self._source.unusable(error) from error
        self._report_set_aside(parsed.set_aside)
        pick = self._surroundings.pick
        chosen = [bytes(raw) for raw in select(self._plan.select, parsed.records, pick)]
        records = [Record(key=record_key(value, self._plan.key_pointer), value=value) for value in chosen]
        self._report_oddities(parsed, records)
        parcel = Parcel(
            source=self._plan.source, time=rfc3339(fetched.arrived_wall), topic=self._plan.topic, records=records
        )
        delivery = self._outlet.submit(parcel)
        if records:
            delivery.add_done_callback(partial(self._report_sent, fetched.arrived_monotonic, records[0]))
        self.last_records = len(records)
        return delivery

    def _may_run(self, now: float) -> bool:
        reason = pacing.skip_reason(
            now,
            not_before=self._not_before,
            unacked_bytes=self._ledger.unacked_bytes,
            max_unacked_bytes=self._plan.max_unacked_bytes,
        )
        if reason is not None:
            self._skip(reason, 1)
            return False
        self._told -= {"throttled", "unacked"}
        return True

    async def _run_tick(self) -> None:
        try:
            _delivery = await self.tick()  # the outlet's from here on: a tick does not wait for Kafka
        except FetchError as error:
            self._metrics.ticks.labels(error.outcome).inc()
            if error.wait_seconds > 0:
                self._not_before = self._surroundings.monotonic() + error.wait_seconds
            if self.failure is None:
                self.failing_since = self._surroundings.wall()
            self.failure = error.reason
            log.warning("Poll failed", outcome=error.outcome, reason=error.reason)
            return
        self._metrics.ticks.labels("ok").inc()
        self.failure = None
        self.last_success = self._surroundings.wall()
        self._metrics.last_success.set(self.last_success)

    def _parse(self, fetched: Fetched) -> Parsed:
        if fetched.body is None:
            return Parsed(records=())
        return parse(fetched.body, self._plan.records_pointer, self._plan.max_records)

    def _skip(self, reason: str, ticks: int) -> None:
        self._metrics.ticks_skipped.labels(reason).inc(ticks)
        self._tell_once(reason, "Ticks skipped", reason=reason)

    def _tell_once(self, oddity: str, event: str, **fields: object) -> None:
        """Log something that may last for hours when it begins, not at each tick."""
        if oddity not in self._told:
            self._told.add(oddity)
            log.warning(event, **fields)

    def _report_set_aside(self, set_aside: Sequence[SetAside]) -> None:
        if not set_aside:
            return
        for each in set_aside:
            self._metrics.records_set_aside.labels(each.reason).inc()
        samples = [
            {"index": each.index, "reason": each.reason, "begins": self._redactor.excerpt(each.first_bytes)}
            for each in set_aside[:_SAMPLES]
        ]
        log.warning("Records set aside", records=len(set_aside), first=samples)

    def _report_oddities(self, parsed: Parsed, records: Sequence[Record]) -> None:
        if parsed.found:
            self._told.discard("nothing_there")
        else:
            self._tell_once(
                "nothing_there",
                "Nothing at the records pointer",
                pointer=self._plan.records_pointer.text,
                hint="if this lasts, check API_RECORDS_POINTER",
            )
        if self._plan.key_pointer is None or not records:
            return
        keys = (record_key(record, self._plan.key_pointer) for record in parsed.records)
        if any(record.key is not None for record in records) or any(key is not None for key in keys):
            self._told.discard("keyless")
        else:
            self._tell_once(
                "keyless",
                "No record has a key",
                pointer=self._plan.key_pointer.text,
                hint="check RECORD_KEY_POINTER, or set it to none",
            )

    def _report_sent(self, arrived: float, first: Record, done: asyncio.Future[Delivery]) -> None:
        if done.cancelled() or not done.result().acknowledged:
            return  # given up, or all of it was set aside: the publisher says so
        if self._plan.select is Select.RANDOM:
            text = self._redactor.mask(first.value.decode())
            log.info("Message sent", record=text, key=None if first.key is None else first.key.decode())
        else:
            seconds = self._surroundings.monotonic() - arrived
            log.info("Message sent", records=done.result().acknowledged, seconds=round(seconds, 3))
