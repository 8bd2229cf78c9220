"""The wire contract: decode(encode(x)) == x, and a decoder refuses what its encoder cannot have written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.schemas import (
    MAX_NESTING,
    Envelope,
    EventHeaders,
    Layout,
    ObjectMetadata,
    SchemaError,
    decode_envelope,
    encode_envelope,
    event_id,
    is_json_value,
    nested_too_deep,
    sign_offset,
    signer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OFFSETS = st.integers(0, 2**63 - 1)
TIMESTAMPS = st.integers(-(2**63), 2**63 - 1)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
VALUES = (
    st.none()
    | st.binary(max_size=20)
    | JSON.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode())
    | JSON.map(lambda value: b" " + json.dumps(value).encode())
    | st.sampled_from((b"null", b" null", b"NaN", b"{}{}", b"\xef\xbb\xbf{}", b'"\\ud800"', b"[" * 2000 + b"]" * 2000))
)


# ---- record headers -------------------------------------------------------------------------------------------------


def test_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    headers = EventHeaders(source="https://x/y", time="2026-01-02T03:04:05Z").of(b"AAPL", b"{}")
    assert headers == [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id("https://x/y", b"AAPL", b"{}").encode()),
        ("ce_source", b"https://x/y"),
        ("ce_type", b"ticklake.quote.v1"),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_subject", b"AAPL"),
    ]


def test_a_null_key_has_no_subject() -> None:
    names = [name for name, _ in EventHeaders(source="", time="").of(None, b"")]
    assert "ce_subject" not in names
    assert ("ce_subject", b"") in EventHeaders(source="", time="").of(b"", b"")


@pytest.mark.parametrize(
    ("source", "key", "value", "digest"),
    [
        ("https://api.example.com/v2/snapshot", b"AAPL", b'{"p":1}', "cb29ad6b60164e5c899272bed3ee8297"),
        ("", None, b"", "9d908ecfb6b256def8b49a7c504e6c88"),
    ],
)
def test_event_ids_never_change(source: str, key: bytes | None, value: bytes, digest: str) -> None:
    assert event_id(source, key, value) == digest


@given(one=st.tuples(st.text(), st.binary(), st.binary()), other=st.tuples(st.text(), st.binary(), st.binary()))
def test_event_ids_tell_all_parts_apart(one: tuple[str, bytes, bytes], other: tuple[str, bytes, bytes]) -> None:
    assert (event_id(*one) == event_id(*other)) == (one == other)
    assert re.fullmatch("[0-9a-f]{32}", event_id(*one))


def test_event_ids_are_not_of_the_parts_joined() -> None:
    assert len({event_id("a", b"bc", b""), event_id("ab", b"c", b""), event_id("", b"ab", b"c")}) == 3


# ---- committed offsets ----------------------------------------------------------------------------------------------


@given(chain_id=st.text(st.sampled_from("0123456789abcdef"), min_size=1), offset=OFFSETS, other=OFFSETS)
def test_a_signature_is_good_for_its_offset_alone(chain_id: str, offset: int, other: int) -> None:
    assert signer(offset, sign_offset(chain_id, offset)) == chain_id
    assert other == offset or signer(other, sign_offset(chain_id, offset)) is None


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "42",
        "ticklake",
        "ticklake:a",
        "ticklake::42",
        "ticklake:a:042",
        "ticklake:a:+42",
        "ticklake:a:٤٢",
        "ticklake:a:42\n",
        "ticklake:a:b:42",
        "Ticklake:a:42",
        " ticklake:a:42",
        "ticklake:a:" + "4" * 5000,
    ],
)
def test_what_we_cannot_have_signed_is_unsigned(metadata: str) -> None:
    assert signer(42, metadata) is None


# ---- object metadata ------------------------------------------------------------------------------------------------


METADATA = st.builds(
    ObjectMetadata,
    chain_id=ASCII,
    topic=ASCII,
    partition=st.integers(0, 2**31 - 1),
    start_offset=OFFSETS,
    next_offset=OFFSETS,
    record_count=OFFSETS,
    quarantined_count=OFFSETS,
    quarantine=st.just("") | ASCII,
    lost_count=OFFSETS,
    first_timestamp=TIMESTAMPS,
    max_timestamp=TIMESTAMPS,
    sha256=ASCII,
    writer=ASCII,
)
EXAMPLE = ObjectMetadata(
    chain_id="c",
    topic="task",
    partition=1,
    start_offset=10,
    next_offset=12,
    record_count=2,
    quarantined_count=0,
    first_timestamp=-1,
    max_timestamp=5,
    sha256="ab",
    writer="w",
)


@given(METADATA)
def test_metadata_survives_the_store(metadata: ObjectMetadata) -> None:
    encoded = metadata.encode()
    assert ObjectMetadata.decode(encoded) == metadata
    assert ObjectMetadata.decode({**encoded, "somebody": "else's"}) == metadata
    assert all(name.isascii() and text.isascii() and name == name.lower() for name, text in encoded.items())


def test_metadata_has_the_names_of_the_design() -> None:
    assert EXAMPLE.encode() == {
        "ticklake-version": "1",
        "chain-id": "c",
        "topic": "task",
        "partition": "1",
        "start-offset": "10",
        "next-offset": "12",
        "record-count": "2",
        "quarantined-count": "0",
        "lost-count": "0",
        "first-timestamp": "-1",
        "max-timestamp": "5",
        "sha256": "ab",
        "writer": "w",
    }


@pytest.mark.parametrize("name", sorted(EXAMPLE.encode()))
def test_metadata_without_one_of_its_names_are_refused(name: str) -> None:
    encoded = EXAMPLE.encode()
    del encoded[name]
    with pytest.raises(SchemaError, match=name):
        ObjectMetadata.decode(encoded)


@pytest.mark.parametrize("text", ["", "1.0", "1e1", "01", "+1", " 1", "x", "1_0", "٣", "null"])
def test_numbers_are_read_only_as_they_are_written(text: str) -> None:
    with pytest.raises(SchemaError):
        ObjectMetadata.decode({**EXAMPLE.encode(), "next-offset": text})


@pytest.mark.parametrize("changed", [{"ticklake-version": "2"}, {"ticklake-version": "01"}, {"quarantine": ""}])
def test_metadata_of_another_version_or_hand_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(SchemaError):
        ObjectMetadata.decode({**EXAMPLE.encode(), **changed})
    with pytest.raises(SchemaError):
        ObjectMetadata.decode({})


# ---- the layout file ------------------------------------------------------------------------------------------------


LAYOUTS = st.builds(
    Layout,
    version=st.integers(1, 9),
    chain_id=st.text(),
    topic=st.text(),
    topic_id=st.none() | st.text(),
    cluster_id=st.none() | st.text(),
    template=st.text(),
    ext=st.text(),
    format=st.text(),
    compression=st.text(),
    origins=st.dictionaries(st.integers(0, 999).map(str), OFFSETS),
)


@given(LAYOUTS, st.integers(0, 999))
def test_a_layout_survives_its_file(layout: Layout, partition: int) -> None:
    assert Layout.decode(layout.encode()) == layout
    assert layout.origin(partition) == layout.origins.get(str(partition), 0)


def layout_file(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "version": 1,
        "chain-id": "c",
        "topic": "task",
        "topic-id": None,
        "cluster-id": None,
        "template": "{partition}-{start}",
        "ext": "jsonl",
        "format": "value",
        "compression": "none",
        "origins": {"0": 0},
    }
    return json.dumps({name: value for name, value in {**fields, **changes}.items() if value != ...}).encode()


def test_a_layout_file_has_the_fields_of_the_design() -> None:
    layout = Layout.decode(layout_file())
    assert json.loads(layout.encode()) == json.loads(layout_file())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"a":' + b"[" * 100_000,
        layout_file(version="1"),
        layout_file(version=1.0),
        layout_file(topic=...),
        layout_file(origins={"0": -1}),
        layout_file(origins={"00": 1}),
        layout_file(origins={"x": 1}),
        layout_file(origins={"0": None}),
    ],
)
def test_a_file_that_is_no_layout_is_refused(body: bytes) -> None:
    with pytest.raises(SchemaError, match="layout file"):
        Layout.decode(body)


# ---- JSON -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Oracle:
    """The standard library's word. It is more lenient in two things, which both count as not JSON here."""

    value: bytes

    @property
    def accepts(self) -> bool:
        try:
            parsed = json.loads(self.value.decode(), parse_constant=self._refuse)
            json.dumps(parsed, ensure_ascii=False).encode()  # refuses a lone surrogate
        except (ValueError, UnicodeEncodeError):
            return False
        return True

    @staticmethod
    def _refuse(constant: str) -> None:
        raise ValueError(constant)


FRAGMENTS = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b"\\", b"\\u", b"d800", b"dc00", b"0", b"1", b"-", b"+",
         b".", b"e", b"E5", b" ", b"\n", b"\r", b"\t", b"\x0b", b"\x00", b"\x1f", b"\x7f", b"true", b"null", b"NaN",
         b"Infinity", b"-Infinity", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"/", b"'"]
    ),
    max_size=7,
).map(b"".join)  # fmt: skip


@given(VALUES.filter(lambda value: value is not None and len(value) < 1000) | FRAGMENTS | st.text().map(str.encode))
def test_json_is_what_the_standard_library_takes_but_for_constants_and_lone_surrogates(value: bytes) -> None:
    assert is_json_value(value) == Oracle(value).accepts


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"-Infinity", b'"\\ud800"', b'{"\\udc00":1}', b'"\\ud83d\\u0041"']
)
def test_the_standard_library_takes_these_and_we_do_not(value: bytes) -> None:
    json.loads(value)
    assert not is_json_value(value)


@pytest.mark.parametrize(
    "value", [b"1" * 5000, b"-0", b"1e999", b"1E+2", b'"\\/"', b'{"a":1,"a":2}', b" [ ] ", b'"\x7f"']
)
def test_odd_spellings_of_json_are_json(value: bytes) -> None:
    assert is_json_value(value)


def nest(depth: int) -> list[bytes]:
    half = depth // 2
    odd = depth % 2
    mixed = b'[{"[\\"":' * half + b"[" * odd + b"1" + b"]" * odd + b"}]" * half
    beside = b"[" + b"[],{}," * 2000 + b"[" * (depth - 1) + b"]" * (depth - 1) + b"]"
    return [b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, mixed, beside]


@pytest.mark.parametrize("extra", [0, 1, 500, 100_000])
def test_the_same_depth_counts_as_json_whatever_the_python_and_the_stack(extra: int) -> None:
    def deeper(frames: int, value: bytes) -> bool:
        return deeper(frames - 1, value) if frames else is_json_value(value)

    for value in nest(MAX_NESTING + extra):
        assert is_json_value(value) is (extra == 0)
        assert deeper(200, value) is (extra == 0)


def test_brackets_in_strings_are_no_depth() -> None:
    assert is_json_value(b'["' + b"[" * 5000 + b'\\"' + b"{" * 5000 + b'"]')


@given(JSON, st.integers(1, 8))
def test_depth_is_counted_exactly(value: object, limit: int) -> None:
    def depth(one: object) -> int:
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    wrapped = b"[" * (MAX_NESTING - limit) + json.dumps(value).encode() + b"]" * (MAX_NESTING - limit)
    assert nested_too_deep(wrapped) == (depth(value) > limit)


# ---- the envelope ---------------------------------------------------------------------------------------------------


@given(
    offset=OFFSETS,
    timestamp=TIMESTAMPS,
    key=st.none() | st.binary(max_size=9) | st.text(max_size=9).map(str.encode),
    headers=st.lists(
        st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9) | st.text(max_size=9).map(str.encode)),
        max_size=3,
    ),
    value=VALUES,
    reason=st.none() | st.text(max_size=9),
)
def test_an_envelope_gives_back_the_record_bit_for_bit(
    *,
    offset: int,
    timestamp: int,
    key: bytes | None,
    headers: list[tuple[str, bytes | None]],
    value: bytes | None,
    reason: str | None,
) -> None:
    line = encode_envelope(offset=offset, timestamp=timestamp, key=key, headers=headers, value=value, reason=reason)
    envelope = Envelope(offset=offset, timestamp=timestamp, key=key, headers=headers, value=value, reason=reason)
    assert decode_envelope(line) == envelope
    assert envelope.encode() == line
    assert b"\n" not in line
    assert b"\r" not in line
    assert list(json.loads(line))[:2] == ["offset", "timestamp"]


def line_of(
    value: bytes | None, key: bytes | None = None, headers: list[tuple[str, bytes | None]] | None = None
) -> bytes:
    return encode_envelope(offset=1, timestamp=2, key=key, headers=headers or [], value=value)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, b'"value":null'),
        (b"null", b'"value_base64":"bnVsbA=="'),
        (b"", b'"value_base64":""'),
        (b'{"a": 1.50}', b'"value":{"a": 1.50}'),
        (b" 1", b'"value_base64":"IDE="'),
        (b"1\n", b'"value_base64":"MQo="'),
        (b"[1,\r2]", b'"value_base64":"WzEsDTJd"'),
        (b"NaN", b'"value_base64":"TmFO"'),
        (b'"\xff"', b'"value_base64":"Iv8i"'),
    ],
)
def test_a_value_stands_as_it_is_when_it_can(value: bytes | None, field: bytes) -> None:
    assert line_of(value) == b'{"offset":1,"timestamp":2,"key":null,"headers":[],' + field + b"}"


def test_keys_and_headers_are_text_when_they_can() -> None:
    line = line_of(b"1", "é".encode(), [("a", b"x"), ("b", None), ("c", b"\xff"), ("d", b"")])
    assert json.loads(line)["key"] == "é"
    assert json.loads(line)["headers"] == [["a", "x"], ["b", None], ["c", {"base64": "/w=="}], ["d", ""]]
    assert json.loads(line_of(b"1", b"\xff"))["key_base64"] == "/w=="


def rewritten(change: Callable[[dict[str, object]], object]) -> bytes:
    fields = json.loads(line_of(b"1"))
    change(fields)
    return msgspec.json.encode(fields)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"1",
        b"{}",
        line_of(b"1") + b"\n",
        b" " + line_of(b"1"),
        line_of(b"1").replace(b":1,", b": 1,"),
        line_of(b"1").replace(b'"value":1', b'"value":\xff'),
        line_of(b"1").replace(b'"value":1', b'"value":' + b"[" * 100_000),
        line_of(b"1").replace(b'"value":1', b'"value_base64":"MQ=="'),  # it could have stood as it is
        line_of(b"1").replace(b'"key":null', b'"key_base64":"YQ=="'),  # it could have been text
        line_of(b"\xff").replace(b"/w==", b"/x=="),  # bits that base64 throws away
        rewritten(lambda fields: fields.pop("key")),
        rewritten(lambda fields: fields.pop("value")),
        rewritten(lambda fields: fields.update(value_base64="MQ==")),
        rewritten(lambda fields: fields.update(more=1)),
        rewritten(lambda fields: fields.update(headers=[["a"]])),
    ],
)
def test_a_line_that_we_cannot_have_written_is_refused(line: bytes) -> None:
    with pytest.raises(SchemaError, match="envelope line"):
        decode_envelope(line)
