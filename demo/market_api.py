"""The sample market API: `python -m demo.market_api`. Needs aiohttp and nothing else of ours but `market`.

    GET /v2/snapshot/locale/us/markets/stocks/tickers   the vendor's snapshot envelope; wants the key, as
                                                        `Authorization: Bearer KEY` or `?apiKey=KEY`;
                                                        `?tickers=AAPL,MSFT` gives only those
    GET /prices                                         [{"symbol":"AAPL","price":"175.23"},...], no key wanted
    GET /healthz                                        200 while it serves

Owns: HTTP, the clock of the market (one step a second at most, taken when somebody asks), the key.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import signal
import time
import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from demo.market import Market
from demo.symbols import DEFAULT_COUNT, MOST, symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SNAPSHOT_PATH = "/v2/snapshot/locale/us/markets/stocks/tickers"
PRICES_PATH = "/prices"
DEFAULT_KEY = "demo-key"
STEP_NS = 1_000_000_000


class MarketApi:
    """The three paths over one market. `clock_ns` gives nanoseconds since 1970."""

    def __init__(self, count: int, seed: int, key: str, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._key = key.encode()
        self._moved_ns = clock_ns()
        self._market = Market(symbols(count), seed, self._moved_ns)
        self._bodies: dict[str, bytes] = {}  # what was made since the last move

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_get(SNAPSHOT_PATH, self.snapshot)
        app.router.add_get(PRICES_PATH, self.prices)
        app.router.add_get("/healthz", self.healthz)
        return app

    async def snapshot(self, request: web.Request) -> web.Response:
        if (fault := self._key_fault(request)) is not None:
            refusal = {"status": "ERROR", "request_id": uuid.uuid4().hex, "error": fault}
            return _json(json.dumps(refusal).encode(), status=401)
        self._move()
        if "tickers" in request.query:
            wanted = set(request.query["tickers"].upper().split(","))
            return _json(json.dumps(self._market.snapshot(wanted), separators=(",", ":")).encode())
        return _json(self._body(SNAPSHOT_PATH, self._market.snapshot))

    async def prices(self, _request: web.Request) -> web.Response:
        self._move()
        return _json(self._body(PRICES_PATH, self._market.prices))

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    def _key_fault(self, request: web.Request) -> str | None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.query.get("apiKey", "")
        if not given:
            return "API Key was not provided"
        return None if hmac.compare_digest(given.strip().encode(), self._key) else "Unknown API Key"

    def _move(self) -> None:
        now_ns = self._clock_ns()
        if now_ns - self._moved_ns >= STEP_NS:
            self._market.move(now_ns)
            self._moved_ns = now_ns
            self._bodies.clear()

    def _body(self, path: str, make: Callable[[], object]) -> bytes:
        if path not in self._bodies:
            self._bodies[path] = json.dumps(make(), separators=(",", ":")).encode()
        return self._bodies[path]


def _json(body: bytes, status: int = 200) -> web.Response:
    response = web.Response(body=body, status=status, content_type="application/json")
    response.enable_compression()  # as the client accepts
    return response


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; the environment's MARKET_API_KEY is the key's default."""
    parser = argparse.ArgumentParser(prog="python -m demo.market_api", description="A market API with made-up quotes.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 = any (%(default)s)")
    parser.add_argument("--symbols", type=int, default=DEFAULT_COUNT, help=f"1 to {MOST} (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed walks the same way (%(default)s)")
    default_key = os.environ.get("MARKET_API_KEY") or DEFAULT_KEY
    parser.add_argument("--key", default=default_key, help="the API key it wants (MARKET_API_KEY, else demo-key)")
    found = parser.parse_args(given)
    if not 1 <= found.symbols <= MOST:
        parser.error(f"--symbols {found.symbols}: allowed are 1 to {MOST}")
    return found


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    api = MarketApi(options.symbols, options.seed, options.key)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        port = runner.addresses[0][1]
        print(f"Market API: {options.symbols} symbols at http://{options.host}:{port}{SNAPSHOT_PATH}", flush=True)
        await stopped.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
