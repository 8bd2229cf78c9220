"""Whether an object of the bucket is a link of our chain: the judgements of `verify` on one object. Pure.

Owns: what makes an object a link, what is kept of it, how a body may differ from its metadata. Does not own: what makes
links a chain (`chain_audit`), quarantine objects (`quarantine_audit`), requests (`inspector`, `auditor`), bodies
(`decoder`), the comparison with the topic (`reconciliation`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from consumer.chain import check_object
from consumer.findings import Fault, Kind
from shared.schemas import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.decoder import BodyFacts
    from consumer.keys import KeyTemplate
    from consumer.ports import Found
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


def link_before(links: Sequence[Link], offset: int) -> Link | None:
    """The last of the links (in order of their starts) that begins below `offset`, unless one begins just there."""
    index = bisect_left(links, offset, key=lambda link: link.start)
    if index == 0 or (index < len(links) and links[index].start == offset):
        return None
    return links[index - 1]
