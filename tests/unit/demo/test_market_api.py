"""The sample market API over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from demo.market_api import DEFAULT_KEY, PRICES_PATH, SNAPSHOT_PATH, MarketApi, arguments
from demo.symbols import DEFAULT_COUNT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


KEY = {"Authorization": "Bearer right"}


class Clock:
    now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


Client = TestClient[web.Request, web.Application]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> AsyncIterator[Client]:
    async with TestClient(TestServer(MarketApi(10, 1, "right", clock).application())) as made:
        yield made


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "API Key was not provided"),
        ({"Authorization": "Bearer wrong"}, "Unknown API Key"),
        ({"Authorization": "Basic right"}, "API Key was not provided"),
    ],
)
async def test_the_snapshot_wants_the_key(client: Client, headers: dict[str, str], error: str) -> None:
    answer = await client.get(SNAPSHOT_PATH, headers=headers)
    assert answer.status == 401
    body = await answer.json()
    assert (body["status"], body["error"]) == ("ERROR", error)


async def test_the_key_may_come_as_bearer_or_in_the_query(client: Client) -> None:
    for answer in (await client.get(SNAPSHOT_PATH, headers=KEY), await client.get(f"{SNAPSHOT_PATH}?apiKey=right")):
        assert answer.status == 200
        assert (await answer.json())["count"] == 10


async def test_single_symbols_can_be_asked_for(client: Client) -> None:
    body = await (await client.get(f"{SNAPSHOT_PATH}?tickers=msft,AAPL,NONE", headers=KEY)).json()
    assert [ticker["ticker"] for ticker in body["tickers"]] == ["AAPL", "MSFT"]


async def test_the_bare_array_wants_no_key(client: Client) -> None:
    body = await (await client.get(PRICES_PATH)).json()
    assert body[0].keys() == {"symbol", "price"}
    assert len(body) == 10


async def test_quotes_move_once_a_second(client: Client, clock: Clock) -> None:
    first = await (await client.get(SNAPSHOT_PATH, headers=KEY)).read()
    clock.now_ns += 999_999_999
    assert await (await client.get(SNAPSHOT_PATH, headers=KEY)).read() == first
    clock.now_ns += 1
    assert await (await client.get(SNAPSHOT_PATH, headers=KEY)).read() != first


async def test_it_says_that_it_is_well(client: Client) -> None:
    assert (await client.get("/healthz")).status == 200


def test_the_key_comes_from_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments([]).key == DEFAULT_KEY
    monkeypatch.setenv("MARKET_API_KEY", "from-environment")
    assert arguments([]).key == "from-environment"
    assert arguments(["--key", "given"]).key == "given"
    assert arguments([]).symbols == DEFAULT_COUNT


def test_too_many_symbols_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments(["--symbols", "12001"])
    assert "1 to 12000" in capsys.readouterr().err
