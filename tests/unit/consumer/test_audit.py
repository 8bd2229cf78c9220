"""What `verify` finds: the whole audit on a bucket and a topic in memory, damage planted one kind at a time."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer import inspector
from consumer.audit import Ground, Link
from consumer.auditor import Auditor
from consumer.chain_audit import audit_partition
from consumer.codecs import codec
from consumer.decoder import MAX_OUTPUT_BYTES, BodyError, LineSplitter, Tally, body_decoder
from consumer.findings import Findings, Kind, as_json, as_text
from consumer.ports import Committed, Failure, Fetched, LogRange, Record, SourceError
from consumer.progress import ProgressBar
from consumer.quarantine_audit import QuarantineAudit
from consumer.reconciliation import Reconciliation
from consumer.settings import Settings
from consumer.verify import ends_csv, save_ends
from shared.schemas import Envelope, encode_envelope, sign_offset
from shared.settings import SettingsError, load
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.fakes.store import Asked, Call, Fail, FakeStore
from tests.planting import CHAIN, NOON, Made, Planter, layout_for, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from consumer.log_reader import LogReader

SETTINGS = {"S3_BUCKET": "bucket", "S3_PREFIX": "data", "KAFKA_GROUP_ID": "group"}


class Quiet:
    """Progress that nobody sees."""

    def expect(self, offsets: int, *, what: str) -> None: ...
    def advance(self, offsets: int, body_bytes: int) -> None: ...


class FakeReader:
    """LogReader over the log in memory."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._partition = -1
        self._position = -1

    def seek(self, partition: int, offset: int) -> None:
        self._partition, self._position = partition, offset

    async def next_before(self, end: int) -> Sequence[Record]:
        while self._position < end:
            read = self._log.read(self._partition, self._position, 1)
            if not isinstance(read, Fetched):
                raise SourceError("nothing there")
            records = [batch.record(i) for batch in read.batches for i in range(len(batch.values))]
            below = [r for r in records if r.offset < end]
            self._position = read.next_offset if len(below) == len(records) else end
            if below:
                return below
        return ()


@dataclass
class World:
    """Three objects of partition 0, committed and no lag; partition 1 empty."""

    environ: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    origins: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = load(Settings, self.environ)
        self.keys = self.settings.keys
        self.layout = layout_for(
            self.keys,
            compression=self.settings.compression,
            record_format=self.settings.record_format,
            origins=self.origins,
        )
        self.planter = Planter(Ground(layout=self.layout, keys=self.keys))
        self.log = FakeLog(2)
        self.group = FakeGroup(self.log)
        self.store = FakeStore()
        self.store.place(self.keys.layout_key, self.layout.encode())

    def grow(self, *values: bytes | None, partition: int = 0, gap: int = 0) -> Made:
        """Records in the log, an object of them, and its commit."""
        start = self.log.range(partition).high_watermark
        records = [record(start + gap + i, "" if value == b"" else value) for i, value in enumerate(values)]
        self.log.append_records(partition, records)
        made = self.planter.object(records, partition=partition, start=start)
        self.put(made)
        self.commit(made.metadata.next_offset, partition)
        return made

    def put(self, made: Made) -> None:
        for upload in made.uploads:
            self.store.place(upload.key, upload.body, upload.metadata)

    def commit(self, offset: int, partition: int = 0, *, signed_by: str | None = CHAIN) -> None:
        metadata = sign_offset(signed_by, offset) if signed_by else ""
        self.group.offsets[partition] = Committed(offset=offset, metadata=metadata)

    def change(self, made: Made, *, body: bytes | None = None, **metadata: str) -> None:
        key = made.main.key
        names = {name.replace("_", "-"): text for name, text in metadata.items()}
        there = self.store.objects[key]
        self.store.place(key, there.body if body is None else body, {**there.metadata, **names})

    async def audit(self, *, deep: bool = False, alone: bool = False) -> Findings:
        @asynccontextmanager
        async def open_reader() -> AsyncIterator[LogReader]:
            yield cast("LogReader", FakeReader(self.log))

        return await Auditor(
            self.settings,
            kafka=FakeSource(self.group),
            store=self.store,
            progress=Quiet(),
            open_reader=open_reader if deep else None,
            alone=alone,
        ).run()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> list[Made]:
    return [world.grow(b"", b""), world.grow(b"", b"not json", None), world.grow(b"", b"", b"")]


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "delay_seconds", lambda failure, attempt: 0.0)


def told(findings: Findings) -> list[tuple[Kind, int | None, int | None, int | None]]:
    return [(f.kind, f.partition, f.start_offset, f.next_offset) for f in findings.faults]


async def test_a_whole_chain_is_clean(world: World, chain: list[Made]) -> None:
    findings = await world.audit(deep=True)
    assert findings.faults == ()
    assert findings.notes == ()
    row = findings.partitions[0]
    assert (row.objects, row.records, row.quarantined, row.chain_end, row.committed, row.lag) == (3, 6, 2, 8, 8, 0)
    assert findings.partitions[1].objects == 0
    assert findings.compared is not None
    assert (findings.compared.objects, findings.compared.records, findings.compared.quarantined) == (3, 6, 2)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("record_format", ["value", "envelope"])
async def test_every_codec_and_format_is_read(compression: str, record_format: str) -> None:
    world = World({**SETTINGS, "COMPRESSION": compression, "RECORD_FORMAT": record_format})
    made = world.grow(b"", b"not json", None, b'{"a":\n1}')
    assert (await world.audit(deep=True)).faults == ()
    body = gzip.compress(b"x\n") if compression == "gzip" else b"x\n"
    world.change(made, body=body)
    assert Kind.BODY in {fault.kind for fault in (await world.audit(deep=True)).faults}


async def test_a_lag_is_no_fault(world: World, chain: list[Made]) -> None:
    world.log.append(0, [b"1", b"2"])
    findings = await world.audit(deep=True)
    assert findings.clean
    assert findings.partitions[0].lag == 2


async def test_a_deleted_object_in_the_middle_is_a_gap(world: World, chain: list[Made]) -> None:
    del world.store.objects[chain[1].main.key]
    findings = await world.audit()
    assert told(findings) == [(Kind.GAP, 0, 2, 5)]
    assert findings.faults[0].key == chain[2].main.key
    assert chain[0].main.key in findings.faults[0].what
    assert findings.orphaned_quarantines == 1


async def test_a_deleted_object_at_the_end_leaves_the_commit_beyond_the_chain(world: World, chain: list[Made]) -> None:
    del world.store.objects[chain[2].main.key]
    findings = await world.audit()
    assert told(findings) == [(Kind.COMMIT, 0, 8, None)]
    assert "beyond the chain's end 5" in findings.faults[0].what


async def test_all_objects_deleted_leave_the_commit_beyond_the_chain(world: World, chain: list[Made]) -> None:
    for made in chain:
        del world.store.objects[made.main.key]
    assert told(await world.audit()) == [(Kind.COMMIT, 0, 8, None)]


async def test_objects_missing_at_the_beginning_are_expired(world: World, chain: list[Made]) -> None:
    del world.store.objects[chain[0].main.key]
    world.log.move_start(0, 2)
    findings = await world.audit(deep=True)
    assert findings.faults == ()
    assert findings.notes == ()
    assert findings.partitions[0].expired == 2


async def test_expired_records_that_the_log_still_has_are_a_note_and_in_depth_a_fault(
    world: World, chain: list[Made]
) -> None:
    del world.store.objects[chain[0].main.key]
    findings = await world.audit()
    assert findings.clean
    assert findings.partitions[0].expired == 2
    assert "the log still has offsets from 0 on" in findings.notes[0]
    assert told(await world.audit(deep=True)) == [(Kind.RECORD, 0, 0, 2)]


async def test_a_chain_that_expired_whole_ends_where_it_was_committed(world: World, chain: list[Made]) -> None:
    for made in chain:
        del world.store.objects[made.main.key]
    world.log.move_start(0, 8)
    findings = await world.audit(deep=True)
    assert findings.clean
    assert (findings.partitions[0].expired, findings.partitions[0].chain_end) == (8, 8)
    assert ends_csv(findings).startswith("task,0,8\n")


async def test_a_truncated_body_is_found(world: World, chain: list[Made]) -> None:
    world.change(chain[0], body=chain[0].main.body[:-5])
    findings = await world.audit()
    assert told(findings) == [(Kind.BODY, 0, 0, 2)]
    assert findings.faults[0].key == chain[0].main.key
    assert "breaks off" in findings.faults[0].what


async def test_bytes_behind_the_end_of_a_body_are_found(world: World, chain: list[Made]) -> None:
    world.change(chain[0], body=chain[0].main.body + chain[0].main.body)
    assert "follow the end" in (await world.audit()).faults[0].what


async def test_a_changed_line_is_found_by_its_hash_and_in_depth_by_its_offset(world: World, chain: list[Made]) -> None:
    lines = gzip.decompress(chain[2].main.body).replace(b'{"n":6}', b'{"n":9}')
    world.change(chain[2], body=gzip.compress(lines))
    findings = await world.audit(deep=True)
    assert told(findings) == [(Kind.BODY, 0, 5, 8), (Kind.RECORD, 0, 5, 8)]
    assert "sha256" in findings.faults[0].what
    assert findings.faults[1].what.startswith("offset 6: line 2")


async def test_a_change_with_a_matching_hash_is_found_in_depth(world: World) -> None:
    made = world.grow(b"", b"", b"")
    forged = world.planter.object([record(0), record(1, b'"forged"'), record(2)])
    world.put(forged)
    assert forged.main.key == made.main.key
    assert (await world.audit()).clean
    assert [f.what.split(":")[0] for f in (await world.audit(deep=True)).faults] == ["offset 1"]


async def test_a_record_left_out_and_one_too_many_are_found_in_depth(world: World) -> None:
    first, second = world.grow(b"", b"", b""), world.grow(b"", b"")
    world.put(world.planter.object([record(0), record(2)], start=0, next_offset=3))
    forged = world.planter.object([record(3), record(3), record(4)], start=3, next_offset=5)
    world.store.place(second.main.key, forged.main.body, {**forged.main.metadata, "lost-count": "0"})
    assert first.main.key in world.store.objects
    findings = await world.audit(deep=True)
    texts = " ".join(fault.what for fault in findings.faults)
    assert "the topic's record is not stored" in texts
    assert "do not fit into 2 offsets" in texts


async def test_two_overlapping_objects_are_found(world: World, chain: list[Made]) -> None:
    double = world.planter.object([record(4), record(5)])
    world.put(double)
    findings = await world.audit()
    assert told(findings) == [(Kind.OVERLAP, 0, 4, 5), (Kind.OVERLAP, 0, 5, 6)]
    assert double.main.key in (findings.faults[0].key or "")
    assert chain[1].main.key in findings.faults[0].what


async def test_an_object_put_twice_under_two_hours_is_an_overlap(world: World, chain: list[Made]) -> None:
    moved = [record(0, timestamp=NOON + 3_600_000), record(1)]
    world.put(world.planter.object(moved))
    assert told(await world.audit()) == [(Kind.OVERLAP, 0, 0, 2)]


async def test_an_object_before_the_origin_is_found() -> None:
    world = World(origins={0: 1})
    world.grow(b"", b"")
    assert told(await world.audit()) == [(Kind.OVERLAP, 0, 0, 1)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("chain_id", "other", Kind.FOREIGN),
        ("topic", "other", Kind.FOREIGN),
        ("partition", "1", Kind.FOREIGN),
        ("start_offset", "1", Kind.FOREIGN),
        ("next_offset", "0", Kind.FOREIGN),
        ("ticklake_version", "2", Kind.FOREIGN),
        ("record_count", "x", Kind.FOREIGN),
        ("record_count", "3", Kind.METADATA),
        ("record_count", "1", Kind.BODY),
        ("sha256", "0" * 64, Kind.BODY),
        ("first_timestamp", str(NOON + 7_200_000), Kind.METADATA),
        ("lost_count", "-1", Kind.METADATA),
        ("quarantined_count", "1", Kind.METADATA),
        ("quarantine", "a", Kind.METADATA),
    ],
)
async def test_metadata_that_are_not_right_are_found(world: World, name: str, value: str, kind: Kind) -> None:
    made = world.grow(b"", b"")
    world.change(made, body=None, **{name: value})
    fault = next(fault for fault in (await world.audit()).faults if fault.key == made.main.key)
    assert (fault.kind, fault.partition, fault.start_offset) == (kind, 0, 0)


async def test_a_foreign_object_is_named_and_other_keys_are_left_alone(world: World, chain: list[Made]) -> None:
    key = world.keys.render(partition=1, start=0, timestamp=NOON)
    world.store.place(key, b"hello", {})
    world.store.place(world.keys.listing_prefix + "README.txt", b"hello", {})
    findings = await world.audit()
    assert told(findings) == [(Kind.FOREIGN, 1, 0, None)]
    assert findings.faults[0].key == key
    assert findings.other_keys == 1


@pytest.mark.parametrize(("start", "fault"), [(0, False), (2, False), (3, True), (5, False), (7, True), (8, False)])
async def test_an_orphaned_quarantine_object_is_named_and_a_fault_only_where_no_writer_can_have_stood(
    world: World, chain: list[Made], start: int, fault: bool
) -> None:
    orphan = world.planter.object([record(start, b"not json")], start=start, next_offset=9).quarantine
    assert orphan is not None
    world.store.place(orphan.key, orphan.body)
    findings = await world.audit()
    assert told(findings) == ([(Kind.QUARANTINE, 0, start, 9)] if fault else [])
    assert findings.orphaned_quarantines == 1
    (line,) = [line for line in as_text(findings).splitlines() if orphan.key in line]
    assert f"partition 0, offsets [{start}, 9)" in line


async def test_many_orphans_are_counted_and_the_first_named(world: World, chain: list[Made]) -> None:
    for number in range(30):
        world.store.place(f"{world.keys.quarantine_prefix}{number}.txt", b"")
    findings = await world.audit()
    assert findings.clean
    assert findings.orphaned_quarantines == 30
    assert len(findings.notes) == 20


def quarantine_of(made: Made) -> str:
    assert made.quarantine is not None
    return made.quarantine.key


def _delete(world: World, key: str) -> None:
    del world.store.objects[key]


def _truncate(world: World, key: str) -> None:
    world.store.place(key, world.store.objects[key].body[:-4])


def _drop_line(world: World, key: str) -> None:
    lines = gzip.decompress(world.store.objects[key].body).splitlines(keepends=True)
    world.store.place(key, gzip.compress(b"".join(lines[1:])))


@pytest.mark.parametrize(
    ("damage", "says"), [(_delete, "is missing"), (_truncate, "breaks off"), (_drop_line, "belong to the name")]
)
async def test_a_damaged_quarantine_object_is_found(
    world: World, chain: list[Made], damage: Callable[[World, str], None], says: str
) -> None:
    key = quarantine_of(chain[1])
    damage(world, key)
    findings = await world.audit()
    assert told(findings) == [(Kind.QUARANTINE, 0, 2, 5)]
    assert findings.faults[0].key == key
    assert says in findings.faults[0].what
    assert chain[1].main.key in findings.faults[0].what


async def test_a_quarantine_object_of_another_range_is_found(world: World) -> None:
    made = world.grow(b"not json", b"")
    outside = world.planter.object([record(7, b"no")], start=0, next_offset=2)
    assert outside.quarantine is not None
    world.store.place(outside.quarantine.key, outside.quarantine.body)
    world.change(made, quarantine=outside.quarantine.key.removeprefix(world.keys.quarantine_prefix))
    findings = await world.audit()
    assert told(findings) == [(Kind.QUARANTINE, 0, 0, 2)]
    assert "offset 7: not in order" in findings.faults[0].what


async def test_a_quarantined_record_that_differs_from_the_topics_is_found_in_depth(world: World) -> None:
    world.grow(b"not json", b"")
    world.put(world.planter.object([record(0, b"not that"), record(1)]))
    key = world.planter.made[0, 0].main.key
    assert (await world.audit()).clean
    faults = (await world.audit(deep=True)).faults
    assert [(f.kind, f.key) for f in faults] == [(Kind.RECORD, key)]
    assert faults[0].what.startswith("offset 0: the quarantined record differs")


@pytest.mark.parametrize(
    ("offset", "signed_by", "kind"),
    [
        (9, CHAIN, Kind.COMMIT),
        (9, None, Kind.UNSIGNED_COMMIT),
        (3, CHAIN, Kind.COMMIT),
        (3, None, Kind.UNSIGNED_COMMIT),
        (5, CHAIN, None),
        (5, None, Kind.UNSIGNED_COMMIT),
        (8, None, None),
        (0, CHAIN, None),
        (9, "other", None),
    ],
)
async def test_a_committed_offset_of_ours_is_a_boundary_and_an_unsigned_one_the_end(
    world: World, chain: list[Made], offset: int, signed_by: str | None, kind: Kind | None
) -> None:
    world.log.append(0, [b"1", b"2"])
    world.commit(offset, signed_by=signed_by)
    findings = await world.audit()
    assert told(findings) == ([(kind, 0, offset, None)] if kind else [])
    assert bool(findings.notes) == (signed_by == "other")


def judged(committed: Committed | None, *links: Link, log: LogRange | None = None, origin: int = 10) -> list[Kind]:
    world = World(origins={0: origin})
    verdict = audit_partition(
        0,
        ground=world.planter.ground,
        links=links,
        committed=committed,
        log=log or LogRange(start=10, high_watermark=90),
    )
    return [fault.kind for fault in verdict.faults]


def link(start: int, end: int) -> Link:
    return Link(start=start, next_offset=end, records=end - start, quarantined=0, lost=0, first_timestamp=NOON)


def signed(offset: int, chain: str = CHAIN) -> Committed:
    return Committed(offset=offset, metadata=sign_offset(chain, offset))


def test_a_predecessors_offset_below_the_origin_is_in_order_and_one_of_ours_is_not() -> None:
    assert judged(Committed(offset=4, metadata="")) == []
    assert judged(signed(4)) == [Kind.COMMIT]


def test_an_old_commit_in_the_expired_part_is_in_order() -> None:
    assert judged(signed(15), link(20, 30)) == []
    assert judged(signed(25), link(20, 30)) == [Kind.COMMIT]


def test_a_chain_beyond_the_log_and_one_behind_it_are_faults() -> None:
    assert judged(None, link(10, 91)) == [Kind.LOG]
    assert judged(None, link(10, 20), log=LogRange(start=21, high_watermark=90)) == [Kind.LOSS]
    assert judged(None, link(10, 20), log=LogRange(start=20, high_watermark=90)) == []


def test_a_partition_that_the_topic_does_not_have_is_a_fault() -> None:
    world = World()
    verdict = audit_partition(7, ground=world.planter.ground, links=[link(0, 3)], committed=None, log=None)
    assert [fault.kind for fault in verdict.faults] == [Kind.LOG]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=12), st.data())
def test_whatever_object_is_missing_inside_is_a_gap_of_just_its_range(sizes: list[int], data: st.DataObject) -> None:
    links, start = [], 10
    for size in sizes:
        links.append(link(start, start + size))
        start += size
    log = LogRange(start=10, high_watermark=start)
    assert judged(signed(start), *links, log=log) == []
    index = data.draw(st.integers(1, len(links) - 1))
    missing = links.pop(index)
    world = World(origins={0: 10})
    verdict = audit_partition(0, ground=world.planter.ground, links=links, committed=None, log=log)
    if index == len(links):
        assert verdict.faults == ()
        assert verdict.findings.chain_end == missing.start
    else:
        assert [(f.kind, f.start_offset, f.next_offset) for f in verdict.faults] == [
            (Kind.GAP, missing.start, missing.next_offset)
        ]


# ---- beside live consumers, and when requests fail ------------------------------------------------------------------


async def test_objects_put_behind_the_listings_back_are_no_gap(world: World, chain: list[Made]) -> None:
    """The listing has passed hour 12 when an object comes there, and its successor in hour 13 ahead of it."""
    world.store.page_size = 1
    world.grow(b"", partition=1)
    world.grow(b"", partition=1)
    late = world.grow(b"", b"")
    hidden = world.store.objects.pop(late.main.key)
    next_hour = [record(10, timestamp=NOON + 3_600_000)]
    world.log.append_records(0, next_hour)
    world.commit(8)
    pages = 0

    async def meanwhile(asked: Asked) -> None:
        nonlocal pages
        if asked.call is Call.LIST and asked.key == world.keys.listing_prefix:
            pages += 1
            if pages == 5:  # hour 12 of partition 0 has been told, and the first object of partition 1
                world.store.objects[late.main.key] = hidden
                world.put(world.planter.object(next_hour))
                world.commit(11)

    world.store.before = meanwhile
    findings = await world.audit()
    assert findings.faults == ()
    assert findings.partitions[0].chain_end == 11
    assert findings.partitions[0].committed == 8


async def test_the_end_of_a_busy_chain_is_not_chased(world: World, chain: list[Made]) -> None:
    """With each page of the listing another object comes; only what was in the log at the beginning is looked at."""
    world.store.page_size = 1
    pages = 0

    async def meanwhile(asked: Asked) -> None:
        nonlocal pages
        if asked.call is Call.LIST and asked.key == world.keys.listing_prefix and pages < 30:
            pages += 1
            world.grow(b"")

    world.store.before = meanwhile
    findings = await world.audit(deep=True)
    assert findings.clean
    assert (findings.partitions[0].chain_end, findings.partitions[0].lag) == (8, 30)
    assert len(world.store.asked(Call.READ)) == 2 * 4  # three bodies and a quarantine, twice


async def test_an_object_beyond_the_logs_end_is_found(world: World, chain: list[Made]) -> None:
    world.store.place(world.keys.render(partition=0, start=99, timestamp=NOON), b"", {})
    world.put(world.planter.object([record(100)]))
    assert told(await world.audit()) == [(Kind.GAP, 0, 8, 100), (Kind.LOG, 0, 8, 101), (Kind.FOREIGN, 0, 99, None)]


async def test_an_object_that_expires_while_it_is_looked_at_is_left_out(world: World, chain: list[Made]) -> None:
    async def meanwhile(asked: Asked) -> None:
        if asked.call is Call.READ and asked.key == chain[0].main.key:
            world.store.objects.pop(asked.key, None)

    world.store.before = meanwhile
    world.log.move_start(0, 2)
    findings = await world.audit()
    assert findings.clean
    assert findings.partitions[0].expired == 2


async def test_requests_that_fail_for_a_while_are_asked_again(world: World, chain: list[Made]) -> None:
    for call in (Call.HEAD, Call.LIST, Call.GET):
        world.store.script(call, Fail(), Fail(failure=Failure.CREDENTIALS))
    world.store.script(Call.READ, Fail(), Fail(after_effect=True))
    assert (await world.audit(deep=True)).clean


@pytest.mark.parametrize("call", [Call.HEAD, Call.LIST, Call.GET, Call.READ])
async def test_requests_that_keep_failing_end_the_audit_with_what_and_where(
    world: World, chain: list[Made], call: Call
) -> None:
    world.store.plan = lambda asked: Fail() if asked.call is call else None
    findings = await world.audit()
    assert not findings.complete
    assert findings.faults[-1].kind is Kind.INCOMPLETE
    assert "data/" in findings.faults[-1].what


async def test_a_body_that_may_not_be_read_is_a_fault_of_its_object(world: World, chain: list[Made]) -> None:
    world.store.plan = lambda asked: (
        Fail(failure=Failure.REFUSED, reason="InvalidObjectState: archived")
        if asked.key == chain[0].main.key and asked.call is Call.READ
        else None
    )
    findings = await world.audit(deep=False)
    assert told(findings) == [(Kind.BODY, 0, 0, 2)]
    assert "archived" in findings.faults[0].what


async def test_without_a_layout_nothing_can_be_audited(world: World) -> None:
    del world.store.objects[world.keys.layout_key]
    findings = await world.audit()
    assert [fault.kind for fault in findings.faults] == [Kind.INCOMPLETE]
    assert world.keys.layout_key in findings.faults[0].what
    assert "not finished" in as_text(findings)


async def test_settings_that_the_layout_contradicts_are_a_settings_error(world: World) -> None:
    world.settings = load(Settings, {**SETTINGS, "RECORD_FORMAT": "envelope", "COMPRESSION": "zstd"})
    with pytest.raises(SettingsError, match="RECORD_FORMAT: 'envelope' here"):
        await world.audit()


async def test_what_left_the_log_is_not_compared_and_counted(world: World, chain: list[Made]) -> None:
    world.log.move_start(0, 3)
    findings = await world.audit(deep=True)
    assert findings.clean
    compared = findings.compared
    assert compared is not None
    assert (compared.objects, compared.records, compared.objects_beyond_log, compared.records_beyond_log) == (
        1,
        3,
        2,
        5,
    )


async def test_a_compacted_log_proves_what_it_still_has() -> None:
    world = World({**SETTINGS, "S3_KEY_TEMPLATE": "{topic}/{partition}-{start}.{ext}"})
    world.log.compacted = True
    made = world.grow(b"", b"", b"", b"no json", b"")
    world.log.compact(0, [0, 2, 3])
    assert (await world.audit(deep=True)).clean
    world.change(made, body=gzip.compress(gzip.decompress(made.main.body).replace(b'"n":4', b'"n":5')))
    assert Kind.RECORD in {fault.kind for fault in (await world.audit(deep=True)).faults}


async def test_gaps_and_aborted_records_of_the_log_are_inside_the_ranges(world: World) -> None:
    world.grow(b"", b"", gap=3)
    world.log.append_hidden(0, 2)
    world.log.append_records(0, [record(7), record(8)])
    world.put(world.planter.object([record(7), record(8)], start=5, next_offset=9))
    assert (await world.audit(deep=True)).clean


# ---- one object's lines and bytes -----------------------------------------------------------------------------------


def reconciled(
    lines: list[bytes],
    records: list[Record],
    quarantined: dict[int, Envelope] | None = None,
    *,
    compacted: bool = False,
) -> list[str]:
    matching = Reconciliation(record_format="value", quarantined=quarantined or {}, compacted=compacted)
    matching.add_records(records[:1])
    matching.add_lines(lines)
    matching.add_records(records[1:])
    matching.finish()
    return [f"{offset}: {what}" for offset, what in matching.faults]


def envelope_of(offset: int) -> Envelope:
    one = record(offset)
    return Envelope(offset=offset, timestamp=one.timestamp, key=one.key, headers=list(one.headers), value=one.value)


def test_lines_without_a_record_are_found_unless_the_log_is_compacted() -> None:
    lines = [b'{"n":0}', b'{"n":1}']
    assert reconciled(lines, [record(0), record(1)]) == []
    assert reconciled(lines, [record(0)]) == ["None: 1 lines, the first is line 2, are no records of the topic"]
    assert reconciled(lines, [record(1)], compacted=True) == []
    assert reconciled(lines, [record(0)], compacted=True) == []


def test_quarantined_records_that_the_topic_does_not_have_are_found_unless_it_is_compacted() -> None:
    quarantined = {1: envelope_of(1)}
    assert reconciled([b'{"n":0}'], [record(0), record(1)], quarantined) == []
    assert reconciled([b'{"n":0}'], [record(0)], quarantined)[0].startswith("1: quarantined at 1, but")
    assert reconciled([b'{"n":0}'], [record(0)], quarantined, compacted=True) == []


def test_a_record_that_is_no_line_and_not_quarantined_is_found() -> None:
    assert reconciled([b'{"n":0}'], [record(0), record(1, None)]) == [
        "1: the record cannot be a line (tombstone), yet it is not quarantined"
    ]


def test_after_a_shift_only_the_first_differences_are_told() -> None:
    faults = reconciled([b'{"n":%d}' % n for n in range(1, 20)], [record(n) for n in range(20)])
    assert len(faults) == 6
    assert faults[0].startswith("0: line 1 is")
    assert faults[-1] == "None: 15 more differences in this object"


async def test_a_count_of_quarantined_records_that_is_not_the_objects_is_found(world: World) -> None:
    made = world.grow(b"", b"not json", b"", b"")
    world.change(made, body=None, quarantined_count="2", record_count="2")
    assert {fault.kind for fault in (await world.audit()).faults} == {Kind.BODY, Kind.QUARANTINE}


def test_a_quarantine_line_needs_a_reason(world: World) -> None:
    made = world.grow(b"", b"not json")
    audit = QuarantineAudit(made.metadata)
    line = encode_envelope(offset=1, timestamp=0, key=None, headers=(), value=b"not json")
    assert audit.add(line) is not None
    assert audit.fault == "line 1 (offset 1) has no reason"


async def test_a_listing_that_breaks_off_tells_no_key_twice(world: World, chain: list[Made]) -> None:
    world.store.page_size = 1
    broken = 0

    def plan(asked: Asked) -> Fail | None:
        nonlocal broken
        broken += asked.call is Call.LIST
        return Fail() if asked.call is Call.LIST and broken == 3 else None

    world.store.plan = plan
    findings = await world.audit()
    assert findings.clean
    assert findings.partitions[0].objects == 3


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_body_comes_back_whole_in_pieces_of_any_size(compression: str) -> None:
    lines = b"".join(b'{"n":%d}\n' % n for n in range(500)) + b"x" * (5 * MAX_OUTPUT_BYTES) + b"\n"
    stream = codec(compression).start()
    body = stream.compress(lines) + stream.flush()
    for size in (997, len(body)):
        decoder = body_decoder(compression)
        pieces = [out for at in range(0, len(body), size) for out in decoder.add(body[at : at + size])]
        decoder.finish()
        assert b"".join(pieces) == lines
        assert compression != "gzip" or max(map(len, pieces)) <= MAX_OUTPUT_BYTES


@given(st.lists(st.binary(max_size=8), max_size=8), st.integers(1, 9))
def test_lines_come_back_whatever_the_pieces(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    splitter, tally, found = LineSplitter(), Tally(), list[bytes]()
    for at in range(0, len(data), size):
        found += splitter.add(data[at : at + size])
        tally.add(data[at : at + size])
    assert found == lines
    assert tally.finish().lines == len(lines)


def test_a_last_line_without_newline_is_no_whole_body() -> None:
    tally = Tally()
    tally.add(b"a\nb")
    with pytest.raises(BodyError, match="newline"):
        tally.finish()


def test_progress_is_a_bar_on_a_terminal_and_nothing_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    at = [0.0]
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with ProgressBar(stream, clock=lambda: at[0]) as bar:
            bar.expect(100, what="checked")
            at[0] += 2.0
            bar.advance(50, 3_000_000)
            bar.advance(10, 0)  # too soon to be drawn
    assert file.getvalue() == ""
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert drawn == ["", "[###############...............]  50%  1 objects checked, 0/s, 3 MB", ""]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (54, "[########........]  50%  1 objects checked, 0/s, 3 MB"),
        (47, " 50%  1 objects checked, 0/s, 3 MB"),
        (20, " 50%  1 objects che"),
    ],
)
def test_progress_never_wraps(columns: int, line: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    at = [0.0]
    terminal = Terminal()
    with ProgressBar(terminal, clock=lambda: at[0], columns=lambda: columns) as bar:
        bar.expect(100, what="checked")
        at[0] += 2.0
        bar.advance(50, 3_000_000)
    drawn = terminal.getvalue().split("\r\x1b[K")[1]
    assert drawn == line
    assert len(drawn) < columns


# ---- what is shown --------------------------------------------------------------------------------------------------


async def test_the_table_and_the_json_tell_the_same(world: World, chain: list[Made]) -> None:
    del world.store.objects[chain[1].main.key]
    findings = await world.audit(deep=True)
    text = as_text(findings)
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["0"])
    assert row == ["0", "0", "8", "8", "8", "0", "2", "5", "0", "0", "0"]
    assert f"FAULT gap, partition 0, offsets [2, 5), key {chain[2].main.key}: " in text
    assert text.endswith("1 fault\n")
    told_json = json.loads(as_json(findings))
    assert told_json["clean"] is False
    assert told_json["complete"] is True
    assert told_json["totals"] == {
        "lag": 0, "objects": 2, "records": 5, "quarantined": 0, "lost": 0, "expired": 0,
    }  # fmt: skip
    assert told_json["partitions"][0]["chain_end"] == 8
    assert told_json["faults"][0] == {
        "kind": "gap",
        "what": findings.faults[0].what,
        "partition": 0,
        "key": chain[2].main.key,
        "start_offset": 2,
        "next_offset": 5,
    }


async def test_ends_are_written_whole_and_the_same_twice(world: World, chain: list[Made], tmp_path: Path) -> None:
    ends = tmp_path / "ends.csv"
    for _ in range(2):
        findings = save_ends(await world.audit(alone=True), ends)
        assert findings.clean
        assert ends.read_bytes() == b"task,0,8\ntask,1,0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ends.csv"]


async def test_ends_are_refused_when_a_chain_has_faults(world: World, chain: list[Made], tmp_path: Path) -> None:
    del world.store.objects[chain[1].main.key]
    findings = save_ends(await world.audit(), tmp_path / "ends.csv")
    assert not findings.clean
    assert list(tmp_path.iterdir()) == []


async def test_ends_correct_offsets_that_somebody_else_set(world: World, chain: list[Made], tmp_path: Path) -> None:
    world.commit(7, signed_by=None)
    findings = save_ends(await world.audit(), tmp_path / "ends.csv")
    assert findings.clean
    assert (tmp_path / "ends.csv").read_text().startswith("task,0,8\n")


async def test_ends_need_a_group_without_members(world: World, chain: list[Made]) -> None:
    world.group.members.append(FakeSource(world.group))
    assert (await world.audit()).clean
    findings = await world.audit(alone=True)
    assert [fault.kind for fault in findings.faults] == [Kind.INCOMPLETE]
    assert "stop all consumers" in findings.faults[0].what


async def test_a_file_that_cannot_be_written_is_a_fault(world: World, chain: list[Made], tmp_path: Path) -> None:
    findings = save_ends(await world.audit(), tmp_path / "nowhere" / "ends.csv")
    assert [fault.kind for fault in findings.faults] == [Kind.INCOMPLETE]
