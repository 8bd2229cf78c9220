"""Quarantine objects, judged: those that an object names, line by line, and those that none names. Pure.

Owns: what a named one must hold, which unnamed one is an orphan and which cannot be ours. Does not own: main objects
(`audit`), chains (`chain_audit`), requests (`inspector`, `auditor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.audit import link_before
from consumer.findings import Fault, Kind
from shared.schemas import Envelope, SchemaError, decode_envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.audit import Ground, Link
    from consumer.decoder import BodyFacts
    from shared.schemas import ObjectMetadata


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


def judge_orphan(key: str, *, ground: Ground, links: Mapping[int, Sequence[Link]]) -> Fault | str:
    """What a quarantine object is that no object names: a fault, or a note.

    `links` by partition, in order of their starts. A put that lost its race or a crash leaves one behind; but a writer
    stands at boundaries only, so one that begins inside an object is nobody's of ours.
    """
    parsed = ground.keys.parse_quarantine(key)
    if parsed is None:
        return f"{key} lies among the quarantine, but its name is none of ours: not looked at"
    around = link_before(links.get(parsed.partition, ()), parsed.start)
    if around is None or parsed.start >= around.next_offset:
        return (
            f"orphaned quarantine object, partition {parsed.partition}, offsets [{parsed.start}, {parsed.next_offset}),"
            f" key {key}: named by no object, harmless"
        )
    return Fault(
        kind=Kind.QUARANTINE,
        partition=parsed.partition,
        start_offset=parsed.start,
        next_offset=parsed.next_offset,
        key=key,
        what=f"named by no object, and it begins inside {around.key(ground.keys, parsed.partition)}: none of ours did",
    )
