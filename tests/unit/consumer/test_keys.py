"""Keys: the template's grammar, render and its inverse, what listings may rely on."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.keys import (
    CONTENT_TYPES,
    MAX_KEY_BYTES,
    KeyTemplate,
    ParsedKey,
    TemplateError,
    calendar_timestamp,
    extension,
)

DEFAULT = "topic={topic}/dt={dt}/hour={hour}/{partition:05d}-{start:020d}.{ext}"
ORIGINAL = "stock_market_{unix}_{partition}_{start}.{ext}"
LAST_MS = 253402300799999

SEPARATORS = st.sampled_from(("-", "/", "_", "/x=", ".", "/p1x/", "é", "--", "+", "/a.b*c/"))


def keys(template: str = DEFAULT, *, prefix: str = "", topic: str = "task", ext: str = "jsonl.gz") -> KeyTemplate:
    return KeyTemplate(template, prefix=prefix, topic=topic, ext=ext)


@st.composite
def templates(draw: st.DrawFn) -> str:
    names = ["partition", "start", *draw(st.sets(st.sampled_from(("topic", "dt", "hour", "unix", "ext"))))]
    fields = []
    for name in draw(st.permutations(names)):
        width = draw(st.none() | st.integers(1, 30)) if name in ("partition", "start", "hour", "unix") else None
        fields.append(f"{{{name}}}" if width is None else f"{{{name}:0{width}d}}")
    text = draw(st.sampled_from(("", "a", "9", "raw/", "x-1")))
    for index, field in enumerate(fields):
        text += (draw(SEPARATORS) if index else "") + field
    return text + draw(st.sampled_from(("", ".gz", "7", "/body")))


PLACES = {
    "partition": st.integers(0, 2**31 - 1),
    "start": st.integers(0, 2**63 - 1),
    "timestamp": st.integers(0, LAST_MS) | st.sampled_from((-1, -(2**63), LAST_MS, LAST_MS + 1, 2**63 - 1)),
}
PREFIXES = st.sampled_from(("", "raw", "raw/", "a/b c/é/"))


@given(template=templates(), prefix=PREFIXES, topic=st.sampled_from(("task", "7", "a.b-c_1")), **PLACES)
def test_parse_is_the_inverse_of_render(
    *, template: str, prefix: str, topic: str, partition: int, start: int, timestamp: int
) -> None:
    ours = keys(template, prefix=prefix, topic=topic)
    key = ours.render(partition=partition, start=start, timestamp=timestamp)
    assert ours.parse(key) == ParsedKey(partition, start)
    assert (
        keys(template, prefix=prefix, topic=topic).render(partition=partition, start=start, timestamp=timestamp) == key
    )
    assert key.startswith(ours.listing_prefix)
    assert len(key.encode()) <= MAX_KEY_BYTES
    if ours.days_prefix is not None:
        assert key.startswith(ours.days_prefix)
        day = f"{datetime.fromtimestamp(calendar_timestamp(timestamp) // 1000, UTC):%Y-%m-%d}"
        assert day in key[len(ours.days_prefix) :].split("/")[0]


@given(template=templates(), one=st.tuples(*PLACES.values()), other=st.tuples(*PLACES.values()))
def test_two_places_never_share_a_key(template: str, one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    ours = keys(template)
    first = ours.render(partition=one[0], start=one[1], timestamp=one[2])
    second = ours.render(partition=other[0], start=other[1], timestamp=other[2])
    assert one[:2] == other[:2] or first != second


def test_the_default_key() -> None:
    key = keys(prefix="raw").render(partition=3, start=42, timestamp=1_700_000_000_123)
    assert key == "raw/topic=task/dt=2023-11-14/hour=22/00003-00000000000000000042.jsonl.gz"


def test_the_original_key() -> None:
    key = keys(ORIGINAL, ext="json").render(partition=0, start=7, timestamp=1_700_000_000_999)
    assert key == "stock_market_1700000000_0_7.json"


@pytest.mark.parametrize("timestamp", [-1, -(2**63), LAST_MS + 1, 2**63 - 1, 0])
def test_a_timestamp_that_no_calendar_has_counts_as_1970(timestamp: int) -> None:
    template = keys("{dt}/{hour}/{unix}/{partition}-{start}")
    assert template.render(partition=0, start=0, timestamp=timestamp) == "1970-01-01/00/0/0-0"
    assert template.bucket(timestamp) == 0


def test_the_last_millisecond_of_the_calendar_is_in_it() -> None:
    template = keys("{dt}/{hour}/{unix}/{partition}-{start}")
    assert template.render(partition=0, start=0, timestamp=LAST_MS) == "9999-12-31/23/253402300799/0-0"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{partition}", "{start} is required"),
        ("{start}", "{partition} is required"),
        ("", "{partition} is required"),
        ("{partition}{start}", "need something between them"),
        ("{topic}{partition}-{start}", "need something between them"),
        ("{partition}1{start}", "begins or ends with a digit"),
        ("{partition}-1{start}", "begins or ends with a digit"),
        ("{partition}1-{start}", "begins or ends with a digit"),
        ("{partition}-٣{start}", "begins or ends with a digit"),
        ("{partition}-{start}-{start}", "{start} stands there twice"),
        ("{partition}-{start}-{host}", "unknown field {host}"),
        ("{partition}-{start}-{}", "unknown field {}"),
        ("{partition}-{start}-{START}", "unknown field {START}"),
        ("{partition:5d}-{start}", "only whole numbers take a format"),
        ("{partition:00d}-{start}", "only whole numbers take a format"),
        ("{partition:0100d}-{start}", "only whole numbers take a format"),
        ("{partition:05x}-{start}", "only whole numbers take a format"),
        ("{partition:}-{start}", "only whole numbers take a format"),
        ("{topic:05d}-{partition}-{start}", "only whole numbers take a format"),
        ("{dt:%Y}-{partition}-{start}", "only whole numbers take a format"),
        ("{partition}-{start}}", "a brace that belongs to no field"),
        ("{partition}-{start}-{", "a brace that belongs to no field"),
        ("{{partition}}-{start}", "a brace that belongs to no field"),
        ("{partition!r}-{start}", "unknown field {partition!r}"),
        ("{partition}//{start}", "no empty segment"),
        ("/{partition}-{start}", "no empty segment"),
        ("{partition}-{start}/", "no empty segment"),
        ("{partition}/../{start}", "no empty segment"),
        ("./{partition}-{start}", "no empty segment"),
        ("_ticklake/{partition}-{start}", "the folder of layout and quarantine"),
        ("{partition}-{start}" + "x" * 1000, "keys could be 1030 bytes long; S3 allows 1024"),
        ("{partition}-{start}" + "é" * 500, "keys could be 1030 bytes long; S3 allows 1024"),
    ],
)
def test_a_template_that_breaks_a_rule_is_refused_with_the_rule(template: str, says: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(says)):
        keys(template)


def test_a_prefix_that_breaks_a_rule_is_refused_too() -> None:
    for prefix in ("/", "/raw", "a//b", "a/../b"):
        with pytest.raises(TemplateError, match="no empty segment"):
            keys(prefix=prefix)


def test_the_longest_key_that_fits_is_taken() -> None:
    template = keys("{partition}-{start}" + "x" * 994)
    assert len(template.render(partition=2**31 - 1, start=2**63 - 1, timestamp=0)) == MAX_KEY_BYTES


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{partition}-{start}", "01-5"),
        ("{partition}-{start}", "1-05"),
        ("{partition}-{start}", "1-+5"),
        ("{partition}-{start}", "-1-5"),
        ("{partition}-{start}", "1-٣"),
        ("{partition}-{start}", "1-5\n"),
        ("{partition}-{start}", "x1-5"),
        ("{partition}-{start}", "1-" + "9" * 5000),
        ("{partition:05d}-{start}", "1-5"),
        ("{partition:05d}-{start}", "000001-5"),
        ("{dt}/{partition}-{start}", "2023-02-29/1-5"),
        ("{dt}/{partition}-{start}", "2023-13-01/1-5"),
        ("{dt}/{partition}-{start}", "0000-00-00/1-5"),
        ("{dt}/{partition}-{start}", "1969-12-31/1-5"),
        ("{dt}/{partition}-{start}", "٢٠٢٣-01-01/1-5"),
        ("{hour}/{partition}-{start}", "24/1-5"),
        ("{hour}/{partition}-{start}", "7/1-5"),
        ("{unix}/{partition}-{start}", "253402300800/1-5"),
        ("{unix}/{dt}/{partition}-{start}", "0/1970-01-02/1-5"),
        ("{topic}/{partition}-{start}", "other/1-5"),
        ("{partition}-{start}.{ext}", "1-5.jsonl"),
        ("{partition}-{start}.x", "1-5yx"),
    ],
)
def test_a_key_that_the_template_cannot_have_rendered_is_not_parsed(template: str, key: str) -> None:
    assert keys(template).parse(key) is None


def test_keys_below_another_prefix_are_not_parsed() -> None:
    assert keys("{partition}-{start}", prefix="a.b").parse("aXb/1-5") is None
    assert keys("{partition}-{start}", prefix="a").parse("a/1-5") == ParsedKey(1, 5)


def test_digits_around_the_fields_leave_them_readable() -> None:
    assert keys("7{partition}-{start}7").parse("77-77") == ParsedKey(7, 7)
    assert keys("{start}/{partition}").parse("5/1") == ParsedKey(1, 5)


@pytest.mark.parametrize(
    ("template", "has_time", "unit_ms"),
    [
        (DEFAULT, True, 3_600_000),
        ("{dt}/{partition}-{start}", True, 86_400_000),
        ("{hour}/{partition}-{start}", True, 3_600_000),
        (ORIGINAL, True, None),
        ("{partition}-{start}", False, None),
    ],
)
def test_the_finest_calendar_field_counts_and_unix_never_seals(
    template: str, has_time: bool, unit_ms: int | None
) -> None:
    ours = keys(template)
    assert ours.has_time is has_time
    if unit_ms is None:
        assert ours.bucket(LAST_MS) == ours.bucket(0) == 0
    else:
        assert ours.bucket(5 * unit_ms - 1) == 4
        assert ours.bucket(5 * unit_ms) == 5


@pytest.mark.parametrize(
    ("template", "prefix", "listing", "days"),
    [
        (DEFAULT, "raw", "raw/topic=task/dt=", "raw/topic=task/"),
        ("{dt}/{partition}-{start}", "", "", ""),
        ("x/{topic}-{dt}/{partition}-{start}", "", "x/task-", "x/"),
        ("{dt}-{partition}-{start}", "", "", None),
        ("{dt}{topic}/{partition}-{start}", "", None, None),
        ("{partition}/{dt}/{start}", "p", "p/", None),
        (ORIGINAL, "", "stock_market_", None),
        ("{topic}_{partition}-{start}", "", "task_", None),
    ],
)
def test_listings_are_as_narrow_as_the_template_allows(
    template: str, prefix: str, listing: str | None, days: str | None
) -> None:
    if listing is None:
        with pytest.raises(TemplateError):
            keys(template, prefix=prefix)
        return
    assert keys(template, prefix=prefix).listing_prefix == listing
    assert keys(template, prefix=prefix).days_prefix == days


def test_own_objects_lie_in_a_folder_of_their_own() -> None:
    with_topic = keys(prefix="raw")
    assert with_topic.layout_key == "raw/_ticklake/task/layout.json"
    assert with_topic.quarantine_prefix == "raw/_ticklake/task/quarantine/"
    without = keys("{partition}-{start}")
    assert without.layout_key == "_ticklake/layout.json"
    assert without.quarantine_prefix == "_ticklake/quarantine/"
    assert without.other_layout_prefix == "_ticklake/"
    name = without.quarantine_name(partition=3, start=7, next_offset=9, sha256="0123456789abcdef" * 4)
    assert name == "00003-00000000000000000007-00000000000000000009-0123456789abcdef.jsonl.gz"


@pytest.mark.parametrize(
    ("record_format", "compression", "max_records", "ext"),
    [
        ("value", "gzip", 1, "jsonl.gz"),
        ("envelope", "zstd", 1, "jsonl.zst"),
        ("value", "none", 1, "json"),
        ("value", "none", 2, "jsonl"),
        ("envelope", "none", 1, "jsonl"),
    ],
)
def test_the_extension_is_a_function_of_the_settings(
    record_format: str, compression: str, max_records: int, ext: str
) -> None:
    assert extension(record_format=record_format, compression=compression, max_records=max_records) == ext
    assert ext in CONTENT_TYPES
