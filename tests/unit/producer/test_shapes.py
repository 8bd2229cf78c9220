"""What becomes of the answers of real APIs; where each shape comes from: tests/fixtures/api/README.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from producer.answer import Use, judge
from producer.endpoint import build_endpoint, parse_auth, split_url
from producer.parser import ApiError, parse, record_key
from producer.pointer import parse_pointer
from producer.selection import Select, select

FOLDER = Path(__file__).parents[2] / "fixtures" / "api"
NOW = 1_800_000_000.0
LIMIT = 100_000


def body(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def published(name: str, pointer: str) -> list[bytes]:
    """What `SELECT=all` takes of it. Nothing of a fixture is set aside."""
    parsed = parse(body(name), parse_pointer(pointer), LIMIT)
    assert not parsed.set_aside
    return [bytes(record) for record in select(Select.ALL, parsed.records, lambda count: count - 1)]


def keys(records: list[bytes], pointer: str) -> list[str | None]:
    found = [record_key(record, parse_pointer(pointer)) for record in records]
    return [None if key is None else key.decode() for key in found]


def written(name: str, array: str) -> list[bytes]:
    """The objects of the array behind the first match, as the standard library's reader delimits them."""
    text = body(name).decode()
    found = re.search(array, text)
    assert found is not None
    decoder = json.JSONDecoder()
    position = found.end()
    records = []
    while text[position := position + len(re.match(r"[\s,]*", text[position:])[0])] != "]":  # type: ignore[index]
        end = decoder.raw_decode(text, position)[1]
        records.append(text[position:end].encode())
        position = end
    return records


TICKERS = r'"tickers":\['
RESULTS = r'"results": ?\['
ROOT = r"^\s*\["


@pytest.mark.parametrize(
    ("name", "pointer", "array", "key_pointer", "expected"),
    [
        ("massive_snapshot_advanced", "/tickers", TICKERS, "/ticker", ["AAPL", "BRK.A", "ABC.WS", "BCpB"]),
        ("massive_snapshot_developer", "/tickers", TICKERS, "/ticker", ["MSFT", "GOOGL"]),
        ("massive_snapshot_starter", "/tickers", TICKERS, "/ticker", ["NVDA", "TSLA"]),
        ("massive_snapshot_before_open", "/tickers", TICKERS, "/ticker", ["AAPL", "ZVZZT"]),
        ("massive_snapshot_cleared", "/tickers", TICKERS, "/ticker", []),
        ("massive_grouped_daily", "/results", RESULTS, "/T", ["KIMO", "TARO", "VSAT"]),
        (
            "massive_unified_snapshot",
            "/results",
            RESULTS,
            "/ticker",
            ["O:NCLH281020C00005000", "APx", "AAPL", "I:SPX", "C:EURUSD"],
        ),
        ("massive_unified_snapshot_last_page", "/results", RESULTS, "/ticker", ["TSLAAPL"]),
        ("binance_ticker_price", "", ROOT, "/symbol", ["ETHBTC", "BTCUSDT", "币安人生USDT"]),
        ("coinbase_products", "", ROOT, "/id", ["BTC-USD", "WLUNA-USD"]),
    ],
)
def test_every_record_of_an_array_is_published_byte_for_byte_under_its_key(
    name: str, pointer: str, array: str, key_pointer: str, expected: list[str]
) -> None:
    records = published(name, pointer)
    assert records == written(name, array)
    assert keys(records, key_pointer) == expected


@pytest.mark.parametrize(
    ("name", "pointer", "literal"),
    [
        ("massive_snapshot_advanced", "/tickers", b'"t":1799947959994246103}'),
        ("massive_snapshot_advanced", "/tickers", b'"ds":"0.000025"'),
        ("massive_snapshot_advanced", "/tickers", b'"todaysChange":-1.0550000000000068'),
        ("massive_snapshot_advanced", "/tickers", b'"v":9.007199254740993e+15'),
        ("massive_snapshot_advanced", "/tickers", b'"o":0.00010,"v":1.0e+2,'),
        ("massive_snapshot_advanced", "/tickers", b'"todaysChange":-0,"todaysChangePerc":-0.0,'),
        ("massive_snapshot_developer", "/tickers", b'"i":"9007199254740993"'),
        ("massive_grouped_daily", "/results", b'"v":4.3756403e+07,'),
        ("massive_grouped_daily", "/results", b'"otc":true}'),
        ("massive_unified_snapshot", "/results", b"\\u2013 United"),
        ("massive_unified_snapshot", "/results", b'"value": 1.0850\n'),
        ("coinbase_products", "", b"ended\\/stopped"),
        ("binance_ticker_price", "", b'"price":"0.03051000"'),
    ],
)
def test_no_number_and_no_escape_is_written_anew(name: str, pointer: str, literal: bytes) -> None:
    assert any(literal in record for record in published(name, pointer))


def test_parts_that_a_plan_has_not_are_not_made_up() -> None:
    names = ("massive_snapshot_advanced", "massive_snapshot_developer", "massive_snapshot_starter")
    parts = [set(json.loads(published(name, "/tickers")[0])) & {"lastTrade", "lastQuote"} for name in names]
    assert parts == [{"lastTrade", "lastQuote"}, {"lastTrade"}, set()]


def test_a_day_without_trading_has_no_results_and_is_no_error() -> None:
    parsed = parse(body("massive_grouped_daily_holiday"), parse_pointer("/results"), LIMIT)
    assert list(parsed.records) == []
    assert not parsed.found


def test_an_error_in_place_of_one_ticker_is_a_record_like_the_others() -> None:
    """It is what the API says of that ticker at that time: whoever reads the topic decides what it means."""
    records = published("massive_unified_snapshot", "/results")
    errors = [record for record in records if b'"error"' in record]
    assert [json.loads(record)["error"] for record in errors] == ["NOT_FOUND", "NOT_ENTITLED"]
    assert keys(errors, "/ticker") == ["APx", "I:SPX"]
    assert published("massive_unified_snapshot_last_page", "/results") == [
        b'{"error":"NOT_FOUND","message":"Ticker not found.","ticker":"TSLAAPL"}'
    ]


def test_the_next_page_is_asked_of_the_same_host_with_the_key_again() -> None:
    link = parse_pointer("/next_url").find(msgspec.Raw(body("massive_unified_snapshot")))
    assert link is not None
    first = build_endpoint(split_url("https://api.massive.com/v3/snapshot?limit=5"), parse_auth("query:apiKey"), "K")
    cursor = "YXA9OTQ0NjY5MTcmYXM9JmxpbWl0PTUmc29ydD10aWNrZXI"
    assert first.page(json.loads(bytes(link))).url == f"https://api.massive.com/v3/snapshot?cursor={cursor}&apiKey=K"
    last = msgspec.Raw(body("massive_unified_snapshot_last_page"))
    assert parse_pointer("/next_url").find(last) is None


@pytest.mark.parametrize(
    ("name", "pointer", "said"),
    [
        ("massive_error_401", "/tickers", b"Unknown API Key"),
        ("massive_error_401", "", b"Unknown API Key"),
        ("massive_error_403", "/results", b"You are not entitled to this data."),
        ("massive_error_429", "/tickers", b"exceeded the maximum requests per minute"),
        ("massive_error_in_200", "/tickers", b"snapshot not available"),
        ("kraken_error_in_200", "/result", b"EQuery:Unknown asset pair"),
        ("kraken_error_in_200", "/result/XXBTZUSD", b"EQuery:Unknown asset pair"),
    ],
)
def test_an_error_body_is_an_api_error_that_quotes_it_even_with_http_200(name: str, pointer: str, said: bytes) -> None:
    assert judge(200, {}, NOW).use is Use.READ
    with pytest.raises(ApiError, match=r"^the API answered with an error$") as caught:
        published(name, pointer)
    assert said in caught.value.quoted


@pytest.mark.parametrize(
    ("status", "use", "reason"),
    [
        (401, Use.REFUSE, "HTTP 401: check API_KEY, API_AUTH and what the plan allows"),
        (403, Use.REFUSE, "HTTP 403: check API_KEY, API_AUTH and what the plan allows"),
        (429, Use.WAIT, "HTTP 429: told to wait 60 s"),
        (400, Use.REFUSE, "HTTP 400"),
        (404, Use.REFUSE, "HTTP 404: check API_URL"),
    ],
)
def test_beside_an_error_status_the_status_decides(status: int, use: Use, reason: str) -> None:
    verdict = judge(status, {"content-type": "application/json"}, NOW)
    assert (verdict.use, verdict.reason) == (use, reason)


@pytest.mark.parametrize(("name", "pointer"), [("kraken_ticker", "/result"), ("coingecko_simple_price", "")])
def test_an_object_of_objects_by_symbol_is_one_record_without_a_key(name: str, pointer: str) -> None:
    """No pointer takes it apart: RFC 6901 names one value, and the symbols are names, not values."""
    whole = parse_pointer(pointer).find(msgspec.Raw(body(name)))
    assert whole is not None
    assert published(name, pointer) == [bytes(whole).strip()]
    assert keys(published(name, pointer), "/symbol") == [None]


@pytest.mark.parametrize(
    ("name", "pointer", "key_pointer", "begins", "key"),
    [
        ("kraken_ticker", "/result/XXBTZUSD", "/symbol", b'{"a":["95023.20000"', None),
        ("kraken_ticker", "/result/XETHZUSD", "/c/0", b'{"a":["2899.51000"', "2899.50000"),
        ("coingecko_simple_price", "/bitcoin", "/symbol", b'{"usd":95023,', None),
    ],
)
def test_a_pointer_reaches_one_symbol_of_it_whose_name_is_no_key(
    name: str, pointer: str, key_pointer: str, begins: bytes, key: str | None
) -> None:
    (record,) = published(name, pointer)
    assert record.startswith(begins)
    assert keys([record], key_pointer) == [key]


def test_an_error_of_other_names_is_told_by_its_status_alone() -> None:
    """`code` and `msg` say nothing to the parser, so with HTTP 200 it would be one record; the API sends 400."""
    assert judge(400, {}, NOW).use is Use.REFUSE
    assert published("binance_error_400", "") == [b'{"code":-1121,"msg":"Invalid symbol."}']
    assert keys(published("binance_error_400", ""), "/symbol") == [None]


def test_every_fixture_is_read_by_a_test_and_has_its_origin() -> None:
    tests, origins = Path(__file__).read_text(), (FOLDER / "README.md").read_text()
    names = {path.stem for path in FOLDER.glob("*.json")}
    assert names
    assert {name for name in names if f'"{name}"' not in tests} == set()
    assert set(re.findall(r"`(\w+)\.json`", origins)) == names
