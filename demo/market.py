"""A market that walks at random, in the shapes a real vendor's snapshot API sends.

Owns: prices and how they move, the two JSON shapes. Does not own: the clock (times come in) or HTTP (`market_api`).
Invariants: the same seed and the same moves give the same quotes; low <= price <= high; a price is never below a cent.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.symbols import PRICES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

STEP_DEVIATION = 0.0004  # of the price, per move; makes some percent over a day of moves
MOVING_SHARE = 0.7  # the rest keep their quote, bytes and all, until the next move
EXCHANGES = (4, 8, 10, 11, 12, 15, 19)
CENT = 0.01
ROUND_LOT = 100  # shares; smaller trades carry the odd-lot condition


@dataclass(slots=True, kw_only=True)
class Bar:
    """Open, high, low, close, volume in shares, turnover in dollars."""

    open: float
    high: float
    low: float
    close: float
    volume: int = 0
    turnover: float = 0.0

    @classmethod
    def at(cls, price: float) -> Bar:
        """A bar in which nothing has been traded yet."""
        return cls(open=price, high=price, low=price, close=price)

    def trade(self, price: float, size: int) -> None:
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume += size
        self.turnover += price * size

    def as_json(self) -> dict[str, float]:
        average = self.turnover / self.volume if self.volume else self.close
        return {
            "o": self.open, "h": self.high, "l": self.low, "c": self.close, "v": self.volume, "vw": round(average, 4),
        }  # fmt: skip


class Stock:
    """One symbol's day so far."""

    def __init__(self, symbol: str, chance: random.Random, now_ns: int) -> None:
        self.symbol = symbol
        price = round(PRICES.get(symbol) or min(max(chance.lognormvariate(math.log(80), 0.9), 2.0), 4000.0), 2)
        self.previous = Bar.at(price)
        self.previous.trade(price, chance.randint(200_000, 60_000_000))
        opening = _money(price * (1 + chance.gauss(0, 0.005)))
        self.day, self.minute = Bar.at(opening), Bar.at(opening)
        self.minute_number = now_ns // 60_000_000_000
        self.trade_id = chance.randint(1, 99_999)
        self.move(chance, now_ns)

    def move(self, chance: random.Random, now_ns: int) -> None:
        """One trade at a price near the last one, and quotes around it."""
        price = _money(self.day.close * (1 + chance.gauss(0, STEP_DEVIATION)))
        self.size = chance.choice((1, 5, 10, 25, 50, 100, 100, 100, 200, 300, 500))
        if (number := now_ns // 60_000_000_000) != self.minute_number:
            self.minute, self.minute_number = Bar.at(price), number
        self.day.trade(price, self.size)
        self.minute.trade(price, self.size)
        self.trade_id += 1
        self.exchange = chance.choice(EXCHANGES)
        spread = max(CENT, round(price * 0.0001, 2))
        self.bid, self.ask = _money(price - spread), _money(price + spread)
        self.bid_size, self.ask_size = chance.randint(1, 12), chance.randint(1, 12)
        self.updated_ns = now_ns

    def snapshot(self) -> dict[str, object]:
        change = self.day.close - self.previous.close
        minute_ms = self.minute_number * 60_000
        return {
            "ticker": self.symbol,
            "todaysChangePerc": round(100 * change / self.previous.close, 4),
            "todaysChange": round(change, 2),
            "updated": self.updated_ns,
            "day": self.day.as_json(),
            "lastQuote": {
                "P": self.ask, "S": self.ask_size, "p": self.bid, "s": self.bid_size, "t": self.updated_ns,
            },
            "lastTrade": {
                "c": [14, 41] if self.size >= ROUND_LOT else [37], "i": str(self.trade_id), "p": self.day.close,
                "s": self.size, "t": self.updated_ns, "x": self.exchange,
            },
            "min": {"av": self.day.volume, "t": minute_ms, "n": 1, **self.minute.as_json()},
            "prevDay": self.previous.as_json(),
        }  # fmt: skip


class Market:
    """All symbols. `now_ns`: nanoseconds since 1970."""

    def __init__(self, symbols: Sequence[str], seed: int, now_ns: int) -> None:
        self._chance = random.Random(seed)
        self._stocks = [Stock(symbol, self._chance, now_ns) for symbol in symbols]

    def move(self, now_ns: int) -> None:
        """One step of the walk."""
        for stock in self._stocks:
            if self._chance.random() < MOVING_SHARE:
                stock.move(self._chance, now_ns)

    def snapshot(self, wanted: Collection[str] | None = None) -> dict[str, object]:
        """The vendor's envelope; `wanted` = only these symbols."""
        tickers = [stock.snapshot() for stock in self._stocks if wanted is None or stock.symbol in wanted]
        return {"status": "OK", "count": len(tickers), "tickers": tickers}

    def prices(self) -> list[dict[str, str]]:
        """The bare array of string maps that the original system polled."""
        return [{"symbol": stock.symbol, "price": f"{stock.day.close:.2f}"} for stock in self._stocks]


def _money(price: float) -> float:
    return max(CENT, round(price, 2))
