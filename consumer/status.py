"""What the side-port tells of the consumer: alive, ready or why not, and the page.

Owns: the wording. Does not own: the facts (the worker's and the store's), the server (`shared.health`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.health import Status, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.partition import Partition
    from consumer.vitals import WatchedStore
    from consumer.worker import Worker

LOOP_SECONDS: Final = 30.0


class ConsumerProbe:
    """shared.health.Probe. `store` and `worker` are set by the service as they come to be."""

    def __init__(self, *, facts: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._facts = facts
        self._clock = clock
        self._turned_at = clock()
        self.starting: str | None = "starting"
        self.stopping = False
        self.store: WatchedStore | None = None
        self.worker: Worker | None = None

    def turned(self) -> None:
        """The event loop is alive: to be called every second or so."""
        self._turned_at = self._clock()

    def not_alive(self) -> str | None:
        """The loop advances, or not; S3 or Kafka being away never fails it."""
        silent = self._clock() - self._turned_at
        return f"the event loop has not turned for {silent:.0f} s" if silent > LOOP_SECONDS else None

    def not_ready(self) -> Sequence[str]:
        """Why no progress can be made, one reason each."""
        reasons: list[str] = []
        if self.stopping:
            reasons.append("stopping")
        if self.starting is not None:
            reasons.append(self.starting)
        if self.store is not None and self.store.failing_since is not None:
            reasons.append(f"S3 fails for {self._since(self.store.failing_since)}: {self.store.last_reason}")
        if self.worker is not None:
            if (trouble := self.worker.kafka_trouble) is not None:
                reasons.append(f"Kafka fails for {self._since(trouble.since)}: {trouble.reason}")
            if not self.worker.was_assigned:
                reasons.append("waiting for the group to assign partitions")
            for number, partition in sorted(self.worker.partitions.items()):
                reasons.extend(self._trouble(number, partition))
        return reasons

    def _trouble(self, number: int, partition: Partition) -> Sequence[str]:
        stall, retry = partition.chain.stall, partition.chain.retry
        if stall is not None:
            where = f", key {stall.key}" if stall.key else ""
            return [f"partition {number} stalled for {self._since(stall.since)}{where}: {stall.reason}"]
        if partition.chain.waiting is not None:
            return [f"partition {number} waits: {partition.chain.waiting}"]
        if retry is not None:
            return [f"partition {number} retrying for {self._since(retry.since)}: {retry.reason}"]
        return []

    def status(self) -> Status:
        """For the page."""
        facts = dict(self._facts)
        if self.worker is None:
            return Status(facts=facts, tables=[])
        facts["Buffered"] = f"{self.worker.buffered_bytes:,} bytes"
        rows = [self._row(number, partition) for number, partition in sorted(self.worker.partitions.items())]
        columns = ["Partition", "State", "Chain end", "Lag (records)", "Open (records)", "In flight", "Last object"]
        return Status(facts=facts, tables=[Table(title="Partitions", columns=columns, rows=rows)])

    def _row(self, number: int, partition: Partition) -> Sequence[object]:
        chain, worker = partition.chain, self.worker
        lags = worker.lag(partition) if worker else None
        return [
            number,
            chain.phase if chain.retry is None else f"{chain.phase}, retrying",
            "" if chain.position is None else chain.position,
            "" if lags is None else lags[0],
            chain.batch.records,
            chain.chunk.key if chain.chunk else "",
            partition.last_object or "",
        ]

    def _since(self, moment: float) -> str:
        return f"{max(0.0, self._clock() - moment):.0f} s"
