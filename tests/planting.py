"""Chains as the consumer would have written them, made by the real encoder, keys and schemas, to plant damage in.

Owns: layouts and objects as values (Upload). Does not own: where they are put (a fake bucket, a real one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.codecs import codec
from consumer.encoder import BodyBuilder
from consumer.keys import CONTENT_TYPES
from consumer.ports import Record, Upload
from shared.schemas import Layout, ObjectMetadata
from tests.fakes.source import FakeBatch
from tests.fakes.wire import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.audit import Ground
    from consumer.keys import KeyTemplate

CHAIN = "c0ffee"
NOON = 1_764_072_000_000  # 2025-11-25T12:00:00Z


def record(offset: int, value: bytes | str | None = "", *, timestamp: int = NOON) -> Record:
    """A record with key and headers; without a value given it is a small JSON object that names its offset."""
    made = b'{"n":%d}' % offset if value == "" else value
    return Record(
        offset=offset,
        timestamp=timestamp + offset,
        key=b"key-%d" % offset,
        value=made.encode() if isinstance(made, str) else made,
        headers=(("ce_id", b"%d" % offset),),
    )


def layout_for(
    keys: KeyTemplate,
    *,
    compression: str = "gzip",
    record_format: str = "value",
    origins: Mapping[int, int] | None = None,
    topic_id: str | None = "topic-1",
    cluster_id: str | None = "cluster-1",
) -> Layout:
    return Layout(
        version=1,
        chain_id=CHAIN,
        topic=keys.topic,
        topic_id=topic_id,
        cluster_id=cluster_id,
        template=keys.template,
        ext=keys.ext,
        format=record_format,
        compression=compression,
        origins={str(partition): origin for partition, origin in (origins or {}).items()},
    )


@dataclass(frozen=True, slots=True)
class Made:
    """One object of a chain and its quarantine, as they would be put."""

    metadata: ObjectMetadata
    main: Upload
    quarantine: Upload | None

    @property
    def uploads(self) -> list[Upload]:
        return [self.main] if self.quarantine is None else [self.quarantine, self.main]


@dataclass(slots=True)
class Planter:
    """Makes objects of one layout. `made` has them all, by partition and start."""

    ground: Ground
    made: dict[tuple[int, int], Made] = field(default_factory=dict)

    def object(
        self,
        records: Sequence[Record],
        *,
        partition: int = 0,
        start: int | None = None,
        next_offset: int | None = None,
        lost: int = 0,
        chain_id: str = CHAIN,
    ) -> Made:
        layout, keys = self.ground.layout, self.ground.keys
        start = records[0].offset if start is None else start
        next_offset = records[-1].offset + 1 if next_offset is None else next_offset
        builder = BodyBuilder(record_format=layout.format, codec=codec(layout.compression))
        builder.add(run(FakeBatch(tuple(records), next_offset)), 0, len(records))
        body = builder.finish()
        quarantine, name = None, ""
        if body.quarantine is not None:
            name = keys.quarantine_name(
                partition=partition, start=start, next_offset=next_offset, sha256=body.quarantine.sha256
            )
            quarantine = Upload(
                key=keys.quarantine_prefix + name,
                body=body.quarantine.body,
                crc32=body.quarantine.crc32,
                content_type=CONTENT_TYPES["jsonl.gz"],
                metadata={},
            )
        metadata = ObjectMetadata(
            chain_id=chain_id,
            topic=layout.topic,
            partition=partition,
            start_offset=start,
            next_offset=next_offset,
            record_count=body.record_count,
            quarantined_count=body.quarantined_count,
            quarantine=name,
            lost_count=lost,
            first_timestamp=records[0].timestamp,
            max_timestamp=max(r.timestamp for r in records),
            sha256=body.sha256,
            writer="planter",
        )
        main = Upload(
            key=keys.render(partition=partition, start=start, timestamp=records[0].timestamp),
            body=body.content,
            crc32=body.crc32,
            content_type=CONTENT_TYPES[keys.ext],
            metadata=metadata.encode(),
        )
        made = Made(metadata, main, quarantine)
        self.made[partition, start] = made
        return made
