"""The sample market: its walk and its shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.market import Market
from demo.symbols import DEFAULT_COUNT, MOST, symbols

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def tickers(market: Market) -> list[Mapping[str, Mapping[str, float]]]:
    return cast("list[Mapping[str, Mapping[str, float]]]", market.snapshot()["tickers"])


@given(seed=st.integers(), moves=st.integers(0, 40))
def test_prices_stay_inside_their_bars_and_quotes_around_them(seed: int, moves: int) -> None:
    market = Market(symbols(5), seed, NOW)
    for step in range(moves):
        market.move(NOW + step * 20 * SECOND)
    for ticker in tickers(market):
        for bar in (ticker["day"], ticker["min"], ticker["prevDay"]):
            assert 0 < bar["l"] <= min(bar["o"], bar["c"]) <= max(bar["o"], bar["c"]) <= bar["h"]
            assert bar["l"] - 0.01 <= bar["vw"] <= bar["h"] + 0.01
        assert ticker["lastQuote"]["p"] <= ticker["lastTrade"]["p"] <= ticker["lastQuote"]["P"]
        assert ticker["lastTrade"]["p"] == ticker["day"]["c"]


def test_the_same_seed_walks_the_same_way() -> None:
    bodies = []
    for _ in range(2):
        market = Market(symbols(), 7, NOW)
        market.move(NOW + SECOND)
        bodies.append(json.dumps(market.snapshot()))
    assert bodies[0] == bodies[1]


def test_a_move_changes_most_quotes_and_leaves_some_as_they_were() -> None:
    market = Market(symbols(), 7, NOW)
    before = {json.dumps(ticker) for ticker in tickers(market)}
    market.move(NOW + SECOND)
    same = sum(json.dumps(ticker) in before for ticker in tickers(market))
    assert 0 < same < DEFAULT_COUNT / 2


def test_the_envelope_and_its_records_have_the_vendors_fields() -> None:
    envelope = Market(["AAPL"], 1, NOW).snapshot()
    assert (envelope["status"], envelope["count"]) == ("OK", 1)
    (ticker,) = cast("list[dict[str, dict[str, object]]]", envelope["tickers"])
    assert ticker.keys() == {
        "ticker", "todaysChange", "todaysChangePerc", "updated", "day", "min", "lastTrade", "lastQuote", "prevDay",
    }  # fmt: skip
    values: dict[str, object] = dict(ticker)
    assert values["ticker"] == "AAPL"
    assert values["updated"] == NOW
    assert ticker["day"].keys() == {"o", "h", "l", "c", "v", "vw"}
    assert ticker["lastTrade"].keys() == {"p", "s", "t", "x", "c", "i"}
    assert ticker["lastQuote"].keys() == {"p", "P", "s", "S", "t"}
    assert cast("float", ticker["day"]["c"]) == pytest.approx(231, rel=0.05)


def test_the_bare_array_holds_strings_with_two_decimals() -> None:
    assert all(
        quote.keys() == {"symbol", "price"} and quote["price"][-3] == "."
        for quote in Market(symbols(), 1, NOW).prices()
    )


def test_there_are_as_many_different_symbols_as_asked_for() -> None:
    assert 400 < DEFAULT_COUNT < 1000
    assert len(set(symbols(MOST))) == MOST
    assert symbols(2) == ["AAPL", "MSFT"]
    for wrong in (0, MOST + 1):
        with pytest.raises(ValueError, match="1 to 12000"):
            symbols(wrong)
