"""The loop of one endpoint: at each tick of the grid collect, hand over, remember.

Owns: the ticks of one API, what they came to, what the next one starts from (validators, memory), the log lines of a
poll. Does not own: when a tick is due (`pacing`), getting the records (`collector`), the way into Kafka (`publisher`).

Invariants: one tick at a time, so no overlap; a tick never waits for Kafka, it is skipped before fetching while too
much waits; a tick that fails costs nothing but itself: what it had fetched is not remembered.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from producer import pacing
from producer.collector import Collector, Harvest
from producer.fetcher import FetchError
from producer.ledger import Parcel
from producer.memory import Memory
from producer.selection import Select
from producer.surroundings import rfc3339
from shared import logs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from producer.collector import Source
    from producer.ledger import Delivery, Ledger, Record
    from producer.metrics import EndpointMetrics
    from producer.parser import SetAside
    from producer.plan import Plan
    from producer.redactor import Redactor
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

ALIVE_SLACK_SECONDS = 30.0
KEYS_A_RECORD = 4  # keys remembered for each record that a poll may have: they come and go
_SAMPLES = 3


class Outlet(Protocol):
    """Where records go."""

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Take them; done when each is acknowledged or set aside."""
        ...


class Poller:
    """Runs the ticks. `failure` is why the last one failed, None after a success, a text before the first."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        outlet: Outlet,
        *,
        ledger: Ledger,
        max_unacked_bytes: int,
        metrics: EndpointMetrics,
        redactor: Redactor,
        surroundings: Surroundings,
        named: bool = False,
    ) -> None:
        """`max_unacked_bytes` is for the endpoint's topic. `named`: log lines tell the endpoint's name."""
        self.plan = plan
        self._memory = Memory(max_keys=KEYS_A_RECORD * plan.max_records) if plan.select is Select.CHANGED else None
        self._validators: Mapping[str, str] = {}
        self._forgettings = 0  # how often records set aside have been forgotten
        self._collector = Collector(plan, source, self._memory, surroundings.pick)
        self._outlet = outlet
        self._ledger = ledger
        self._max_unacked_bytes = max_unacked_bytes
        self._metrics = metrics
        self._redactor = redactor
        self._surroundings = surroundings
        self._log = log.bind(endpoint=plan.name) if named else log
        self._expected_bytes = 0  # what the next poll will probably bring: as much as the last one
        self._not_before = float("-inf")
        self._expected = surroundings.monotonic()
        self._reminders = logs.Reminders(surroundings.monotonic)  # failures may last, a tick every two seconds
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
        grid = pacing.first_grid(clock.monotonic(), self.plan.period_seconds, clock.uniform())
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
                self._expected = now + self.plan.budget_seconds
                await self._run_tick()

    async def tick(self) -> asyncio.Future[Delivery]:
        """One poll; the future is the outlet's for everything selected. Raises FetchError."""
        end = self._surroundings.monotonic() + self.plan.budget_seconds
        forgettings = self._forgettings
        harvest = await self._collector.collect(self._validators, end)
        # No await from here on: what is remembered as handed over has been handed over.
        parcel = Parcel(
            source=self.plan.source,
            time=rfc3339(harvest.arrived_wall),
            topic=self.plan.topic,
            records=harvest.records,
        )
        before = self._unacked_bytes()
        delivery = self._outlet.submit(parcel)
        self._expected_bytes = self._unacked_bytes() - before
        # What was forgotten while this was under way must come again; a 304 would hide it.
        self._validators = harvest.validators if forgettings == self._forgettings else {}
        if self._memory is not None and harvest.changes is not None:
            self._memory.remember(harvest.changes)
        if harvest.records:
            delivery.add_done_callback(partial(self._settled, harvest.arrived_monotonic, harvest.records[0]))
        self._report_set_aside(harvest.set_aside)
        self._report_oddities(harvest)
        self.last_records = len(harvest.records)
        return delivery

    def _unacked_bytes(self) -> int:
        return self._ledger.waiting(self.plan.topic, 0.0).unacked_bytes

    def _may_run(self, now: float) -> bool:
        reason = pacing.skip_reason(
            now,
            not_before=self._not_before,
            unacked_bytes=self._unacked_bytes(),
            expected_bytes=self._expected_bytes,
            max_unacked_bytes=self._max_unacked_bytes,
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
            self._metrics.ticks[error.outcome].inc()
            if error.wait_seconds > 0:
                self._not_before = self._surroundings.monotonic() + error.wait_seconds
            if self.failure is None:
                self.failing_since = self._surroundings.wall()
            self.failure = error.reason
            if self._reminders.due(error.outcome, error.reason):
                self._log.warning("Poll failed", outcome=error.outcome, reason=error.reason)
            return
        self._metrics.ticks["ok"].inc()
        if self.failure is not None:
            self.failure = None
            self._reminders.over()
        self.last_success = self._surroundings.wall()
        self._metrics.last_success.set(self.last_success)

    def _skip(self, reason: str, ticks: int) -> None:
        self._metrics.ticks_skipped[reason].inc(ticks)
        self._tell_once(reason, "Ticks skipped", reason=reason)

    def _tell_once(self, oddity: str, event: str, **fields: object) -> None:
        """Log something that may last for hours when it begins, not at each tick."""
        if oddity not in self._told:
            self._told.add(oddity)
            self._log.warning(event, **fields)

    def _report_set_aside(self, set_aside: Sequence[SetAside]) -> None:
        if not set_aside:
            return
        for each in set_aside:
            self._metrics.records_set_aside.labels(each.reason).inc()
        samples = [
            {"index": each.index, "reason": each.reason, "begins": self._redactor.excerpt(each.first_bytes)}
            for each in set_aside[:_SAMPLES]
        ]
        self._log.warning("Records set aside", records=len(set_aside), first=samples)

    def _report_oddities(self, harvest: Harvest) -> None:
        if harvest.found:
            self._told.discard("nothing_there")
        else:
            self._tell_once(
                "nothing_there",
                "Nothing at the records pointer",
                pointer=self.plan.records_pointer.text,
                hint=f"if this lasts, check {self.plan.setting('records_pointer')}",
            )
        if harvest.keyed:
            self._told.discard("keyless")
        elif self.plan.key_pointer is not None:
            self._tell_once(
                "keyless",
                "No record has a key",
                pointer=self.plan.key_pointer.text,
                hint=f"check {self.plan.setting('key_pointer')}, or set it to none",
            )

    def _settled(self, arrived: float, first: Record, done: asyncio.Future[Delivery]) -> None:
        if done.cancelled():
            return  # given up: the ledger keeps the count
        delivery = done.result()
        if self._memory is not None and delivery.set_aside:
            # The publisher said why. The next poll brings them again, unless it is answered that nothing is new.
            self._memory.forget(delivery.set_aside)
            self._validators = {}
            self._forgettings += 1
        if not delivery.acknowledged:
            return
        if self.plan.select is Select.RANDOM:
            key = None if first.key is None else self._redactor.mask(first.key.decode())
            self._log.info("Message sent", record=self._redactor.mask(first.value.decode()), key=key)
        else:
            seconds = self._surroundings.monotonic() - arrived
            self._log.info("Message sent", records=delivery.acknowledged, seconds=round(seconds, 3))
