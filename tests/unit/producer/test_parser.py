from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.parser import ApiError, BodyError, Parsed, parse, record_key
from producer.pointer import parse_pointer

LIMIT = 1000


def records(body: bytes | bytearray, pointer: str = "", limit: int = LIMIT) -> list[bytes]:
    return [bytes(record) for record in parse(body, parse_pointer(pointer), limit).records]


def parsed(body: bytes, pointer: str = "") -> Parsed:
    return parse(body, parse_pointer(pointer), LIMIT)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=10),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(alphabet='abé"\\/~', max_size=4), children, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(alphabet='abé"\\/~', max_size=4), JSON_VALUES, max_size=4)
SPACE = st.text(alphabet=" \t\n\r", max_size=3)


@st.composite
def written_objects(draw: st.DrawFn) -> bytes:
    """An object as some API might write it: its own spacing, escapes or not."""
    text = json.dumps(
        draw(OBJECTS),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])),
    )
    return text.encode()


@given(written=st.lists(written_objects(), max_size=6), space=SPACE, pointer=st.sampled_from(["", "/a", "/a/b~1c"]))
def test_every_record_is_its_own_bytes_in_order(written: list[bytes], space: str, pointer: str) -> None:
    gap = space.encode()
    body = gap + b"[" + gap + (gap + b"," + gap).join(written) + gap + b"]" + gap
    for name in reversed(parse_pointer(pointer).names):
        body = b'{"status":"OK",' + gap + json.dumps(name).encode() + b":" + body + b',"z":[{}]}'
    assert records(body, pointer) == written
    assert records(bytearray(body), pointer) == written


def test_numbers_are_left_as_they_were_written() -> None:
    odd = b'{"a":1e5,"b":-0.0,"c":0.1000,"d":12345678901234567890123,"e":1E+400,"f":"\\u00e9\\/"}'
    assert records(b"[" + odd + b"]") == [odd]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"tickers":null}', b'{"tickers":[]}', b'{"status":"OK"}', b'{"status":"delayed"}', b"[]", b"3"]
)
def test_a_missing_null_or_empty_array_is_zero_records(body: bytes) -> None:
    assert records(body, "/tickers") == []


def test_whether_anything_was_at_the_pointer_is_told() -> None:
    assert not parsed(b"{}", "/tickers").found
    assert parsed(b'{"tickers":[]}', "/tickers").found


def test_one_object_instead_of_an_array_is_one_record() -> None:
    assert records(b' {"symbol":"A"} ') == [b'{"symbol":"A"}']
    assert records(b'{"status":"OK","results": {"symbol":"A"} }', "/results") == [b'{"symbol":"A"}']


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"Unknown API Key"}',
        b'{"message":"You exceeded the limit"}',
        b'{"status":"ERROR","request_id":"1"}',
        b'{"status":"NOT_AUTHORIZED","tickers":null}',
        b'{"status":401}',
        b'{"error":{"code":5},"tickers":{}}',
    ],
)
def test_an_error_in_place_of_the_array_is_an_api_error(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        records(body, "/tickers")
    assert caught.value.quoted


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":null,"tickers":[{}]}',
        b'{"status":"ERROR","tickers":[{}]}',
        b'{"error":[ ],"message":"","status":200,"tickers":{}}',
    ],
)
def test_records_count_more_than_a_status(body: bytes) -> None:
    assert records(body, "/tickers") == [b"{}"]


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b'[{"a":NaN}]', 6),
        (b'[{"a":Infinity}]', 6),
        (b'[{"a":01}]', 7),
        (b"[{'a':1}]", 2),
        (b'[{"a":1},]', 9),
        (b'[{"a":1}] x', 11),  # msgspec counts past it
        (b"\xef\xbb\xbf[]", 0),
        (b'[{"a":1}', 8),
        (b"", 0),
        (b"<html>", 0),
        (b'[{"a":"\x01"}]', 7),
        (b'[{"a":"\xff"}]', 7),
        (b'[{"a":"\xc3\xa9"},{"b":"\xed\xa0\x80"}]', 18),
        (b'[{"a":"\xe2\x82', 7),
        (b'{"tickers":[{}],"z":nope}', 21),
    ],
)
def test_a_body_that_is_not_strict_json_is_refused_whole_with_the_position(body: bytes, position: int) -> None:
    for pointer in ("", "/tickers"):
        with pytest.raises(BodyError, match=rf"not strict JSON: .*\(byte {position}\)"):
            records(body, pointer)


def test_invalid_utf8_beyond_the_first_step_is_found_at_its_position() -> None:
    body = b'[{"a":"' + "é".encode() * 600_000 + b'\xff"}]'
    with pytest.raises(BodyError, match=r"invalid UTF-8 \(byte 1200007\)"):
        records(body)


def test_a_scalar_at_the_pointer_is_refused() -> None:
    with pytest.raises(BodyError, match="neither an array nor an object at '/tickers'"):
        records(b'{"tickers":5}', "/tickers")


def test_what_is_not_an_object_is_set_aside_and_its_siblings_go_on() -> None:
    found = parsed(b'[{"a":1},5,"x",[{}],null,{"b":2}]')
    assert [bytes(record) for record in found.records] == [b'{"a":1}', b'{"b":2}']
    assert [(each.index, each.reason, each.first_bytes) for each in found.set_aside] == [
        (1, "not_an_object", b"5"),
        (2, "not_an_object", b'"x"'),
        (3, "not_an_object", b"[{}]"),
        (4, "not_an_object", b"null"),
    ]


@pytest.mark.parametrize("pointer", ["", "/tickers"])
def test_a_record_nested_too_deep_is_set_aside_and_its_siblings_go_on(pointer: str) -> None:
    deep = b'{"deep":' + b"[" * 100_000 + b'"]"' + b"]" * 100_000 + b"}"
    body = b'[{"a":1},' + deep + b',{"b":"[[deep0"}]'
    found = parsed(body if not pointer else b'{"tickers":' + body + b"}", pointer)
    assert [bytes(record) for record in found.records] == [b'{"a":1}', b'{"b":"[[deep0"}']
    assert [(each.index, each.reason) for each in found.set_aside] == [(1, "nested_too_deep")]


@pytest.mark.parametrize("body", [b"[" * 2_000_000, b"[" * 100_000, b'{"a":' * 5000])
def test_brackets_without_end_are_refused_not_a_crash(body: bytes) -> None:
    with pytest.raises(BodyError):
        records(body)


def test_more_records_than_allowed_are_refused_with_both_numbers() -> None:
    body = b"[" + b",".join([b"{}"] * 11) + b"]"
    assert len(records(body, limit=11)) == 11
    with pytest.raises(BodyError, match="holds 11 records, API_MAX_RECORDS allows 10"):
        records(body, limit=10)


def test_an_error_quotes_the_beginning_and_not_the_whole_body() -> None:
    with pytest.raises(BodyError) as caught:
        records(b"x" * 1_000_000)
    assert len(caught.value.quoted) == 4096


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b'{"symbol":"AAPL"}', b"AAPL"),
        (b'{"symbol":"\xc3\xa9"}', "é".encode()),
        (b'{"symbol":"\\u00e9\\/"}', "é/".encode()),
        (b'{"symbol":""}', b""),
        (b'{"symbol":1.50}', b"1.50"),
        (b'{"symbol":-1e5}', b"-1e5"),
        (b'{"symbol":true}', b"true"),
        (b'{"symbol":false}', b"false"),
        (b'{"symbol":null}', None),
        (b'{"symbol":["A"]}', None),
        (b'{"symbol":{"a":1}}', None),
        (b'{"ticker":"A"}', None),
    ],
)
def test_the_key_of_a_record(record: bytes, expected: bytes | None) -> None:
    assert record_key(record, parse_pointer("/symbol")) == expected
    assert record_key(record, None) is None
