"""One audit of a topic's objects: what Kafka says, the layout, every object, the verdicts, the comparison in depth.

Owns: the order of the questions and the two listings. Does not own: any judgement (`audit`, `chain_audit`,
`quarantine_audit`), one object's requests (`inspector`), the comparison (`deep_audit`), the output (`verify`).

It may run beside consumers. Committed offsets are read before the bucket is listed: what was committed by then was put
before, so an offset beyond the listed objects is a fault and no race. What begins at or above the log's end of that
moment is left to the next audit, or a busy chain's end could be chased for ever; unless it begins beyond the log's end
as it is after the listing: no object of ours can. A listing is no snapshot either: an object can be put behind the
place that was just listed, its successor ahead of it. So where something seems to be missing below an object that was
seen, the bucket is listed once more: whatever lies below that object was put before it, and is there now.

Memory: about 300 bytes an object (a Link, and its start in a set while the bucket is listed again), the names of
quarantine objects, and for each of CONCURRENCY inspections one piece of a body with its decompressed output.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from consumer.audit import Ground, Link, link_of
from consumer.chain_audit import Verdict, audit_partition
from consumer.comparison import differences
from consumer.deep_audit import DeepAudit
from consumer.findings import Fault, Findings, Kind
from consumer.inspector import Inspector, a_few_times, listed
from consumer.ports import SourceError, StoreError
from consumer.quarantine_audit import judge_orphan
from shared.schemas import Layout, SchemaError
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from consumer.keys import ParsedKey
    from consumer.log_reader import LogReader
    from consumer.ports import Committed, LogRange, Store, TopicIdentity
    from consumer.settings import Settings

CONCURRENCY: Final = 16
MAX_ORPHAN_NOTES: Final = 20  # a wrong deploy can leave thousands: counted, the first are named


class Kafka(Protocol):
    """What is asked of Kafka (a part of the source, connected, not joined)."""

    async def connect(self) -> None: ...
    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]: ...
    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]: ...
    async def identity(self) -> TopicIdentity: ...
    async def group_has_members(self) -> bool: ...


class Progress(Protocol):
    """Hears how far the audit has come, in offsets."""

    def expect(self, offsets: int, *, what: str) -> None: ...
    def advance(self, offsets: int, body_bytes: int) -> None: ...


class AuditEnd(Exception):  # noqa: N818 -- not an error of ours
    """The audit cannot go on; the text is the fault."""


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """What was inspected so far, by partition."""

    links: dict[int, list[Link]] = field(default_factory=dict)
    bad_starts: set[tuple[int, int]] = field(default_factory=set)
    quarantines: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    later: list[tuple[ParsedKey, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    orphans: int = 0
    other_keys: int = 0
    body_bytes: int = 0

    def starts(self, partitions: Sequence[int]) -> dict[int, set[int]]:
        bad = self.bad_starts
        return {
            partition: {link.start for link in self.links.get(partition, ())}
            | {start for owner, start in bad if owner == partition}
            for partition in partitions
        }


class Auditor:
    """One audit. `open_reader` opens the topic for plain reading: given, all is compared (`--deep`).

    `alone` = refuse while the group has members.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        kafka: Kafka,
        store: Store,
        progress: Progress,
        open_reader: Callable[[], AbstractAsyncContextManager[LogReader]] | None = None,
        alone: bool = False,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._store = store
        self._progress = progress
        self._open_reader = open_reader
        self._alone = alone
        self._keys = settings.keys
        self._ledger = _Ledger()
        self._horizon: dict[int, int] = {}
        self._findings = Findings(
            bucket=settings.s3_bucket,
            prefix=self._keys.prefix,
            topic=settings.kafka_topic,
            group=settings.kafka_group_id,
            chain_id="",
        )

    async def run(self) -> Findings:
        """All that was found, also when it could not be finished. Raises SettingsError."""
        try:
            await self._kafka.connect()
            await self._audit()
        except* (SourceError, StoreError, AuditEnd) as group:
            known = self._findings.faults or tuple(sorted(self._ledger.faults, key=_place))
            end = Fault(kind=Kind.INCOMPLETE, what=f"the audit could not be finished: {_first(group)}")
            self._findings = replace(self._findings, faults=(*known, end))
        return self._findings

    async def _audit(self) -> None:
        kafka = self._kafka
        identity = await kafka.identity()
        if self._alone and await kafka.group_has_members():
            raise AuditEnd(f"group {self._settings.kafka_group_id} has members: stop all consumers first")
        committed = await kafka.committed(range(identity.partitions))
        layout = await self._layout(identity)
        ground = Ground(layout=layout, keys=self._keys)
        self._findings = replace(self._findings, chain_id=layout.chain_id)
        self._progress.expect(
            sum(max(0, at.offset - layout.origin(partition)) for partition, at in committed.items() if at),
            what="checked",
        )
        inspector = Inspector(self._store, ground)
        before = await kafka.log_ranges(range(identity.partitions))
        self._horizon = {partition: log.high_watermark for partition, log in before.items()}
        await self._inspect_all(inspector, listed(self._store, self._keys.listing_prefix))
        logs = await kafka.log_ranges(range(identity.partitions))
        for (partition, start), key in self._ledger.later:
            if start >= logs[partition].high_watermark:
                await self._inspect(inspector, key)
        for links in self._ledger.links.values():
            links.sort()
        verdicts = self._verdicts(ground, committed, logs)
        if unproven := [verdict.findings.partition for verdict in verdicts.values() if verdict.unproven]:
            await self._inspect_missed(inspector, unproven)
            logs = await kafka.log_ranges(range(identity.partitions))
            verdicts = self._verdicts(ground, committed, logs)
        await self._judge_orphans(ground)
        self._conclude(list(verdicts.values()))
        if self._open_reader is not None:
            await self._compare(self._open_reader, ground, inspector, identity, logs)

    async def _layout(self, identity: TopicIdentity) -> Layout:
        key = self._keys.layout_key
        body = await a_few_times(lambda: self._store.get(key))
        if body is None:
            raise AuditEnd(
                f"s3://{self._settings.s3_bucket}/{key} is not there: no consumer has started with this bucket, prefix"
                " and topic yet, or it was deleted (then restore it: it names the chains' origins)"
            )
        try:
            layout = Layout.decode(body)
        except SchemaError as error:
            raise AuditEnd(f"s3://{self._settings.s3_bucket}/{key}: {error}; restore it") from error
        faults = differences(
            layout,
            keys=self._keys,
            record_format=self._settings.record_format,
            compression=self._settings.compression,
            identity=identity,
        )
        if faults:
            raise SettingsError(faults)
        return layout

    # ---- objects -----------------------------------------------------------------------------------------------------

    async def _inspect_all(self, inspector: Inspector, keys: AsyncIterator[str]) -> None:
        """Every key of the template, CONCURRENCY at a time; the listing goes on as they are done."""
        turn = asyncio.Lock()

        async def next_key() -> str | None:
            async with turn:
                async for key in keys:
                    parsed = self._keys.parse(key)
                    if parsed is None:
                        self._ledger.other_keys += not key.startswith(self._keys.other_layout_prefix)
                    elif parsed.start < self._horizon.get(parsed.partition, parsed.start + 1):
                        return key
                    else:
                        self._ledger.later.append((parsed, key))
                return None

        async def work() -> None:
            while (key := await next_key()) is not None:
                await self._inspect(inspector, key)

        async with asyncio.TaskGroup() as group:
            for number in range(CONCURRENCY):
                group.create_task(work(), name=f"inspect {number}")

    async def _inspect(self, inspector: Inspector, key: str) -> None:
        inspected = await inspector.inspect(key)
        parsed = self._keys.parse(key)
        if inspected is None or parsed is None:
            return
        ledger = self._ledger
        ledger.faults += inspected.faults
        ledger.body_bytes += inspected.body_bytes
        if inspected.metadata is None:
            ledger.bad_starts.add((parsed.partition, parsed.start))
            return
        link = link_of(inspected.metadata)
        ledger.links.setdefault(parsed.partition, []).append(link)
        if inspected.metadata.quarantine:
            ledger.quarantines.add(inspected.metadata.quarantine)
        self._progress.advance(link.next_offset - link.start, inspected.body_bytes)

    async def _inspect_missed(self, inspector: Inspector, partitions: Sequence[int]) -> None:
        """Objects that were put behind the listing's back, below one that it saw."""
        seen = self._ledger.starts(partitions)
        below = {partition: self._ledger.links[partition][-1].start for partition in partitions}

        async def missed() -> AsyncIterator[str]:
            async for key in listed(self._store, self._keys.listing_prefix):
                parsed = self._keys.parse(key)
                if parsed is None or parsed.partition not in seen:
                    continue
                if parsed.start < below[parsed.partition] and parsed.start not in seen[parsed.partition]:
                    yield key

        await self._inspect_all(inspector, missed())
        for partition in partitions:
            self._ledger.links[partition].sort()

    async def _judge_orphans(self, ground: Ground) -> None:
        """Quarantine objects that no object names, the first of them by name."""
        ledger, prefix, notes = self._ledger, self._keys.quarantine_prefix, 0
        async for key in listed(self._store, prefix):
            if key.removeprefix(prefix) in ledger.quarantines:
                continue
            ledger.orphans += 1
            judged = judge_orphan(key, ground=ground, links=ledger.links)
            if isinstance(judged, Fault):
                ledger.faults.append(judged)
            elif notes < MAX_ORPHAN_NOTES:
                notes += 1
                ledger.notes.append(judged)

    # ---- verdicts ----------------------------------------------------------------------------------------------------

    def _verdicts(
        self, ground: Ground, committed: Mapping[int, Committed | None], logs: Mapping[int, LogRange]
    ) -> dict[int, Verdict]:
        partitions = sorted({*logs, *self._ledger.links})
        return {
            partition: audit_partition(
                partition,
                ground=ground,
                links=self._ledger.links.get(partition, []),
                committed=committed.get(partition),
                log=logs.get(partition),
            )
            for partition in partitions
        }

    def _conclude(self, verdicts: Sequence[Verdict]) -> None:
        faults = [*self._ledger.faults, *(fault for verdict in verdicts for fault in verdict.faults)]
        self._findings = replace(
            self._findings,
            partitions=tuple(verdict.findings for verdict in verdicts),
            orphaned_quarantines=self._ledger.orphans,
            other_keys=self._ledger.other_keys,
            body_bytes=self._ledger.body_bytes,
            faults=tuple(sorted(faults, key=_place)),
            notes=(*(note for verdict in verdicts for note in verdict.notes), *self._ledger.notes),
        )

    async def _compare(
        self,
        open_reader: Callable[[], AbstractAsyncContextManager[LogReader]],
        ground: Ground,
        inspector: Inspector,
        identity: TopicIdentity,
        logs: Mapping[int, LogRange],
    ) -> None:
        async def log_range(partition: int) -> LogRange:
            return (await self._kafka.log_ranges([partition]))[partition]

        self._progress.expect(sum(end.chain_end - end.origin for end in self._findings.partitions), what="compared")
        async with open_reader() as reader:
            deep = DeepAudit(
                store=self._store,
                ground=ground,
                inspector=inspector,
                reader=reader,
                compacted=identity.compacted,
                log_range=log_range,
                on_object=lambda link: self._progress.advance(link.next_offset - link.start, 0),
            )
            try:
                for partition, log in sorted(logs.items()):
                    await deep.compare(partition, self._ledger.links.get(partition, []), log)
            finally:
                faults = tuple(sorted([*self._findings.faults, *deep.faults], key=_place))
                self._findings = replace(self._findings, faults=faults, compared=deep.compared)


def _place(fault: Fault) -> tuple[int, int, str]:
    return (
        -1 if fault.partition is None else fault.partition,
        -1 if fault.start_offset is None else fault.start_offset,
        fault.kind,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several inspections that failed at once, the one to name."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
