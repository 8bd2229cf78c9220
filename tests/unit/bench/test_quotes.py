from __future__ import annotations

import json
import zlib

import pytest

from bench import quotes

SHAPES = (quotes.QUOTE, quotes.SNAPSHOT, quotes.TRADE)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


@each_shape
def test_every_value_is_json_of_the_shapes_length_and_says_where_it_belongs(shape: quotes.Shape) -> None:
    for offset, value in enumerate(quotes.values(shape, 3, 1_000, 200), 1_000):
        assert len(value) == shape.value_bytes
        assert isinstance(json.loads(value), dict)
        assert quotes.place(value) == (3, offset)


@each_shape
def test_a_value_does_not_depend_on_the_range_it_is_asked_for_in(shape: quotes.Shape) -> None:
    whole = quotes.values(shape, 7, 0, 21_000)  # more than there are tails
    assert quotes.values(shape, 7, 20_000, 1_000) == whole[20_000:]
    assert len(set(whole)) == len(whole)


@each_shape
def test_values_compress_about_as_a_markets_do(shape: quotes.Shape) -> None:
    body = b"\n".join(quotes.values(shape, 0, 0, 2_000))
    assert 2.5 < len(body) / len(zlib.compress(body, 1)) < 5


def test_keys_go_with_the_values() -> None:
    (key,) = quotes.keys(2, 500, 1)
    (value,) = quotes.values(quotes.QUOTE, 2, 500, 1)
    assert json.loads(value)["symbol"] == key.decode()


@pytest.mark.parametrize("value", [b"", b"{}", b'{"a":1}', b'{"exchange":x,"sequence":1000000,'])
def test_what_is_no_quote_has_no_place(value: bytes) -> None:
    with pytest.raises(ValueError, match="no quote of the bench's"):
        quotes.place(value)
