"""Whether the links of a partition are the chain that is promised: the judgements of `verify` on many objects. Pure.

Owns: what makes links a chain, what a committed offset may be, how log and chain fit. Does not own: one object
(`audit`), requests (`auditor`), the words (`findings`).

Objects missing at a chain's beginning count as expired (a lifecycle rule takes the oldest first), whether or not Kafka
still has the records: with a lifecycle shorter than the retention both is in order. Where the log still has them a note
says so, and `--deep`, which answers for every record the log has, calls each of them a fault.

A committed offset must have been read before the bucket was listed: a writer puts first and commits after, so whatever
was committed then is in the listing. The log's range is read after it: then no chain seems to end beyond the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.audit import Ground, Link, link_before
from consumer.findings import Fault, Kind, PartitionFindings
from shared.schemas import signer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.ports import Committed, LogRange


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
        link = link_before(self._links, offset)
        self._fault(Kind.COMMIT, offset, None, f"the committed offset {offset} is {where}; {whose}", link)

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
            link_before(self._links, offset),
        )

    def _fault(self, kind: Kind, start: int, end: int | None, what: str, link: Link | None = None) -> None:
        key = self._key(link) if link else None
        self._faults.append(
            Fault(kind=kind, partition=self._partition, start_offset=start, next_offset=end, key=key, what=what)
        )

    def _key(self, link: Link) -> str:
        return link.key(self._ground.keys, self._partition)
