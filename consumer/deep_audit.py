"""`verify --deep`: every object's lines beside the topic's records, partition by partition, in offset order.

Owns: which ranges can be compared, reading both sides in step. Does not own: what differs (`reconciliation`), how
either side is read (`inspector`, `log_reader`).
Memory: of an object a piece, of the log what one fetch brings, and the object's quarantined records.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.audit import Ground, Link, object_fault, read_object
from consumer.decoder import BodyError, LineSplitter
from consumer.findings import Compared, Fault, Kind
from consumer.inspector import Inspector, a_few_times
from consumer.log_reader import LogMovedError, LogReader
from consumer.ports import LogRange, SourceError
from consumer.reconciliation import Reconciliation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.ports import Store
    from shared.schemas import ObjectMetadata


@dataclass(slots=True, kw_only=True)
class _Counts:
    objects: int = 0
    records: int = 0
    quarantined: int = 0
    objects_beyond_log: int = 0
    records_beyond_log: int = 0

    def skip(self, link: Link) -> None:
        self.objects_beyond_log += 1
        self.records_beyond_log += link.records + link.quarantined


@dataclass(slots=True, kw_only=True)
class DeepAudit:
    """The comparison of one run; `faults` and `compared` grow with each partition. `log_range` asks Kafka anew."""

    store: Store
    ground: Ground
    inspector: Inspector
    reader: LogReader
    compacted: bool
    log_range: Callable[[int], Awaitable[LogRange]]
    on_object: Callable[[Link], None]
    faults: list[Fault] = field(default_factory=list)
    _counts: _Counts = field(default_factory=_Counts)
    _read_to: tuple[int, int] | None = None

    @property
    def compared(self) -> Compared:
        counts = self._counts
        return Compared(
            objects=counts.objects,
            records=counts.records,
            quarantined=counts.quarantined,
            objects_beyond_log=counts.objects_beyond_log,
            records_beyond_log=counts.records_beyond_log,
        )

    async def compare(self, partition: int, links: Sequence[Link], log: LogRange) -> None:
        """All links of a partition, in order. Raises StoreError, SourceError when one side cannot be read."""
        if links:
            await self._look_before(partition, links[0].start, log)
        for link in links:
            self.on_object(link)
            if link.start < log.start or link.next_offset > log.high_watermark:
                self._counts.skip(link)
                continue
            try:
                await a_few_times(lambda link=link: self._compare_object(partition, link))  # type: ignore[misc]
            except LogMovedError as error:
                log = await self.log_range(partition)
                if link.start >= log.start:
                    raise SourceError(f"partition {partition}: the broker's answers contradict: {error}") from error
                self._counts.skip(link)

    async def _look_before(self, partition: int, first: int, log: LogRange) -> None:
        """Records before the chain's first object that the log still has: expired from the bucket, or deleted."""
        start = max(log.start, self.ground.layout.origin(partition))
        if start >= first:
            return
        count, lowest, highest = 0, first, start
        try:
            self._seek(partition, start)
            while records := await self.reader.next_before(min(first, log.high_watermark)):
                count += len(records)
                lowest, highest = min(lowest, records[0].offset), records[-1].offset
        except LogMovedError:
            pass  # they have left the log while we read: nobody can compare them any more
        if count:
            what = f"{count} records that the log still has are in no object: expired early, or deleted"
            self.faults.append(
                Fault(kind=Kind.RECORD, partition=partition, start_offset=lowest, next_offset=highest + 1, what=what)
            )

    async def _compare_object(self, partition: int, link: Link) -> None:
        key = link.key(self.ground.keys, partition)
        found = await self.store.head(key)
        metadata = None if found is None else read_object(found, ground=self.ground)
        if metadata is None or isinstance(metadata, Fault):
            self._counts.skip(link)  # gone or changed since it was inspected: the next run tells
            return
        matching = Reconciliation(
            record_format=self.ground.layout.format,
            quarantined=await self.inspector.envelopes(metadata),
            compacted=self.compacted,
        )
        if self._read_to != (partition, link.start):
            self._seek(partition, link.start)
        self._read_to = None
        if await self._match(matching, key, metadata):
            matching.finish()
            self._read_to = (partition, metadata.next_offset)
        self._counts.objects += 1
        self._counts.records += matching.records
        self._counts.quarantined += matching.quarantined
        for offset, what in matching.faults:
            fault = object_fault(Kind.RECORD, metadata, key, what if offset is None else f"offset {offset}: {what}")
            self.faults.append(fault)

    async def _match(self, matching: Reconciliation, key: str, metadata: ObjectMetadata) -> bool:
        """Read both sides in step; False when the body breaks off."""
        splitter = LineSplitter()
        try:
            async with aclosing(self.inspector.uncompressed(key, self.ground.layout.compression)) as body:
                while records := await self.reader.next_before(metadata.next_offset):
                    matching.add_records(records)
                    while matching.wants_lines and (data := await anext(body, None)) is not None:
                        matching.add_lines(splitter.add(data))
                async for data in body:
                    matching.add_lines(splitter.add(data))
        except BodyError:
            return False  # a fault that `inspect` told
        return True

    def _seek(self, partition: int, offset: int) -> None:
        self.reader.seek(partition, offset)
        self._read_to = None
