"""An oracle for exactly-once: what the topic holds against what the bucket holds, sharing no code with the consumer.

Owns: the verdict on chains, bodies, quarantine and commits, record by record. Does not own: how bodies and lines are
read (`oracle_reading`, `oracle_objects`, its own too), the use of the verdict (tests assert).

What it holds against the consumer (design §5, §6): per partition the objects form a chain from the origin, without gap
or overlap; each record of the topic in a range stands in its object as a line, in offset order, or in the quarantine
object that its object names, never in both, never twice, and in quarantine only what cannot be a line; counts, hashes,
timestamps, keys and content types say what is there; there is one layout.json; the group's offsets are boundaries of
the chain, signed by it; once it has settled, they are the chains' ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from demo import buckets
from tests import oracle_objects as objects
from tests import oracle_reading as reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.servers import S3, CommittedOffset, Kafka, KafkaRecord, StoredObject

COMMITS_SECONDS = 30.0
FAULTS_SHOWN = 3  # of one kind in one object; a lost object would name ten thousand records
PARTITION_AND_START = re.compile(r"(\d+)\D+(\d+)\.(?:jsonl|json)[^/]*$")


@dataclass(slots=True)
class Verdict:
    """Faults in words, with partition, offset and key; none = every record stands in the bucket exactly once.

    `records` are lines of main objects, `quarantined` those of named quarantine objects, `consumed` the topic's records
    in the chains' ranges: stored + quarantined = consumed (or there is a fault). `ends` by partition.
    """

    faults: list[str] = field(default_factory=list)
    records: int = 0
    quarantined: int = 0
    consumed: int = 0
    objects: int = 0
    body_bytes: int = 0
    orphans: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    spans: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def clean(self) -> bool:
        return not self.faults


async def judge(
    kafka: Kafka,
    s3: S3,
    *,
    topic: str,
    bucket: str,
    prefix: str = "",
    complete: bool = True,
    group: str | None = None,
    origins: Mapping[int, int] | None = None,
    earlier: Mapping[int, Sequence[KafkaRecord]] | None = None,
    settled: bool = False,
) -> Verdict:
    """Compare record by record what lies below `prefix` with the topic. Nothing may be writing.

    `complete` = the chains must reach the last record of the topic; else only what they cover is compared. `group` =
    its committed offsets are judged too: each a boundary of its chain; with `settled` (its members were seen to have
    committed all, or the last one was stopped alone and in order) the chain's end. A commit below is harmless, and
    right while members come and go: the last commit of one that stops in a rebalance may be refused. `origins` = where
    chains have to begin, 0 where nothing is said. `earlier` = records as read before the log lost them.
    """
    stored = await s3.objects(bucket, prefix)
    ours = f"{prefix}_ticklake/"
    court = _Court(
        main={key: found for key, found in stored.items() if not key.startswith(ours)},
        ours={key: found for key, found in stored.items() if key.startswith(ours)},
        prefix=prefix,
        topic=topic,
    )
    court.read_layout(origins or {})
    for partition, records in _merged(await kafka.read(topic), earlier or {}).items():
        court.judge_partition(partition, records, complete=complete)
        await asyncio.sleep(0)  # the harness's proxy and load share the loop
    court.judge_strangers()
    court.count_orphans()
    if group is not None:
        court.judge_commits(await _committed(kafka, group, topic, expected=bool(court.main)), settled=settled)
    return court.verdict


async def chain_ends(s3: S3, bucket: str, prefix: str = "") -> dict[int, int]:
    """Where each partition's chain ends, by the newest object of each; for templates with partition and start last."""
    newest: dict[int, tuple[int, str]] = {}
    for key in await s3.keys(bucket, prefix):
        found = PARTITION_AND_START.search(key)
        if found is not None and not key.startswith(f"{prefix}_ticklake/"):
            partition, start = int(found[1]), int(found[2])
            newest[partition] = max(newest.get(partition, (-1, "")), (start, key))
    ends: dict[int, int] = {}
    async with buckets.client(s3.access) as client:
        for partition, (_, key) in newest.items():
            answer = await client.head_object(Bucket=bucket, Key=key)
            ends[partition] = int(cast("Mapping[str, str]", answer["Metadata"])["next-offset"])
    return ends


def _merged(
    read: Mapping[int, Sequence[KafkaRecord]], earlier: Mapping[int, Sequence[KafkaRecord]]
) -> dict[int, list[KafkaRecord]]:
    merged = {}
    for partition in sorted({*read, *earlier}):
        by_offset = {record.offset: record for record in (*earlier.get(partition, ()), *read.get(partition, ()))}
        merged[partition] = [by_offset[offset] for offset in sorted(by_offset)]
    return merged


async def _committed(kafka: Kafka, group: str, topic: str, *, expected: bool) -> dict[int, CommittedOffset]:
    """The group's offsets. None at all is asked for again: a coordinator that loads answers like that."""
    deadline = time.monotonic() + COMMITS_SECONDS
    while True:
        found = await kafka.committed(group, topic)
        if found or not expected or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(1.0)


class _Court:
    """One judgement in the making."""

    def __init__(
        self,
        *,
        main: Mapping[str, StoredObject],
        ours: Mapping[str, StoredObject],
        prefix: str,
        topic: str,
    ) -> None:
        self.verdict = Verdict(objects=len(main), body_bytes=sum(len(stored.body) for stored in main.values()))
        self.main = main
        self._ours = ours
        self._prefix = prefix
        self._topic = topic
        self._layout: objects.Layout | None = None
        self._origins: Mapping[int, int] = {}
        self._named: set[str] = set()
        self._chains: dict[int, list[StoredObject]] = {}
        for stored in main.values():
            number = stored.metadata.get("partition", "")
            if number.isdigit():
                self._chains.setdefault(int(number), []).append(stored)
            else:
                self._fault(f"{stored.key} is no object of a chain: metadata {dict(stored.metadata)}")

    def _fault(self, text: str) -> None:
        self.verdict.faults.append(text)

    def read_layout(self, origins: Mapping[int, int]) -> None:
        self._origins = origins
        place = f"{self._prefix}_ticklake/{self._topic}/layout.json"
        for key in self._ours:
            if key.endswith("layout.json") and key != place:
                self._fault(f"there is a second layout: {key} beside {place}")
        layout = self._ours.get(place)
        if layout is None:
            if self.main:
                self._fault("there are objects, but no layout.json")
            return
        self._layout = objects.Layout(json.loads(layout.body))
        written = {partition: start for partition, start in self._layout.origins.items() if start}
        wanted = {partition: start for partition, start in origins.items() if start}
        if written != wanted:
            self._fault(f"layout.json has the origins {written}, they ought to be {wanted}")

    # ---- chains -----------------------------------------------------------------------------------------------------

    def judge_partition(self, partition: int, records: Sequence[KafkaRecord], *, complete: bool) -> None:
        end = self._origins.get(partition, 0)
        at = _first_at(records, 0, end)
        spans = self.verdict.spans.setdefault(partition, [])
        for stored in sorted(self._chains.get(partition, []), key=lambda found: int(found.metadata["start-offset"])):
            start, next_offset = int(stored.metadata["start-offset"]), int(stored.metadata["next-offset"])
            where = f"partition {partition} [{start}, {next_offset}) {stored.key}"
            if start != end:
                kind = "overlap" if start < end else "gap"
                self._fault(f"{where}: {kind}: it starts at {start}, the chain ended at {end}")
                at = _first_at(records, 0, start)
            if next_offset <= start:
                self._fault(f"{where}: an empty range")
            until = _first_at(records, at, next_offset)
            self._judge_object(where, stored, records[at:until])
            spans.append((start, next_offset))
            at, end = until, next_offset
        self.verdict.ends[partition] = end
        missing = [record.offset for record in records if record.offset >= end]
        if complete and missing:
            self._fault(
                f"partition {partition}: {len(missing)} records from {missing[0]} on are missing, chain ends at {end}"
            )

    def judge_strangers(self) -> None:
        """Chains of partitions that the topic does not have; after the last `judge_partition`."""
        for partition in sorted(set(self._chains) - set(self.verdict.spans)):
            keys = [stored.key for stored in self._chains[partition]]
            self._fault(f"partition {partition}: the topic has none, but {len(keys)} objects lie there: {keys[0]}")

    def _judge_object(self, where: str, stored: StoredObject, records: Sequence[KafkaRecord]) -> None:
        metadata = stored.metadata
        try:
            body = reading.uncompressed(stored.key, stored.body)
        except reading.DamageError as damage:
            self._fault(f"{where}: {damage}")
            return
        lines = body.split(b"\n")
        if lines.pop():
            self._fault(f"{where}: no newline at its end")
        aside = self._quarantine(where, metadata)
        self.verdict.records += len(lines)
        self.verdict.quarantined += len(aside)
        self.verdict.consumed += len(records)
        faults = objects.metadata_faults(stored, body=body, lines=len(lines), aside=len(aside), records=records)
        if self._layout is not None:
            faults += self._layout.faults(stored, prefix=self._prefix, topic=self._topic, records=records)
            faults += objects.line_faults(records, lines, aside, format_=self._layout.format)
        if len(lines) + len(aside) != len(records):
            told = f"stored {len(lines)} + quarantined {len(aside)} is not the {len(records)} records consumed"
            faults.insert(0, told)
        for fault in faults[:FAULTS_SHOWN]:
            self._fault(f"{where}: {fault}")
        if len(faults) > FAULTS_SHOWN:
            self._fault(f"{where}: and {len(faults) - FAULTS_SHOWN} faults more")

    # ---- quarantine -------------------------------------------------------------------------------------------------

    def _quarantine(self, where: str, metadata: Mapping[str, str]) -> dict[int, reading.Envelope]:
        """The records of the quarantine object that the main object names, by offset."""
        name = metadata.get("quarantine", "")
        counted = int(metadata["quarantined-count"])
        if not name:
            if counted:
                self._fault(f"{where}: counts {counted} quarantined records and names no object")
            return {}
        stored = next((found for key, found in self._ours.items() if key.endswith(f"/quarantine/{name}")), None)
        stored = stored or self._ours.get(f"{self._prefix}_ticklake/quarantine/{name}")
        if stored is None:
            self._fault(f"{where}: its quarantine object {name} is not there")
            return {}
        self._named.add(stored.key)
        try:
            body = reading.uncompressed(stored.key, stored.body)
            envelopes = [reading.envelope(line) for line in body.split(b"\n")[:-1]]
        except reading.DamageError as damage:
            self._fault(f"{where}: quarantine object {stored.key}: {damage}")
            return {}
        if hashlib.sha256(body).hexdigest()[:16] not in name:
            self._fault(f"{where}: quarantine object {stored.key} is not named by its content's hash")
        offsets = [found.offset for found in envelopes]
        if len(envelopes) != counted or offsets != sorted(set(offsets)):
            self._fault(f"{where}: counts {counted} quarantined records, {stored.key} holds the offsets {offsets[:20]}")
        if without := [found.offset for found in envelopes if found.reason is None]:
            self._fault(f"{where}: quarantine object {stored.key} gives no reason for {without[:20]}")
        return {found.offset: found for found in envelopes}

    def count_orphans(self) -> None:
        """Quarantine objects that no main object names: left by lost races, harmless."""
        there = {key for key in self._ours if "/quarantine/" in key}
        self.verdict.orphans = len(there - self._named)

    # ---- commits ----------------------------------------------------------------------------------------------------

    def judge_commits(self, committed: Mapping[int, CommittedOffset], *, settled: bool) -> None:
        if self._chains and not committed:
            self._fault("the group has committed nothing")
        elif settled:
            for partition in sorted(self._chains):
                found, end = committed.get(partition), self.verdict.ends.get(partition)
                if found is None or found.offset != end:
                    is_ = "nothing" if found is None else found.offset
                    self._fault(f"partition {partition}: the chain ends at {end}, committed is {is_}")
        for partition, found in sorted(committed.items()):
            self.verdict.committed[partition] = found.offset
            spans = self.verdict.spans.get(partition, [])
            boundaries = {self._origins.get(partition, 0)} | {next_offset for _, next_offset in spans}
            where = f"partition {partition}: committed offset {found.offset}"
            if found.offset not in boundaries:
                within = next((span for span in spans if span[0] < found.offset < span[1]), None)
                self._fault(f"{where} is no boundary of the chain: {f'inside {within}' if within else 'outside of it'}")
            chain_id = self._layout.chain_id if self._layout else "?"
            if found.metadata != f"ticklake:{chain_id}:{found.offset}":
                self._fault(f"{where} is signed {found.metadata!r}, not by chain {chain_id}")


def _first_at(records: Sequence[KafkaRecord], begin: int, offset: int) -> int:
    """The index of the first record at or after the offset."""
    low, high = begin, len(records)
    while low < high:
        middle = (low + high) // 2
        if records[middle].offset < offset:
            low = middle + 1
        else:
            high = middle
    return low
