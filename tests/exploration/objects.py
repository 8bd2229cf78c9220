"""What a put would create: the object and its quarantine, with keys, names and metadata as the product writes them.

Owns: building them from a chunk and the offsets in its body. Content does not matter to the chain, its hash does: the
same records give the same one. Does not own: when they land (`ground`), whether they are right (`invariants`).
"""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from consumer.encoder import Body, Quarantine, Reason
from consumer.partition import Partition
from tests.exploration.world import Process, Thing

if TYPE_CHECKING:
    from consumer.chain import Rules
    from consumer.events import Chunk


def object_of(chunk: Chunk, offsets: tuple[int, ...], process: Process, rules: Rules) -> Thing:
    """The data object of a chunk whose body holds the records at these offsets."""
    partition = object.__new__(Partition)  # the product's way to the metadata, without a loop to live in
    partition.number = 0
    partition._desk = cast("Any", SimpleNamespace(rules=rules))
    partition._body = _body(offsets, process)
    upload = partition._upload(chunk)
    metadata = dict(upload.metadata)
    return Thing(
        kind="data",
        key=upload.key,
        lines=tuple(offset for offset in offsets if offset not in process.judges),
        metadata=tuple(sorted(metadata.items())),
        start=int(metadata["start-offset"]),
        end=int(metadata["next-offset"]),
        chain_id=metadata["chain-id"],
        named=metadata.get("quarantine", ""),
        lost=int(metadata["lost-count"]),
    )


def quarantine_of(chunk: Chunk, offsets: tuple[int, ...], process: Process) -> Thing:
    """The quarantine object of such a chunk; it has one."""
    aside = tuple(offset for offset in offsets if offset in process.judges)
    name = process.keys.quarantine_name(
        partition=0, start=chunk.start, next_offset=chunk.next_offset, sha256=_sha256(list(aside))
    )
    return Thing(kind="quarantine", key=process.keys.quarantine_prefix + name, lines=aside)


def _body(offsets: tuple[int, ...], process: Process) -> Body:
    aside = [offset for offset in offsets if offset in process.judges]
    kept = [offset for offset in offsets if offset not in process.judges]
    return Body(
        content=b"",
        crc32=0,
        sha256=_sha256(kept),
        record_count=len(kept),
        quarantined={Reason.NOT_JSON: len(aside)},
        quarantine=Quarantine(body=b"", crc32=0, sha256=_sha256(aside)) if aside else None,
    )


def _sha256(offsets: list[int]) -> str:
    return hashlib.sha256(repr(offsets).encode()).hexdigest()
