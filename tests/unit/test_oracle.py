"""The oracle finds what is planted, and names it; nothing where nothing is planted.

The objects come from the consumer's own encoder: that the oracle, which shares no code with it, accepts them says that
both read design §5 alike.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import zstandard

from consumer.audit import Ground
from consumer.keys import KeyTemplate
from consumer.settings import DEFAULT_TEMPLATE
from shared.schemas import LAYOUT_VERSION
from tests.oracle import Verdict, judge
from tests.oracle_reading import DamageError, envelope, json_text, may_be_line, uncompressed
from tests.planting import CHAIN, Planter, layout_for, record
from tests.servers import S3, CommittedOffset, Kafka, StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.ports import Record, Upload

TOPIC, GROUP = "prices", "group"
PRETTY = b'{\n  "price": 1.50,\r\n  "name": "\\u00e9"\n}'
ODD: Mapping[int, bytes | None] = {
    3: b"not json",
    4: None,
    5: b"",
    6: PRETTY,
    7: b"\xff\xfe",
    8: b"NaN",
    11: b'"\\ud800"',
    12: b"[" * 600 + b"]" * 600,
    13: b" 17 ",
    14: b"null",
}


def stored_as(upload: Upload) -> StoredObject:
    return StoredObject(
        key=upload.key, body=upload.body, metadata=dict(upload.metadata), content_type=upload.content_type
    )


@dataclass
class World:
    """A topic and a bucket as values, with the few questions the oracle asks of tests.servers' Kafka and S3."""

    topic: dict[int, list[Record]]
    bucket: dict[str, StoredObject] = field(default_factory=dict)
    offsets: dict[int, CommittedOffset] = field(default_factory=dict)

    async def read(self, topic: str) -> Mapping[int, Sequence[Record]]:
        return self.topic

    async def objects(self, bucket: str, prefix: str) -> Mapping[str, StoredObject]:
        return dict(sorted(self.bucket.items()))

    async def committed(self, group: str, topic: str) -> Mapping[int, CommittedOffset]:
        return self.offsets

    def key(self, partition: int, start: int) -> str:
        return next(key for key in self.bucket if f"{partition:05d}-{start:020d}.jsonl" in key)

    def change(self, partition: int, start: int, **metadata: str) -> None:
        key = self.key(partition, start)
        self.bucket[key] = replace(
            self.bucket[key],
            metadata={**self.bucket[key].metadata, **{n.replace("_", "-"): v for n, v in metadata.items()}},
        )

    def rewrite(self, partition: int, start: int, edit: Callable[[list[bytes]], list[bytes]]) -> None:
        """Change the lines of an object, so that hash and count fit: only the records are wrong then."""
        key = self.key(partition, start)
        lines = edit(gzip.decompress(self.bucket[key].body).split(b"\n")[:-1])
        body = b"".join(line + b"\n" for line in lines)
        self.bucket[key] = replace(self.bucket[key], body=gzip.compress(body))
        self.change(partition, start, sha256=hashlib.sha256(body).hexdigest(), record_count=str(len(lines)))

    async def verdict(
        self, *, complete: bool = True, settled: bool = False, origins: Mapping[int, int] | None = None
    ) -> Verdict:
        return await judge(
            cast("Kafka", self),
            cast("S3", self),
            topic=TOPIC,
            bucket="bucket",
            group=GROUP,
            complete=complete,
            settled=settled,
            origins=origins,
        )


def world(*, record_format: str = "value", compression: str = "gzip", start: int = 0) -> World:
    """Partition 0 with records of every kind, partition 1 with a gap in its offsets; three objects each."""
    ext = {"gzip": "jsonl.gz", "zstd": "jsonl.zst", "none": "jsonl"}[compression]
    keys = KeyTemplate(DEFAULT_TEMPLATE, prefix="", topic=TOPIC, ext=ext)
    layout = layout_for(keys, record_format=record_format, compression=compression, origins={0: start} if start else {})
    planter = Planter(Ground(layout=layout, keys=keys))
    topic = {
        0: [record(offset, ODD.get(offset, "")) for offset in range(start, 30)],
        1: [record(offset) for offset in range(30) if not 12 <= offset < 17],
    }
    made = World(topic)
    for partition, records in topic.items():
        for begin, end in ((start if partition == 0 else 0, 10), (10, 20), (20, 30)):
            within = [r for r in records if begin <= r.offset < end]
            one = planter.object(within, partition=partition, start=begin, next_offset=end)
            made.bucket.update({upload.key: stored_as(upload) for upload in one.uploads})
        made.offsets[partition] = CommittedOffset(offset=30, metadata=f"ticklake:{CHAIN}:30")
    layout_key = f"_ticklake/{TOPIC}/layout.json"
    made.bucket[layout_key] = StoredObject(
        key=layout_key, body=layout.encode(), metadata={}, content_type="application/json"
    )
    return made


@pytest.mark.parametrize("record_format", ["value", "envelope"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_what_the_consumer_writes_is_clean(record_format: str, compression: str) -> None:
    assert LAYOUT_VERSION == 1
    verdict = await world(record_format=record_format, compression=compression).verdict()
    assert verdict.faults == []
    assert verdict.records + verdict.quarantined == verdict.consumed == 55
    assert verdict.quarantined == (len(ODD) - 3 if record_format == "value" else 0)
    assert verdict.ends == {0: 30, 1: 30}
    assert verdict.objects == 6


async def test_a_chain_begins_at_its_origin() -> None:
    later = world(start=5)
    assert (await later.verdict(origins={0: 5})).faults == []
    assert any("origins" in fault for fault in (await later.verdict()).faults)


def remove(key: Callable[[World], str]) -> Callable[[World], None]:
    def plant(damaged: World) -> None:
        del damaged.bucket[key(damaged)]

    return plant


def drop(partition: int, start: int) -> Callable[[World], None]:
    return remove(lambda damaged: damaged.key(partition, start))


def rewrite(partition: int, start: int, edit: Callable[[list[bytes]], list[bytes]]) -> Callable[[World], None]:
    return lambda damaged: damaged.rewrite(partition, start, edit)


def change(partition: int, start: int, **metadata: str) -> Callable[[World], None]:
    return lambda damaged: damaged.change(partition, start, **metadata)


def commit(partition: int, offset: int, metadata: str | None = None) -> Callable[[World], None]:
    signed = f"ticklake:{CHAIN}:{offset}" if metadata is None else metadata

    def plant(damaged: World) -> None:
        damaged.offsets[partition] = CommittedOffset(offset=offset, metadata=signed)

    return plant


def overlap(damaged: World) -> None:
    """Another writer's object in the middle of one, with its records once more."""
    keys = KeyTemplate(DEFAULT_TEMPLATE, prefix="", topic=TOPIC, ext="jsonl.gz")
    planter = Planter(Ground(layout=layout_for(keys), keys=keys))
    for upload in planter.object([r for r in damaged.topic[1] if 5 <= r.offset < 10], partition=1).uploads:
        damaged.bucket[upload.key] = stored_as(upload)


def quarantine_key(damaged: World) -> str:
    return next(key for key in damaged.bucket if "/quarantine/00000-00000000000000000000" in key)


def change_quarantine(damaged: World) -> None:
    key = quarantine_key(damaged)
    body = gzip.decompress(damaged.bucket[key].body).replace(b"bm90IGpzb24=", b"bm90IEpTT04=")
    damaged.bucket[key] = replace(damaged.bucket[key], body=gzip.compress(body))


def shorten_quarantine(damaged: World) -> None:
    key = quarantine_key(damaged)
    lines = gzip.decompress(damaged.bucket[key].body).split(b"\n")[1:]
    damaged.bucket[key] = replace(damaged.bucket[key], body=gzip.compress(b"\n".join(lines)))


def poison_taken(damaged: World) -> None:
    """A consumer that takes everything for JSON."""
    damaged.topic[1][2] = record(2, b"oops")
    damaged.rewrite(1, 0, lambda lines: [*lines[:2], b"oops", *lines[3:]])


def truncate(damaged: World) -> None:
    key = damaged.key(1, 10)
    damaged.bucket[key] = replace(damaged.bucket[key], body=damaged.bucket[key].body[:-9])


def forget_partition(damaged: World) -> None:
    """The topic has one partition; objects and commit of a second are there."""
    del damaged.topic[1]


def second_layout(damaged: World) -> None:
    key = "_ticklake/other/layout.json"
    damaged.bucket[key] = replace(damaged.bucket[f"_ticklake/{TOPIC}/layout.json"], key=key)


def rename(damaged: World) -> None:
    stored = damaged.bucket.pop(damaged.key(1, 10))
    key = stored.key.replace("hour=12", "hour=13")
    damaged.bucket[key] = replace(stored, key=key)


DAMAGE: Mapping[str, tuple[Callable[[World], None], str]] = {
    "a record missing": (rewrite(1, 0, lambda lines: lines[:4] + lines[5:]), "offset 4: b'{\"n\":4}' is expected"),
    "the last record missing": (rewrite(1, 0, lambda lines: lines[:-1]), "offset 9 is missing"),
    "a record doubled": (rewrite(1, 0, lambda lines: [*lines[:5], lines[4], *lines[5:]]), "offset 5: b'{\"n\":5}'"),
    "the last record doubled": (rewrite(1, 0, lambda lines: [*lines, lines[-1]]), "a line too many"),
    "two records swapped": (rewrite(1, 0, lambda lines: [lines[1], lines[0], *lines[2:]]), "offset 0: b'{\"n\":0}'"),
    "a record changed": (rewrite(1, 20, lambda lines: [*lines[:-1], b"{}"]), "offset 29: b'{\"n\":29}' is expected"),
    "a number rounded": (
        rewrite(0, 0, lambda lines: [line.replace(b"1.50", b"1.5") for line in lines]),
        "offset 6: b'{\\n",
    ),
    "an object missing in the middle": (drop(1, 10), "gap: it starts at 20, the chain ended at 10"),
    "an object missing at the beginning": (drop(1, 0), "gap: it starts at 10, the chain ended at 0"),
    "an object missing at the end": (drop(1, 20), "10 records from 20 on are missing"),
    "an overlap": (overlap, "overlap: it starts at 5, the chain ended at 10"),
    "a range too short": (change(1, 10, next_offset="19"), "gap: it starts at 20, the chain ended at 19"),
    "a wrong count": (change(1, 10, record_count="6"), "metadata record-count says '6', it is '5'"),
    "a wrong hash": (change(1, 10, sha256="00"), "metadata sha256"),
    "a wrong first timestamp": (change(1, 10, first_timestamp="7"), "metadata first-timestamp"),
    "a wrong maximal timestamp": (change(1, 10, max_timestamp="7"), "metadata max-timestamp"),
    "another chain's object": (change(1, 10, chain_id="other"), "it is of chain other"),
    "no writer": (change(1, 10, writer=""), "names no writer"),
    "records said to be lost": (change(1, 10, lost_count="2"), "metadata lost-count says '2', it is '0'"),
    "a body that breaks off": (truncate, "its body cannot be read"),
    "a key of another hour": (rename, "its key ought to be"),
    "the quarantine object missing": (
        remove(quarantine_key),
        "is not there",
    ),
    "the quarantine object not named": (change(0, 0, quarantine=""), "names no object"),
    "a quarantined record changed": (change_quarantine, "is not named by its content's hash"),
    "a quarantined record missing": (shorten_quarantine, "counts 5 quarantined records"),
    "quarantine counted wrong": (change(0, 0, quarantined_count="4"), "counts 4 quarantined records"),
    "poison stored as a line": (
        rewrite(0, 0, lambda lines: [*lines[:3], b"not json", *lines[3:]]),
        "stored 6 + quarantined 5 is not the 10 records consumed",
    ),
    "poison taken for a line": (poison_taken, "is no JSON value, but stored"),
    "a commit inside an object": (commit(1, 15), "committed offset 15 is no boundary of the chain: inside (10, 20)"),
    "a commit beyond the chain": (commit(1, 31), "committed offset 31 is no boundary of the chain: outside"),
    "a commit unsigned": (commit(1, 30, ""), "is signed ''"),
    "a commit of another offset's signature": (commit(1, 20, f"ticklake:{CHAIN}:30"), "is signed"),
    "objects of a partition that the topic lacks": (forget_partition, "partition 1: the topic has none, but 3 objects"),
    "a second layout": (second_layout, "a second layout: _ticklake/other/layout.json"),
    "no layout": (remove(lambda _: f"_ticklake/{TOPIC}/layout.json"), "no layout.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_planted_damage_is_found_and_named(name: str) -> None:
    plant, told = DAMAGE[name]
    damaged = world()
    plant(damaged)
    faults = (await damaged.verdict()).faults
    assert any(told in fault for fault in faults), faults


async def test_a_boundary_below_the_end_and_the_origin_may_be_committed_until_the_group_has_settled() -> None:
    late = world()
    assert (await late.verdict(settled=True)).faults == []
    commit(0, 10)(late)
    commit(1, 0)(late)
    assert (await late.verdict()).faults == []
    assert (await late.verdict(settled=True)).faults == [
        "partition 0: the chain ends at 30, committed is 10",
        "partition 1: the chain ends at 30, committed is 0",
    ]


async def test_a_partition_without_a_commit_is_found_once_the_group_has_settled() -> None:
    damaged = world()
    del damaged.offsets[1]
    assert (await damaged.verdict(settled=True)).faults == ["partition 1: the chain ends at 30, committed is nothing"]


async def test_an_orphaned_quarantine_object_is_counted_and_no_fault() -> None:
    orphaned = world()
    key = quarantine_key(orphaned)
    orphan = key.replace("00000-00000000000000000000", "00000-00000000000000000003")
    orphaned.bucket[orphan] = replace(orphaned.bucket[key], key=orphan)
    verdict = await orphaned.verdict()
    assert (verdict.faults, verdict.orphans) == ([], 1)


async def test_what_is_not_stored_yet_counts_only_when_completeness_is_asked_for() -> None:
    growing = world()
    growing.topic[1].append(record(30))
    assert (await growing.verdict(complete=False)).faults == []
    assert (await growing.verdict()).faults == ["partition 1: 1 records from 30 on are missing, chain ends at 30"]


@pytest.mark.parametrize("module", ["oracle.py", "oracle_objects.py", "oracle_reading.py"])
def test_the_oracle_shares_no_code_with_the_product(module: str) -> None:
    tree = ast.walk(ast.parse(Path(__file__).parents[1].joinpath(module).read_text()))
    names = [name for node in tree for name in _imported(node)]
    assert names
    assert not {name.split(".")[0] for name in names} & {"consumer", "shared", "producer"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize(
    ("value", "is_line"),
    [
        (b"{}", True),
        (b'"\\ud83d\\ude00"', True),
        (b"1" * 5000, True),
        (b"[" * 512 + b"]" * 512, True),
        (b"[" * 513 + b"]" * 513, False),
        (b'"' + b"[" * 600 + b'"', True),
        (b"\xef\xbb\xbf{}", False),
        (b"Infinity", False),
        (b"{}{}", False),
        (b'"\\udc00"', False),
        (b"01", False),
        (b"", False),
        (None, False),
    ],
)
def test_what_may_be_a_line_is_judged_by_the_standard_library(value: bytes | None, *, is_line: bool) -> None:
    assert may_be_line(value) is is_line


def test_an_envelope_gives_back_the_bytes_as_they_stand_there() -> None:
    headers = b'[["a","b"],["c",{"base64":"/w=="}],["d",null]]'
    found = envelope(b'{"offset":1,"timestamp":2,"key":null,"headers":%b,"value":{"x": 1.0,"x":2}}' % headers)
    assert found.value == b'{"x": 1.0,"x":2}'
    assert found.headers == (("a", b"b"), ("c", b"\xff"), ("d", None))
    with pytest.raises(DamageError):
        envelope(b'{"offset":1,"timestamp":2,"key":null,"headers":[]}')


def test_a_zstd_frame_that_breaks_off_is_damage() -> None:
    whole = zstandard.compress(b"{}\n" * 1000)
    assert uncompressed("a.jsonl.zst", whole) == b"{}\n" * 1000
    with pytest.raises(DamageError):
        uncompressed("a.jsonl.zst", whole[:-3])


def test_white_space_around_a_value_is_part_of_its_text() -> None:
    assert json_text(b" 1 ") == " 1 "
