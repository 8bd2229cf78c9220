"""The short way to a record's key gives what the long way gives, or nothing."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer.pointer import parse_pointer

NAMES = st.sampled_from(("symbol", "T", "a b", "S", "é", 'q"', "b\\", "", "0"))
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | NAMES
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Objects with members in any order, twice the same name included, any spacing, escaped or not."""
    ascii_only = draw(st.booleans())

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    def name(value: str) -> str:
        return "".join(f"\\u{ord(c):04x}" for c in value).join('""') if draw(st.integers(0, 5)) == 0 else text(value)

    space = draw(st.sampled_from(("", " ", "\n\t ")))
    members = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    inner = f"{space},{space}".join(f"{name(key)}{space}:{space}{text(value)}" for key, value in members)
    return f"{{{space}{inner}{space}}}".encode()


@given(document=documents(), name=NAMES)
@example(document=b'{"T":"A","T":"B"}', name="T")
@example(document=b'{"T":"A","\\u0054":"B"}', name="T")
@example(document=b'{"S":{"T":"A"},"T":"B"}', name="T")
def test_a_leading_string_is_the_one_that_is_found(document: bytes, name: str) -> None:
    pointer = parse_pointer("/" + name)
    short = pointer.leading_string(document)
    if short is not None:
        assert pointer.find(msgspec.Raw(document)) == msgspec.Raw(b'"' + short + b'"')


@pytest.mark.parametrize(
    "document", [b'{"ticker":"AAPL","p":1}', b'{ "ticker" :\n"BRK.B" }', '{"ticker":"é"}'.encode()]
)
def test_the_short_way_is_taken_where_a_record_begins_with_its_key(document: bytes) -> None:
    assert parse_pointer("/ticker").leading_string(document) == json.loads(document)["ticker"].encode()


@pytest.mark.parametrize(
    "document",
    [b'{"p":1,"ticker":"A"}', b'{"ticker":"A","ticker":"B"}', b'{"ticker":"A\\u0042"}', b'{"ticker":1}', b"{}", b"[]"],
)
def test_anything_else_is_left_to_the_long_way(document: bytes) -> None:
    assert parse_pointer("/ticker").leading_string(document) is None
