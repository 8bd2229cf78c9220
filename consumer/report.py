"""What the consumer tells people and machines: log lines and metrics, one method a fact.

Owns: metric names and events (design §7). Does not own: any decision. Never a line a record, but `Received message`.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from consumer.events import Outcome
from shared import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.encoder import Body, Reason
    from consumer.events import Chunk, Linked, Stalled
    from consumer.ports import Failure
    from consumer.runs import Run

_PUT_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

log = logs.get_logger(__name__)


class Report:
    """Log lines and metrics of one process. `each_record`: an object holds one, so each `Received message` is told."""

    def __init__(self, registry: CollectorRegistry, *, each_record: bool) -> None:
        self.registry = registry
        self._each_record = each_record
        self._reminders = logs.Reminders()
        self._records = Counter(
            "ticklake_consumer_records_stored", "Records in objects of the chain", registry=registry
        )
        self._quarantined = Counter(
            "ticklake_consumer_records_quarantined", "Records put aside", ["reason"], registry=registry
        )
        self._objects = Counter("ticklake_consumer_objects", "Links of the chain", ["outcome"], registry=registry)
        self._put_seconds = Histogram(
            "ticklake_consumer_put_seconds", "One attempt of a put", buckets=_PUT_SECONDS, registry=registry
        )
        self._retries = Counter(
            "ticklake_consumer_put_retries", "Attempts that left a put's outcome open", ["reason"], registry=registry
        )
        self.buffered_bytes = Gauge(
            "ticklake_consumer_buffered_bytes", "Memory of what is open, waiting or in flight", registry=registry
        )
        self.lag = Gauge(
            "ticklake_consumer_lag_records", "Log end minus chain end: not yet in S3", ["partition"], registry=registry
        )
        self.position_lag = Gauge(
            "ticklake_consumer_position_lag_records", "Log end minus what was read", ["partition"], registry=registry
        )
        self._stalled_since = Gauge(
            "ticklake_consumer_stalled_since_timestamp_seconds",
            "Since when a partition cannot go on (unix time), absent while it can",
            ["partition"],
            registry=registry,
        )
        self._commits = Counter("ticklake_consumer_commits", "Commit requests", ["outcome"], registry=registry)
        self._rebalances = Counter("ticklake_consumer_rebalances", "Assignments received", registry=registry)
        self.loop_block_seconds = Histogram(
            "ticklake_consumer_loop_block_seconds",
            "How late the event loop was: its blocks, each up to 0.005 s too short (0.02 s after a second without any)",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
            registry=registry,
        )

    # ---- records and objects ---------------------------------------------------------------------------------------

    def received(self, run: Run, begin: int, end: int) -> None:
        """`Received message`, a line a record: INFO where a record is an object, else DEBUG."""
        tell = log.info if self._each_record else log.debug
        if self._each_record or log.is_enabled_for(logging.DEBUG):
            for value in map(run.value, range(begin, end)):
                tell("Received message", record=None if value is None else value.decode(errors="backslashreplace"))

    def linked(self, linked: Linked, body: Body | None, seconds: float) -> None:
        """The chain grew. `body` when we sealed one of that range; `seconds` since its sealing.

        Records are counted by the one whose put it was, so that the sum over replicas counts them once.
        """
        self._objects.labels(linked.outcome).inc()
        span = {"start": linked.start, "next": linked.next_offset}
        if linked.outcome is Outcome.ADOPTED or body is None:
            log.info("Adopted", key=linked.key, **span)
            return
        self._records.inc(body.record_count)
        for reason, count in body.quarantined.items():
            self._quarantined.labels(reason).inc(count)
        if body.quarantined:
            log.warning("Quarantined", key=linked.key, reasons=_counts(body.quarantined), **span)
        log.info(
            "Uploaded",
            key=linked.key,
            records=body.record_count,
            bytes=len(body.content),
            seconds=round(seconds, 3),
            outcome=linked.outcome,
            **span,
        )

    def put_took(self, seconds: float) -> None:
        self._put_seconds.observe(seconds)

    def retrying(self, chunk: Chunk, failure: Failure, reason: str, attempt: int) -> None:
        """A put's outcome is open: nothing is lost, the chunk is kept and settled later."""
        self._retries.labels(failure).inc()
        log.warning("Retrying", key=chunk.key, failure=failure, reason=reason, attempt=attempt, start=chunk.start)

    def waiting_for(self, what: str, error: Exception) -> None:
        """What a start needs is away. Asked for often, told once a minute."""
        if self._reminders.due(what, str(error)):
            self.asking_again(what, error)

    def asking_again(self, what: str, error: Exception) -> None:
        """A request that is repeated until it answers has failed."""
        log.warning("Asking again", what=what, reason=str(error))

    # ---- partitions ------------------------------------------------------------------------------------------------

    def assigned(self, partitions: list[int]) -> None:
        self._rebalances.inc()
        log.info("Partitions assigned", partitions=partitions)

    def revoked(self, partitions: list[int], abandoned_records: int, seconds: float) -> None:
        """`abandoned_records` were read but not stored in time: they are in Kafka, the next owner reads them again."""
        log.info(
            "Partitions revoked",
            partitions=partitions,
            left_for_next_owner=abandoned_records,
            seconds=round(seconds, 3),
        )
        for partition in partitions:
            for gauge in (self.lag, self.position_lag, self._stalled_since):
                with suppress(KeyError):  # never set: nothing to take back
                    gauge.remove(str(partition))

    def stalled(self, partition: int, stalled: Stalled, *, since: float = 0.0) -> None:
        """A person is needed. Said once, then every minute; `since` in seconds."""
        log.error("Stalled", partition=partition, reason=stalled.reason, key=stalled.key, for_seconds=round(since))

    def stalled_for(self, partition: int, seconds: float) -> None:
        self._stalled_since.labels(partition).set(time.time() - seconds)

    def not_stalled(self, partition: int) -> None:
        with suppress(KeyError):  # never set: nothing to take back
            self._stalled_since.remove(str(partition))

    def waiting(self, partition: int, reason: str) -> None:
        log.warning("Waiting", partition=partition, reason=reason)

    def unsigned(self, partition: int, committed: int, recovered: int) -> None:
        log.warning(
            "Unsigned offset ignored",
            partition=partition,
            committed=committed,
            chain_end=recovered,
            hint="the bucket counts; to read records again, use a new S3_PREFIX",
        )

    # ---- Kafka -----------------------------------------------------------------------------------------------------

    def committed(self, outcome: str, reason: str = "") -> None:
        """`outcome`: ok, refused (the group has moved on), failed (carried by the next commit)."""
        self._commits.labels(outcome).inc()
        if outcome != "ok":
            log.warning("Commit not taken", outcome=outcome, reason=reason, hint="harmless: the bucket counts")

    def poll_failed(self, error: Exception) -> None:
        """Kafka is away or refuses: found out every few seconds, told once a minute."""
        if not self._reminders.due("poll", str(error)):
            return
        log.warning("Kafka does not answer as needed", reason=str(error))


def _counts(reasons: Mapping[Reason, int]) -> dict[str, int]:
    return {str(reason): count for reason, count in reasons.items()}
