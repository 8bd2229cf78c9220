"""Records to lines to bodies: nothing lost, nothing doubled, the same bytes whatever the path."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer import codecs
from consumer.encoder import Body, BodyBuilder, Reason, lines_of, record_line, value_line, value_lines
from consumer.ports import Record
from shared.schemas import MAX_NESTING, decode_envelope
from tests.fakes.wire import FakeWire, record, run, wire, wire_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.ports import WireBatch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLAIN = JSON.map(lambda value: json.dumps(value).encode()) | JSON.map(
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
)
PRETTY = JSON.map(lambda value: json.dumps(value, indent=2).encode())
ODD: Sequence[bytes | None] = (
    None,
    b"",
    b" ",
    b"\n",
    b"NaN",
    b"-Infinity",
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b'{"a":"\xed\xa0\x80"}',
    b'"\xc3',
    b'\xa9"',
    b"{}{}",
    b"1 2",
    b"1\n2",
    b"[1,",
    b"2]",
    b'{"a":',
    b"1}",
    b'"a\nb"',
    b'"\\ud800"',
    b"\n{}\n",
    b"{}\r",
    b'{"a":\r\n"b c"}',
    b" {} ",
    b"1E+2",
    b"-0.0",
    b"1" * 60,
    b'{"a":1,"a":2}',
    b'"\\u0000\\/\\n"',
    b"[" * 100_000,
    b"[" * 900 + b"]" * 900,
    b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1),
    b"[" * MAX_NESTING + b"]" * MAX_NESTING,
    b"[\n" * MAX_NESTING + b"]" * MAX_NESTING,
    b'{"\n',
)
VALUES = st.lists(PLAIN | PRETTY | st.sampled_from(ODD) | st.binary(max_size=5), max_size=12)
ALL_PLAIN = st.lists(PLAIN, max_size=12)


def build(batches: Sequence[tuple[WireBatch, int, int]], *, record_format: str = "value", codec: str = "none") -> Body:
    builder = BodyBuilder(record_format=record_format, codec=codecs.codec(codec))
    for batch, begin, end in batches:
        builder.add(run(batch, lines_of=lines_of(record_format)), begin, end)
    return builder.finish()


def whole(values: Sequence[bytes | None], *, record_format: str = "value", codec: str = "none") -> Body:
    batches = [(wire_of(values), 0, len(values))] if values else []
    return build(batches, record_format=record_format, codec=codec)


def set_aside(body: Body) -> list[tuple[int, str | None, bytes | None]]:
    if body.quarantine is None:
        return []
    lines = gzip.decompress(body.quarantine.body).splitlines(keepends=False)
    envelopes = [decode_envelope(line) for line in lines]
    return [(one.offset, one.reason, one.value) for one in envelopes]


@given(VALUES | ALL_PLAIN)
@example(list(ODD))
def test_every_record_stands_in_body_or_quarantine_once_and_in_order(values: list[bytes | None]) -> None:
    body = whole(values)
    stored = [line for line in map(value_line, values) if isinstance(line, bytes)]
    aside = [
        (at, line.value, values[at]) for at, line in enumerate(map(value_line, values)) if isinstance(line, Reason)
    ]
    assert body.content == b"".join(line + b"\n" for line in stored)
    assert body.content.count(b"\n") == len(stored)
    assert set_aside(body) == aside
    assert (body.record_count, body.quarantined_count) == (len(stored), len(aside))
    assert body.record_count + body.quarantined_count == len(values)


@given(VALUES | ALL_PLAIN, st.data())
def test_wherever_it_is_cut_the_body_is_the_same(values: list[bytes | None], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    ends = [*cuts, len(values)]
    for record_format in ("value", "envelope"):
        batch = wire_of(values or [None])
        pieces = [(batch, begin, end) for begin, end in zip([0, *cuts], ends, strict=True)]
        cut, uncut = build(pieces, record_format=record_format), whole(values, record_format=record_format)
        assert (cut.content, cut.sha256, cut.quarantined) == (uncut.content, uncut.sha256, uncut.quarantined)
        assert set_aside(cut) == set_aside(uncut)
        if cut.quarantine and uncut.quarantine:
            assert cut.quarantine.sha256 == uncut.quarantine.sha256


# Pieces that make two values look like one line, one value like two lines, or nothing like something.
PIECES = (
    b"{",
    b"}",
    b"{}",
    b"[",
    b"]",
    b"1",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b",",
    b'"',
    b'"a"',
    b"",
    b"null",
    b"\xc3\xa9",
    b"\xff",
)


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join), min_size=1, max_size=6))
@example([b"{}{}", b""])
@example([b"{}{}", b"[1,", b"2]"])
@example([b"[1,\n2]", b""])
@example([b"1 ", b"\t2"])
@example([b'"a', b'b"'])
@settings(max_examples=500)
def test_values_are_lines_all_at_once_only_if_each_is_one_by_itself(values: list[bytes]) -> None:
    lines = value_lines(values)
    singly = [value_line(value) for value in values]
    if lines is not None:
        assert singly == values
        assert lines == b"".join(b"%s\n" % value for value in values)
    else:
        assert singly != values, "refused for nothing"


@given(ALL_PLAIN)
def test_one_bad_record_changes_nothing_for_its_siblings(values: list[bytes]) -> None:
    assert whole([*values, b"NaN"]).content == whole(values).content  # every value singly, and all at once


@given(VALUES)
def test_a_line_is_the_records_own_bytes_unless_it_has_line_breaks(values: list[bytes | None]) -> None:
    for value in values:
        line = value_line(value)
        if isinstance(line, Reason) or value is None:
            continue
        assert b"\n" not in line
        assert b"\r" not in line
        if b"\n" not in value and b"\r" not in value:
            assert line == value
        elif len(value) < 1000:
            assert json.loads(line) == json.loads(value)


def test_compacting_keeps_the_bytes_of_numbers_and_strings() -> None:
    value = '\r\n{ "a" : [ 1E5 , -0.0 , 1.50 ],\n "\\u00e9\\/ é" : {} , "n": 12345678901234567890123 }\n'.encode()
    line = '{"a":[1E5,-0.0,1.50],"\\u00e9\\/ é":{},"n":12345678901234567890123}'.encode()
    assert value_line(value) == line


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.TOMBSTONE),
        (b"", Reason.EMPTY),
        (b" ", Reason.NOT_JSON),
        (b"NaN", Reason.NOT_JSON),
        (b"\xef\xbb\xbf{}", Reason.NOT_JSON),
        (b"{}{}", Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b"[" * 900 + b"]" * 900, Reason.NOT_JSON),
        (b"\n" + b"[" * 996 + b"]" * 996, Reason.NOT_JSON),
    ],
)
def test_what_cannot_be_a_line_is_set_aside_with_the_reason(value: bytes | None, reason: Reason) -> None:
    assert value_line(value) is reason
    assert whole([value]).quarantined == {reason: 1}
    assert set_aside(whole([value])) == [(0, reason.value, value)]


@pytest.mark.parametrize("depth", range(MAX_NESTING - 2, MAX_NESTING + 3))
def test_at_the_limit_of_nesting_all_paths_agree_and_none_crashes(depth: int) -> None:
    for value in (b"[" * depth + b"]" * depth, b"[\n" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        together, alone = whole([b"1", value]), whole([b"1", value, None])
        assert together.content == alone.content
        assert together.record_count == (2 if depth <= MAX_NESTING else 1)


def test_a_value_that_json_lines_would_hide_is_seen() -> None:
    hidden = [b'{"a":1}\n{"b":2}', b"[1", b",2]", b"{}{}"]
    assert whole(hidden).quarantined == {Reason.NOT_JSON: 4}


@given(VALUES)
def test_an_envelope_holds_every_record(values: list[bytes | None]) -> None:
    body = whole(values, record_format="envelope")
    envelopes = [decode_envelope(line) for line in body.content.splitlines()]
    assert [(one.offset, one.value, one.reason) for one in envelopes] == [
        (offset, value, None) for offset, value in enumerate(values)
    ]
    assert body.quarantine is None


def test_quarantine_keeps_key_headers_and_timestamp() -> None:
    odd = Record(offset=7, timestamp=-1, key=b"\xff", value=b"x", headers=(("h", None), ("i", b"\xfe")))
    body = build([(FakeWire(records=(odd,), next_offset=9), 0, 1)])
    assert body.quarantine is not None
    envelope = decode_envelope(gzip.decompress(body.quarantine.body).rstrip(b"\n"))
    assert (envelope.offset, envelope.timestamp, envelope.key) == (7, -1, b"\xff")
    assert envelope.headers == [("h", None), ("i", b"\xfe")]
    assert envelope.reason == "not_json"


def test_a_record_has_a_line_in_either_format() -> None:
    one = record(3, b"{}", timestamp=5, key=b"k")
    assert record_line(one, "value") == b"{}"
    assert record_line(one, "envelope") == b'{"offset":3,"timestamp":5,"key":"k","headers":[],"value":{}}'
    assert record_line(record(3, None), "value") is Reason.TOMBSTONE
    assert isinstance(record_line(record(3, None), "envelope"), bytes)


def decompress(content: bytes, codec: str) -> bytes:
    if codec == "gzip":
        return gzip.decompress(content)
    if codec == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
@given(values=st.lists(PLAIN | st.sampled_from((None, b"NaN")), max_size=9), size=st.sampled_from((0, 10, 70_000)))
@settings(max_examples=40)
def test_every_codec_is_read_by_independent_hands(codec: str, values: list[bytes | None], size: int) -> None:
    values = [*values, b'"' + b"x" * size + b'"']
    body, plain = whole(values, codec=codec), whole(values)
    assert decompress(body.content, codec) == plain.content
    assert body.sha256 == hashlib.sha256(plain.content).hexdigest() == plain.sha256
    assert body.crc32 == zlib.crc32(body.content)
    if body.quarantine:
        lines = gzip.decompress(body.quarantine.body)
        assert body.quarantine.sha256 == hashlib.sha256(lines).hexdigest()
        assert body.quarantine.crc32 == zlib.crc32(body.quarantine.body)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_a_body_without_records_is_a_valid_file_all_the_same(codec: str) -> None:
    body = whole([None, b""], codec=codec)
    assert decompress(body.content, codec) == b""
    assert body.record_count == 0
    assert body.quarantined == {Reason.TOMBSTONE: 1, Reason.EMPTY: 1}


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_the_same_calls_give_the_same_compressed_bytes(codec: str) -> None:
    values = [msgspec.json.encode({"n": number}) for number in range(1000)]
    one, other = whole(values, codec=codec), whole(values, codec=codec)
    assert one.content == other.content
    assert codec != "gzip" or one.content[4:8] == bytes(4)  # no time stamp


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_the_size_grows_with_the_body_and_stays_compressed(codec: str) -> None:
    builder = BodyBuilder(record_format="value", codec=codecs.codec(codec))
    sizes, taken = [], 0
    for round_ in range(40):
        values = [hashlib.sha256(b"%d-%d" % (round_, at)).hexdigest().encode().join([b'"', b'"']) for at in range(500)]
        builder.add(run(wire_of(values, start=taken), lines_of=value_lines), 0, len(values))
        taken += len(values)
        sizes.append(builder.size)
    body = builder.finish()
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0.8 * len(body.content)
    held = codecs.codec(codec)
    assert sizes[-1] <= len(body.content) + held.bytes
    assert sizes[0] >= held.memory_bytes(500 * 67), "what a codec holds back counts at once"
    assert codec == "none" or len(body.content) < 0.7 * taken * 67


def test_the_size_counts_the_quarantine_too() -> None:
    builder = BodyBuilder(record_format="value", codec=codecs.codec("none"))
    values = [b"\xff" + hashlib.sha256(b"%d" % at).digest() * 8 for at in range(2000)]
    builder.add(run(wire(*(record(at, value) for at, value in enumerate(values)))), 0, len(values))
    assert builder.size > 30_000
