from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.parser import MAX_RECORD_BYTES, ApiError, BodyError, Parsed, parse, record_key
from producer.pointer import parse_pointer
from shared.schemas import MAX_NESTING

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize(
    "body",
    [
        *(b'[{"a":-Infinity}]', b'[{"a":-NaN}]', b'[{"a":nan}]', b"[NaN]", b'{"x":NaN,"tickers":[{}]}', b"NaN"),
        *(b'[{"a":True}]', b'[{"a":None}]', b'[{"a":nul}]', b'[{"a":nulll}]', b'[{"a":undefined}]'),
        *(b'[{"a":+1}]', b'[{"a":.5}]', b'[{"a":1.}]', b'[{"a":1e}]', b'[{"a":1e+}]', b'[{"a":-}]', b'[{"a":--1}]'),
        *(b'[{"a":00}]', b'[{"a":-01}]', b'[{"a":0x1}]', b'[{"a":1_000}]', b'[{"a":1 000}]'),
        *(b'[{"a":1}]\x00', b'[{"a":1}],', b'[{"a":1}][]', b'[{"a":1}]/**/', b'//\n[{"a":1}]', b'[{"a":1}]]'),
        *(b'[{"a":1} {"a":2}]', b"[{,}]", b"[,]", b"[1 2]", b'[{"a" 1}]', b'[{"a":}]', b'[{"a"}]', b"[{a:1}]"),
        *(b'[{"a":"\t"}]', b'[{"a":"x\ny"}]', b'[{"a":"\x1f"}]', b'[{"a":"\x00"}]', b"[\x0b]", b"[\x0c]"),
        *(rb'[{"a":"\x41"}]', rb'[{"a":"\u12"}]', rb'[{"a":"\u12G4"}]', rb'[{"a":"\'"}]', rb'[{"a":"\"}]'),
        *(b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf", b"[\xc2\xa0]", b" ", b"\x00", b"\x1f\x8b\x08\x00"),
        *(b'[{"a":"\xc0\x80"}]', b'[{"a":"\xf4\x90\x80\x80"}]', b'[{"\xff":1}]', b'[{"a":1}]\xff', b'[{"a":"\x80"}]'),
        # Escaped halves of surrogate pairs: no UTF-8 can carry them (RFC 8259 §8.2), so no key could.
        *(
            rb'[{"symbol":"\ud800"}]',
            rb'[{"symbol":"a\ud800b"}]',
            rb'[{"symbol":"\udc00\ud800"}]',
            rb'[{"a":"\udfff"}]',
        ),
        *(rb'[{"\ud800":1}]', rb'{"\ud800":1,"tickers":[{}]}', rb'{"status":"\ud800"}', rb'{"error":"\ud83d\u0041"}'),
    ],
)
def test_whatever_common_writers_get_wrong_is_refused_whole(body: bytes) -> None:
    for pointer in ("", "/tickers", "/0/a", '/a"b'):
        with pytest.raises(BodyError, match=r"^not strict JSON: .*\(byte \d+\)$") as caught:
            records(body, pointer)
        assert not isinstance(caught.value, ApiError)


def is_strict(body: bytes) -> bool:
    """By the standard library's reader, which is lenient about NaN and halves of surrogate pairs only."""
    try:
        value = json.loads(body.decode(), parse_constant=refuse, parse_int=str, parse_float=str, object_pairs_hook=list)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:  # of which those of JSON and of Unicode are kinds
        return False
    return True


def refuse(literal: str) -> None:
    raise ValueError(literal)


DAMAGE = [
    *(bytes([byte]) for byte in b'[]{},:"\\ /0123eE+-.truefalsnNu\t\n\x00\x7f\x80\xc3\xa9\xff'),
    b"",
    rb"\ud800",
    rb"\u00e9",
]


@settings(max_examples=500)
@given(
    written=st.lists(written_objects(), max_size=4),
    cuts=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 2), st.sampled_from(DAMAGE)), max_size=3),
    pointer=st.sampled_from(["", "/a", "/0/a"]),
    wrapped=st.booleans(),
)
def test_a_body_is_refused_as_not_strict_exactly_when_it_is_not(
    written: list[bytes], cuts: list[tuple[int, int, bytes]], pointer: str, wrapped: bool
) -> None:
    body = b"[" + b", ".join(written) + b"]"
    if wrapped:
        body = b'{"z":{},"a":' + body + b',"status":"OK"}'
    for place, length, damage in cuts:
        start = place % (len(body) + 1)
        body = body[:start] + damage + body[start + length :]
    try:
        records(body, pointer)
    except BodyError as error:
        refused = error.reason.startswith("not strict JSON: ")
    else:
        refused = False
    assert refused != is_strict(body), body


@given(st.binary(max_size=60))
def test_no_body_is_a_crash(body: bytes) -> None:
    for pointer in ("", "/a", "/0"):
        try:
            found = parsed(body, pointer).records
        except BodyError:
            continue
        for record in found:
            record_key(record, parse_pointer("/a"))


def test_invalid_utf8_beyond_the_first_step_is_found_at_its_position() -> None:
    body = b'[{"a":"' + "é".encode() * 600_000 + b'\xff"}]'
    with pytest.raises(BodyError, match=r"invalid UTF-8 \(byte 1200007\)"):
        records(body)


@pytest.mark.parametrize(
    "status", [b'"OK"', b'"ok"', b'"Ok"', b'"DELAYED"', b'"delayed"', b'"Delayed"', b"200", b"null", b"true"]
)
def test_a_good_status_in_any_case_leaves_a_missing_array_empty(status: bytes) -> None:
    for array in (b"", b',"tickers":null', b',"tickers":[]'):
        assert records(b'{"status":' + status + array + b"}", "/tickers") == []
    assert records(b'{"status":' + status + b',"tickers":{"a":1}}', "/tickers") == [b'{"a":1}']


@pytest.mark.parametrize(
    "status",
    [b'"ERROR"', b'"error"', b'"Error"', b'"NOT_AUTHORIZED"', b'"not found"', b'""', b"401", b"500", b"0", b"false"],
)
def test_any_other_status_without_an_array_is_an_api_error_in_any_case(status: bytes) -> None:
    for array in (b"", b',"tickers":null', b',"tickers":{"a":1}'):
        with pytest.raises(ApiError) as caught:
            records(b'{"status":' + status + array + b"}", "/tickers")
        assert caught.value.quoted == b"status: " + status
    assert records(b'{"status":' + status + b',"tickers":[]}', "/tickers") == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{}", False),
        (b'{"tickers":null}', False),
        (b'{"tickers":[{"a":1}],"tickers":null}', False),
        (b'{"Tickers":[{"a":1}]}', False),
        (b'[{"tickers":[{"a":1}]}]', False),
        (b"null", False),
        (b'"tickers"', False),
        (b'{"tickers":[]}', True),
        (b'{"tickers":[ \n ]}', True),
        (b'{"tickers":[{"a":1}],"tickers":[]}', True),
    ],
)
def test_nothing_null_and_empty_are_zero_records_and_only_the_empty_array_was_found(body: bytes, found: bool) -> None:
    result = parsed(body, "/tickers")
    assert (list(result.records), result.found) == ([], found)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"tickers":[],"tickers":[{"a":1}]}', b'{"a":1}'),
        (b'{"tickers":[{"b":2}],"tickers":[{"a":1}]}', b'{"a":1}'),
        (b'{"tickers":null,"tickers":[{"a":1}]}', b'{"a":1}'),
        (b'{"tickers":5,"tickers":[{"a":1}]}', b'{"a":1}'),
        (b'{"tickers":[{"b":2}],"tickers":{"a":1}}', b'{"a":1}'),
        (rb'{"tickers":[{"b":2}],"t\u0069ckers":[{"a":1}]}', b'{"a":1}'),
        (b'{"status":"ERROR","status":"OK","tickers":{"a":1}}', b'{"a":1}'),
    ],
)
def test_of_duplicate_names_on_the_way_the_last_counts(body: bytes, expected: bytes) -> None:
    assert records(body, "/tickers") == [expected]


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


DEEP_ARRAYS = b'{"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DEEP_OBJECTS = b'{"d":' * 100_000 + b'"]}"' + b"}" * 100_000
DEEP_KEY = b'{"symbol":' + b'{"symbol":[' * 50_000 + rb'"\"[{"' + b"]}" * 50_000 + b"}"


@pytest.mark.parametrize("deep", [DEEP_ARRAYS, DEEP_OBJECTS, DEEP_KEY])
def test_records_nested_100_000_deep_cost_none_of_their_siblings(deep: bytes) -> None:
    good = [rb'{"symbol":"\"[{\\"}', b'{"symbol":"deep0"}', b'{"n":[[1],{}]}']
    found = parsed(b"[" + b" , ".join([deep, good[0], good[1], deep, b"5", good[2]]) + b"]")
    assert list(map(bytes, found.records)) == good
    assert [(each.index, each.reason) for each in found.set_aside] == [
        (0, "nested_too_deep"),
        (3, "nested_too_deep"),
        (4, "not_an_object"),
    ]
    assert all(len(each.first_bytes) <= 80 for each in found.set_aside)


def test_nesting_outside_of_the_records_does_not_matter() -> None:
    for body in (
        b'{"x":' + DEEP_ARRAYS + b',"tickers":[{"a":1}]}',
        b'{"tickers":[{"a":1}],"x":' + DEEP_OBJECTS + b"}",
    ):
        assert records(body, "/tickers") == [b'{"a":1}']


def test_an_object_nested_too_deep_in_place_of_the_array_is_set_aside() -> None:
    found = parsed(b'{"tickers":' + DEEP_ARRAYS + b"}", "/tickers")
    assert list(found.records) == []
    assert [each.reason for each in found.set_aside] == ["nested_too_deep"]


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


@pytest.mark.parametrize(
    ("record", "pointer", "expected"),
    [
        # Of duplicate names the last counts, however it is written and wherever it stands.
        (b'{"symbol":"A","symbol":"B"}', "/symbol", b"B"),
        (b'{"symbol":"A","p":1,"symbol":null}', "/symbol", None),
        (b'{"symbol":["A"],"symbol":5}', "/symbol", b"5"),
        (rb'{"symbol":"A","sym\u0062ol":"B"}', "/symbol", b"B"),
        (rb'{"sym\u0062ol":"A"}', "/symbol", b"A"),
        (b'{"symbol":"symbol"}', "/symbol", b"symbol"),
        (b'{"symbol":"A","x":"symbol"}', "/symbol", b"A"),
        (b'{"x":{"symbol":"B"},"symbol":"A"}', "/symbol", b"A"),
        (b'{"symbol":"A","x":{"symbol":"B"}}', "/symbol", b"A"),
        (b'{"a":{"b":1},"a":{"b":2}}', "/a/b", b"2"),
        (b'{"a":{"b":1},"a":{}}', "/a/b", None),
        (b'{"a":[{"b":1},{"b":2}]}', "/a/1/b", b"2"),
        # Space, escapes, other scripts.
        (b'{\r\n"symbol"\t:\n "A" }', "/symbol", b"A"),
        (rb'{"symbol":"\ud83d\ude00"}', "/symbol", "\N{GRINNING FACE}".encode()),
        (rb'{"symbol":"\u0000\n\"\\"}', "/symbol", b'\0\n"\\'),
        (rb'{"symbol":"A","x":"\\"}', "/symbol", b"A"),
        ('{"symbol":"e\u0301"}'.encode(), "/symbol", b"e\xcc\x81"),
        ('{"\u00e9":"A"}'.encode(), "/\u00e9", b"A"),
        (rb'{"\u00e9":"A"}', "/\u00e9", b"A"),
        (rb'{"a\"b":"A"}', '/a"b', b"A"),
        # Numbers are keys as they are written, whatever their size.
        (b'{"symbol":1e400}', "/symbol", b"1e400"),
        (b'{"symbol":-0}', "/symbol", b"-0"),
        (b'{"symbol":' + b"9" * 5000 + b"}", "/symbol", b"9" * 5000),
        (b'{"symbol":"' + b"A" * 5000 + b'"}', "/symbol", b"A" * 5000),
    ],
)
def test_the_key_is_the_last_value_of_that_name(record: bytes, pointer: str, expected: bytes | None) -> None:
    assert record_key(record, parse_pointer(pointer)) == expected
    (published,) = parsed(b"[" + record + b"]").records
    assert record_key(published, parse_pointer(pointer)) == expected


KEY_NAMES = ['"symbol"', r'"sym\u0062ol"', '"Symbol"', '"x"']
KEY_VALUES = [
    '"A"',
    '"symbol"',
    r'"\u00e9\/"',
    '"\u00e9"',
    '""',
    "1.50",
    "-0",
    "true",
    "null",
    "[1]",
    '{"symbol":"B"}',
    '":"',
]


@given(
    members=st.lists(st.tuples(st.sampled_from(KEY_NAMES), st.sampled_from(KEY_VALUES), SPACE), max_size=4), space=SPACE
)
def test_the_key_is_what_the_standard_librarys_reader_finds(members: list[tuple[str, str, str]], space: str) -> None:
    record = "{" + space + ",".join(f"{gap}{name}{gap}:{gap}{value}{gap}" for name, value, gap in members) + "}"
    value = json.loads(record, parse_int=Literal, parse_float=Literal).get("symbol")
    expected = json.dumps(value) if isinstance(value, bool) else value
    assert record_key(record.encode(), parse_pointer("/symbol")) == (
        expected.encode() if isinstance(expected, str) else None
    )


class Literal(str):
    """A number as it is written."""

    __slots__ = ()


MIB = 1 << 20


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated at a time during the work, beyond what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with contextlib.suppress(BodyError):
            work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


TOO_DEEP = b'{"d":' + b"[" * 2000 + b"]" * 2000 + b"}]"
DENSE = {
    "digits": b"[" + b"1," * (4 * MIB) + b"1]",
    "empty objects": b"[" + b"{}," * (3 * MIB) + b"{}]",
    "empty texts": b"[" + b'"",' * (3 * MIB) + b'""]',
    "empty arrays in an object": b'{"tickers":[' + b"[]," * (3 * MIB) + b"[]]}",
    "members of the root": b"{" + b",".join(b'"%d":1' % n for n in range(MIB)) + b"}",
    "openings": b"[" * (8 * MIB),
    "a long text beside a record nested too deep": b'[{"a":"' + b"x" * (8 * MIB) + b'"},' + TOO_DEEP,
    "escapes beside a record nested too deep": b'[{"a":"' + rb"\n" * (4 * MIB) + b'"},' + TOO_DEEP,
}  # fmt: skip


@pytest.mark.parametrize("dense", DENSE)
@pytest.mark.parametrize("pointer", ["", "/tickers", "/0/tickers", '/a"b'])
def test_a_dense_body_costs_no_more_than_its_own_size_a_few_times(dense: str, pointer: str) -> None:
    body = bytearray(DENSE[dense])
    parsed_pointer = parse_pointer(pointer)
    assert peak_bytes(lambda: parse(body, parsed_pointer, 100_000)) < 5 * len(body) + 8 * MIB


@pytest.mark.parametrize("pointer", ["", "/tickers"])
def test_a_dense_body_within_the_cap_on_records_is_taken_apart(pointer: str) -> None:
    record = b'{"a":[' + b"1," * 499 + b"1]}"
    array = b"[ " + b" , ".join([record] * 6000) + b"]"
    body = array if not pointer else b'{"status":"OK","tickers":' + array + b"}"
    assert body.count(b",") > 2_000_000
    assert list(parse(body, parse_pointer(pointer), 6000).records) == [record] * 6000
    with pytest.raises(BodyError, match=r"holds more than 5999 records, API_MAX_RECORDS allows 5999"):
        parse(body, parse_pointer(pointer), 5999)


def test_a_full_market_of_30_000_tickers_is_not_dense() -> None:
    """A walk would take ten times as long: who is counted by it is told of "more than" so many."""
    ticker = b"{" + b",".join(b'"m%d":123456' % n for n in range(40)) + b"}"
    body = b'{"tickers":[' + b",".join([ticker] * 30_000) + b"]}"
    with pytest.raises(BodyError, match=r"holds 30000 records, API_MAX_RECORDS allows 29999"):
        parse(body, parse_pointer("/tickers"), 29_999)


def test_a_record_that_the_consumer_would_not_take_for_json_is_set_aside() -> None:
    deep = b'{"a":' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}"
    most = b'{"a":' + b"[" * (MAX_NESTING - 1) + b"]" * (MAX_NESTING - 1) + b"}"
    for body in (
        b"[" + deep + b"," + most + b"]",
        b'[{"d":' + b"[" * 5000 + b"]" * 5000 + b"}," + deep + b"," + most + b"]",
    ):
        taken = parse(body, parse_pointer(""), 10)
        assert list(taken.records) == [most]
        assert {each.reason for each in taken.set_aside} == {"nested_too_deep"}


def test_a_record_too_large_for_any_topic_is_set_aside_uncopied_and_its_siblings_go_on() -> None:
    giant = b'{"x":"' + b"x" * MAX_RECORD_BYTES + b'"}'
    body = bytearray(b'[{"a":1},' + giant + b',{"b":2}]')
    taken: list[Parsed] = []
    assert peak_bytes(lambda: taken.append(parse(body, parse_pointer(""), 3))) < MIB
    assert list(taken[0].records) == [b'{"a":1}', b'{"b":2}']
    assert [(each.index, each.reason, each.first_bytes) for each in taken[0].set_aside] == [
        (1, "too_large", giant[:80])
    ]


def test_a_record_just_within_what_a_topic_may_take_passes() -> None:
    record = b'{"x":"' + b"x" * (MAX_RECORD_BYTES - 8) + b'"}'
    assert list(parse(b"[" + record + b"]", parse_pointer(""), 1).records) == [record]


@pytest.mark.parametrize("member", ["error", "message", "status"])
def test_an_error_as_large_as_the_body_is_not_copied(member: str) -> None:
    body = bytearray(b'{"%s":"' % member.encode() + rb"\n" * (4 * MIB) + b'"}')
    with pytest.raises(ApiError) as caught:
        parse(body, parse_pointer("/results"), 1)
    assert len(caught.value.quoted) < 4096
    assert peak_bytes(lambda: parse(body, parse_pointer("/results"), 1)) < MIB
