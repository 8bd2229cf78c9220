from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.array_walk import item_spans

if TYPE_CHECKING:
    from collections.abc import Callable

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
WRITERS: list[Callable[[object], str]] = [
    json.dumps,
    lambda value: json.dumps(value, indent="\t"),
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
]


@given(st.lists(NESTED, max_size=6), st.sampled_from(WRITERS))
def test_the_spans_are_the_items_a_decoder_finds(items: list[object], write: Callable[[object], str]) -> None:
    text = write(items).encode()
    spans = [text[start:end].strip() for start, end in item_spans(text)]
    assert spans == [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]


@pytest.mark.parametrize("text", [b"[]", b"[ ]", b"[\r\n\t ]"])
def test_an_empty_array_has_no_items(text: bytes) -> None:
    assert list(item_spans(text)) == []


def test_what_looks_like_structure_inside_a_string_is_none() -> None:
    text = rb'["a,b", "]", "\"],[", {"k\\":"},{"}, ["\\"] ]'
    assert [text[start:end].strip() for start, end in item_spans(text)] == [
        b'"a,b"',
        b'"]"',
        rb'"\"],["',
        rb'{"k\\":"},{"}',
        rb'["\\"]',
    ]


def test_the_walk_stops_when_nobody_asks_on_and_takes_any_kind_of_bytes() -> None:
    for array in (b"[1,2,3]", bytearray(b"[1,2,3]"), memoryview(b"[1,2,3]")):
        assert next(iter(item_spans(array))) == (1, 2)


@pytest.mark.parametrize("nested", [b"[[],[]]", b'{"a":[{}]}'])
@pytest.mark.parametrize("rest", [b"", b" ", b"\n\t,", b" , 1 ", b",[]"])
def test_a_nested_item_ends_where_it_ends_whatever_follows(nested: bytes, rest: bytes) -> None:
    if rest.strip() == b",":
        rest += b"2"
    array = b"[ " + nested + rest + b"]"
    assert next(iter(item_spans(array))) == (1, array.index(nested) + len(nested) + len(rest.partition(b",")[0]))


def test_an_item_of_a_million_brackets_is_passed_at_the_decoders_speed() -> None:
    """A step in Python for each would be a second for two million of them; a body has room for 60 million."""
    item = b"[" + b"[]," * (1 << 21) + b"[]]"
    began = time.process_time()
    assert next(iter(item_spans(b"[" + item + b"]"))) == (1, 1 + len(item))
    assert time.process_time() - began < 1.0
