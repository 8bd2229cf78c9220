"""Whether what lies in the bucket is what the chain promises: the judgements of `verify`, as functions of values.

Owns: what makes an object a link, what makes links a chain, what a committed offset may be. Does not own: requests
(`inspector`, `auditor`), bodies (`decoder`), the comparison with the topic (`reconciliation`).

Objects missing at a chain's beginning count as expired (a lifecycle rule takes the oldest first), whether or not Kafka
still has the records: with a lifecycle shorter than the retention both is in order. Where the log still has them a note
says so, and `--deep`, which answers for every record the log has, calls each of them a fault.

A committed offset must have been read before the bucket was listed: a writer puts first and commits after, so whatever
was committed then is in the listing. The log's range is read after it: then no chain seems to end beyond the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from consumer.chain import check_object
from consumer.findings import Fault, Kind, PartitionFindings
from shared.schemas import Envelope, SchemaError, decode_envelope, signer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.decoder import BodyFacts
    from consumer.keys import KeyTemplate
    from consumer.ports import Committed, Found, LogRange
    from shared.schemas import Layout, ObjectMetadata


class Link(NamedTuple):
    """An object of the chain, as little of it as is kept: its key is rendered again when it is needed."""

    start: int
    next_offset: int
    records: int
    quarantined: int
    lost: int
    first_timestamp: int

    def key(self, keys: KeyTemplate, partition: int) -> str:
        """Just what it was read from: `read_object` compared them."""
        return keys.render(partition=partition, start=self.start, timestamp=self.first_timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every judgement rests on: the agreed layout and its key template."""

    layout: Layout
    keys: KeyTemplate


def read_object(found: Found, *, ground: Ground) -> ObjectMetadata | Fault:
    """The metadata of an object whose key the template can have rendered, or what is wrong with them."""
    parsed = ground.keys.parse(found.key)
    if parsed is None:
        raise ValueError(f"{found.key} is no key of the template")
    try:
        metadata = check_object(
            found, layout=ground.layout, partition=parsed.partition, start=parsed.start, first_timestamp=None
        )
    except SchemaError as error:
        return Fault(
            kind=Kind.FOREIGN,
            partition=parsed.partition,
            start_offset=parsed.start,
            key=found.key,
            what=f"not an object of this chain: {error}",
        )
    for what in _contradictions(metadata, found.key, ground):
        return object_fault(Kind.METADATA, metadata, found.key, what)
    return metadata


def link_of(metadata: ObjectMetadata) -> Link:
    """What is kept of an object."""
    return Link(
        start=metadata.start_offset,
        next_offset=metadata.next_offset,
        records=metadata.record_count,
        quarantined=metadata.quarantined_count,
        lost=metadata.lost_count,
        first_timestamp=metadata.first_timestamp,
    )


def object_fault(kind: Kind, metadata: ObjectMetadata, key: str, what: str) -> Fault:
    """A fault of one object of the chain."""
    return Fault(
        kind=kind,
        partition=metadata.partition,
        start_offset=metadata.start_offset,
        next_offset=metadata.next_offset,
        key=key,
        what=what,
    )


def _contradictions(metadata: ObjectMetadata, key: str, ground: Ground) -> Sequence[str]:
    faults = []
    rendered = link_of(metadata).key(ground.keys, metadata.partition)
    if rendered != key:
        faults.append(f"metadata first-timestamp {metadata.first_timestamp} belongs to key {rendered}")
    counts = (metadata.record_count, metadata.quarantined_count, metadata.lost_count)
    span = metadata.next_offset - metadata.start_offset
    if min(counts) < 0 or sum(counts) > span:
        faults.append(
            f"metadata record-count {counts[0]}, quarantined-count {counts[1]} and lost-count {counts[2]} do not fit"
            f" into {span} offsets"
        )
    if bool(metadata.quarantined_count) != bool(metadata.quarantine):
        faults.append(f"metadata quarantined-count is {metadata.quarantined_count}, quarantine {metadata.quarantine!r}")
    return faults


def body_fault(metadata: ObjectMetadata, facts: BodyFacts) -> str | None:
    """How a readable body differs from what the metadata say; None = not at all."""
    if facts.sha256 != metadata.sha256:
        return (
            f"the body's sha256 is {facts.sha256}, metadata say {metadata.sha256}"
            f" ({facts.lines} lines, record-count {metadata.record_count}): it was changed after it was written"
        )
    if facts.lines != metadata.record_count:
        return f"the body has {facts.lines} lines, metadata record-count is {metadata.record_count}"
    return None


# ---- quarantine ----------------------------------------------------------------------------------------------------


class QuarantineAudit:
    """The lines of one quarantine object, judged as they come."""

    def __init__(self, metadata: ObjectMetadata) -> None:
        self._metadata = metadata
        self._last = metadata.start_offset - 1
        self._lines = 0
        self.fault: str | None = None

    def add(self, line: bytes) -> Envelope | None:
        """The record in the line. The first fault stays; after it lines are only counted."""
        self._lines += 1
        if self.fault is not None:
            return None
        try:
            envelope = decode_envelope(line)
        except SchemaError as error:
            self.fault = f"line {self._lines}: {error}"
            return None
        if not self._last < envelope.offset < self._metadata.next_offset:
            self.fault = f"line {self._lines} has offset {envelope.offset}: not in order, or outside the object's range"
        elif envelope.reason is None:
            self.fault = f"line {self._lines} (offset {envelope.offset}) has no reason"
        self._last = envelope.offset
        return envelope

    def finish(self, facts: BodyFacts, ground: Ground) -> str | None:
        """What is wrong with the object as a whole, the first fault of a line included."""
        metadata = self._metadata
        name = ground.keys.quarantine_name(
            partition=metadata.partition,
            start=metadata.start_offset,
            next_offset=metadata.next_offset,
            sha256=facts.sha256,
        )
        if name != metadata.quarantine:
            return f"range and body belong to the name {name}: it was changed, or is another object's"
        if self._lines != metadata.quarantined_count:
            return f"it has {self._lines} lines, metadata quarantined-count is {metadata.quarantined_count}"
        return self.fault


# ---- the chain -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one partition. `unproven` = what a listing that runs beside writers can wrongly make look so."""

    findings: PartitionFindings
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    unproven: bool = False


def audit_partition(
    partition: int, *, ground: Ground, links: Sequence[Link], committed: Committed | None, log: LogRange | None
) -> Verdict:
    """Judge the objects of one partition, in order of their starts, and the offset committed before they were listed.

    `log` None = the topic has no such partition.
    """
    return _PartitionAudit(partition, ground, links, committed, log).verdict()


class _PartitionAudit:
    def __init__(
        self, partition: int, ground: Ground, links: Sequence[Link], committed: Committed | None, log: LogRange | None
    ) -> None:
        self._partition = partition
        self._ground = ground
        self._links = links
        self._committed = committed
        self._signer = signer(committed.offset, committed.metadata) if committed else None
        self._log = log
        self._origin = ground.layout.origin(partition)
        self._first = links[0].start if links else self._origin
        self._end = self._origin
        self._boundaries_hit = False
        self._faults: list[Fault] = []
        self._notes: list[str] = []

    def verdict(self) -> Verdict:
        self._walk()
        self._expire_all()
        self._judge_log()
        self._judge_commit()
        expired = max(0, self._first - self._origin)
        if expired and self._log is not None and self._log.start < self._first:
            self._notes.append(
                f"partition {self._partition}: the log still has offsets from {max(self._log.start, self._origin)} on,"
                f" the chain's objects begin at {self._first}: deleted early, or a lifecycle rule shorter than the"
                " topic's retention"
            )
        return Verdict(
            findings=self._findings(expired),
            faults=tuple(self._faults),
            notes=tuple(self._notes),
            unproven=bool(self._links) and (expired > 0 or any(fault.kind is Kind.GAP for fault in self._faults)),
        )

    def _findings(self, expired: int) -> PartitionFindings:
        log, committed = self._log, self._committed
        return PartitionFindings(
            partition=self._partition,
            origin=self._origin,
            chain_end=self._end,
            committed=committed.offset if committed else None,
            signed=self._signer == self._ground.layout.chain_id,
            log_start=log.start if log else None,
            log_end=log.high_watermark if log else None,
            objects=len(self._links),
            records=sum(link.records for link in self._links),
            quarantined=sum(link.quarantined for link in self._links),
            lost=sum(link.lost for link in self._links),
            expired=expired,
            lag=max(0, log.high_watermark - self._end) if log else 0,
        )

    def _walk(self) -> None:
        before: Link | None = None
        for link in self._links:
            if before is None:
                if link.start < self._origin:
                    until = min(self._origin, link.next_offset)
                    self._fault(
                        Kind.OVERLAP, link.start, until, f"it begins before the chain's origin {self._origin}", link
                    )
            elif link.start > self._end:
                self._fault(
                    Kind.GAP,
                    self._end,
                    link.start,
                    f"no object holds these offsets; the object before them is {self._key(before)}",
                    link,
                )
            elif link.start < self._end:
                until = min(self._end, link.next_offset)
                self._fault(
                    Kind.OVERLAP, link.start, until, f"these offsets are also held by {self._key(before)}", link
                )
            if before is None or link.next_offset > self._end:
                self._end, before = max(link.next_offset, self._end), link
            if self._committed is not None and self._committed.offset in (link.start, link.next_offset):
                self._boundaries_hit = True

    def _expire_all(self) -> None:
        """No object at all, a commit of ours, and the log begins at it or later: the whole chain has expired."""
        committed, log = self._committed, self._log
        if self._links or committed is None or log is None or self._signer != self._ground.layout.chain_id:
            return
        if self._origin < committed.offset <= log.start:
            self._first = self._end = committed.offset

    def _judge_log(self) -> None:
        log = self._log
        if log is None:
            if self._links:
                self._fault(Kind.LOG, self._first, self._end, "the topic has no such partition")
        elif self._end > log.high_watermark:
            self._fault(
                Kind.LOG,
                log.high_watermark,
                self._end,
                f"the chain ends at {self._end}, the log at {log.high_watermark}: the topic was truncated or created"
                " anew",
            )
        elif self._end < log.start:
            self._fault(
                Kind.LOSS,
                self._end,
                log.start,
                f"the chain ends at {self._end}, the log starts at {log.start}: these offsets are gone from Kafka and"
                " were not stored",
            )

    def _judge_commit(self) -> None:
        if self._committed is None:
            return
        offset, ours = self._committed.offset, self._ground.layout.chain_id
        if self._signer not in (None, ours):
            self._notes.append(
                f"partition {self._partition}: the committed offset {offset} is signed by another chain,"
                f" {self._signer}: not compared"
            )
            return
        if self._signer is None:
            self._judge_unsigned(offset)
            return
        in_expired = self._origin <= offset <= self._first
        if self._boundaries_hit or offset == self._end or in_expired:
            return
        where, whose = "no boundary of the chain", "signed by this chain"
        if offset > self._end:
            where = f"beyond the chain's end {self._end}"
            whose = "it is signed by this chain, so the objects up to it were there: they are missing"
        self._fault(Kind.COMMIT, offset, None, f"the committed offset {offset} is {where}; {whose}")

    def _judge_unsigned(self, offset: int) -> None:
        """Whoever set it expects it to count: under a new prefix it would, as the origin (design §5's recipe)."""
        if offset == self._end or offset < self._origin:  # or a predecessor's that the log's start had overtaken
            return
        harm = "lose" if offset > self._end else "double"
        self._fault(
            Kind.UNSIGNED_COMMIT,
            offset,
            None,
            f"the committed offset {offset} is not signed by this chain and not its end {self._end}: the consumer"
            f" ignores it, but a new prefix would begin there and {harm} what lies between; reset the group to the file"
            " of --ends",
        )

    def _fault(self, kind: Kind, start: int, end: int | None, what: str, link: Link | None = None) -> None:
        key = self._key(link) if link else None
        self._faults.append(
            Fault(kind=kind, partition=self._partition, start_offset=start, next_offset=end, key=key, what=what)
        )

    def _key(self, link: Link) -> str:
        return link.key(self._ground.keys, self._partition)
