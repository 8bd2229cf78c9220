"""An oracle for exactly-once: what the topic holds against what the bucket holds, sharing no code with the consumer.

Owns: its own reading of objects (gzip, metadata names as design §5 spells them) and of the topic (a stock aiokafka
consumer). Does not own: the verdict's use (tests assert).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers import S3, Kafka, StoredObject


@dataclass(slots=True)
class Verdict:
    """Faults by partition and offset, in words; none = every record of the topic stands in the bucket exactly once."""

    faults: list[str] = field(default_factory=list)
    records: int = 0
    objects: int = 0
    ends: dict[int, int] = field(default_factory=dict)

    def clean(self) -> bool:
        return not self.faults


async def judge(kafka: Kafka, s3: S3, *, topic: str, bucket: str, prefix: str = "", complete: bool = True) -> Verdict:
    """Compare record by record: order kept, none missing, none doubled, ranges without gap or overlap.

    `complete` = the chains must reach the last record of the topic; else only what they cover is compared.
    """
    verdict = Verdict()
    objects = {
        key: stored
        for key, stored in (await s3.objects(bucket, prefix)).items()
        if not key.startswith(f"{prefix}_ticklake/")
    }
    verdict.objects = len(objects)
    chains: dict[int, list[StoredObject]] = {}
    for stored in objects.values():
        chains.setdefault(int(stored.metadata["partition"]), []).append(stored)
    for partition, records in (await kafka.read(topic)).items():
        chain = sorted(chains.get(partition, []), key=lambda stored: int(stored.metadata["start-offset"]))
        end = 0
        lines: list[bytes] = []
        for stored in chain:
            start, next_offset = int(stored.metadata["start-offset"]), int(stored.metadata["next-offset"])
            if start != end:
                verdict.faults.append(
                    f"partition {partition}: {stored.key} starts at {start}, the chain ended at {end}"
                )
            body = gzip.decompress(stored.body) if stored.key.endswith(".gz") else stored.body
            found = body.split(b"\n")[:-1]
            if len(found) != int(stored.metadata["record-count"]):
                verdict.faults.append(f"partition {partition}: {stored.key} has {len(found)} lines, says otherwise")
            expected = [record.value for record in records if start <= record.offset < next_offset]
            if found != expected:
                verdict.faults.append(
                    f"partition {partition}: {stored.key} differs from the topic in [{start}, {next_offset})"
                )
            lines += found
            end = next_offset
        verdict.ends[partition] = end
        verdict.records += len(lines)
        missing = [record.offset for record in records if record.offset >= end]
        if complete and missing:
            verdict.faults.append(f"partition {partition}: {len(missing)} records from {missing[0]} on are missing")
    return verdict
