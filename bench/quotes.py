"""The quotes that the consumer's benchmarks load: the same bytes every time, each telling where it belongs.

Owns: shapes of values, which partition and which offset a value was written for, what a range of them looks like. Does
not own: topics (`topics`), what was found of them in a bucket (`completeness`). Pure.

Invariants: the value at an offset of a partition is a function of the shape, the partition and the offset; all values
of a shape have the same length, so that whole records fill a batch to the byte. Numbers differ from record to record
as a market's do, so that they compress as a market's do.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_PARTITIONS = 10  # one digit
MAX_OFFSET = 9_000_000  # seven digits with FIRST_SEQUENCE added
FIRST_SEQUENCE = 1_000_000
FIRST_MS = 1_764_064_800_000  # a full hour: a topic lies within one hour's objects
RECORDS_PER_MS = 8
_POOL = 20_011  # tails before one comes again: megabytes, beyond what gzip and zstd 1 look back
_PARTITION_STEP = 2_477


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of quote: where partition and sequence number stand, what follows, and the digits that fill it up."""

    name: str
    value_bytes: int
    head: str
    fields: Callable[[random.Random, str], str]
    filler: str


def values(shape: Shape, partition: int, first: int, count: int) -> list[bytes]:
    """The values at `count` offsets of a partition from `first` on."""
    template = shape.head.encode() + b"%b"
    start = _index(partition, first)
    tails = islice(cycle(_tails(shape)), start, start + count)
    begin = FIRST_SEQUENCE + first
    return [template % (partition, number, tail) for number, tail in enumerate(tails, begin)]


def keys(partition: int, first: int, count: int) -> list[bytes]:
    """The keys at those offsets: symbols."""
    start = _index(partition, first)
    return list(islice(cycle(_symbols()), start, start + count))


def timestamp_ms(offset: int) -> int:
    """The record's timestamp."""
    return FIRST_MS + offset // RECORDS_PER_MS


def place(value: bytes) -> tuple[int, int]:
    """Partition and offset that a value was written for. Raises ValueError when it is none of the bench's."""
    try:
        partition, sequence = (int(field.partition(b":")[2]) for field in value.split(b",", 2)[:2])
    except ValueError:
        message = f"no quote of the bench's: {value[:80]!r}"
        raise ValueError(message) from None
    return partition, sequence - FIRST_SEQUENCE


@cache
def digest(shape: Shape, partition: int, first: int, count: int) -> bytes:
    """SHA-256 of the values of a range as lines. Remembered: the objects of all runs have the same ranges."""
    return hashlib.sha256(b"".join([value + b"\n" for value in values(shape, partition, first, count)])).digest()


def _index(partition: int, offset: int) -> int:
    return (offset + partition * _PARTITION_STEP) % _POOL


@cache
def _symbols() -> Sequence[bytes]:
    """One for each tail; of some 4,000, those at the beginning of the alphabet more often, as on a market."""
    dice = random.Random("symbols")
    numbers = (int(4_000 * dice.random() ** 2) for _ in range(_POOL))
    return [bytes(ord("A") + number * step // 26**power % 26 for power, step in _LETTERS) for number in numbers]


_LETTERS = ((2, 1), (1, 7), (0, 3), (1, 5))


@cache
def _tails(shape: Shape) -> Sequence[bytes]:
    dice = random.Random(shape.name)
    room = shape.value_bytes - len(shape.head % (0, FIRST_SEQUENCE)) - len(f'"{shape.filler}":""}}')
    return [_tail(shape, room, dice, symbol.decode()) for symbol in _symbols()]


def _tail(shape: Shape, room: int, dice: random.Random, symbol: str) -> bytes:
    fields = shape.fields(dice, symbol)
    digits = room - len(fields)
    if digits < 1:
        message = f"a {shape.name} does not fit into {shape.value_bytes} bytes: {1 - digits} too many"
        raise ValueError(message)
    return f'{fields}"{shape.filler}":"{dice.randrange(10**digits):0{digits}d}"}}'.encode()


def _quote(dice: random.Random, symbol: str) -> str:
    price, spread = dice.randrange(500, 90_000), dice.randrange(1, 9)
    return (
        f'"symbol":"{symbol}","bid_price":{price / 100:.2f},"bid_size":{dice.randrange(1, 30) * 100},'
        f'"ask_price":{(price + spread) / 100:.2f},"ask_size":{dice.randrange(1, 30) * 100},'
        f'"last_price":{(price + dice.randrange(spread)) / 100:.2f},"volume":{dice.randrange(10_000, 9_000_000)},'
        f'"tape":"{dice.choice("ABC")}",'
    )


def _snapshot(dice: random.Random, symbol: str) -> str:
    bars = "".join(_bar(dice, name) for name in ("minute", "hour", "day", "previous_day", "week", "month"))
    conditions = f"{dice.randrange(60)},{dice.randrange(60)}"
    return f'{_quote(dice, symbol)}"conditions":[{conditions}],"market":"stocks","locale":"us",{bars}'


def _bar(dice: random.Random, name: str) -> str:
    price = dice.randrange(500, 90_000)
    open_, high, low, close = ((price + dice.randrange(-99, 99)) / 100 for _ in range(4))
    return (
        f'"{name}":{{"open":{open_:.2f},"high":{high:.2f},"low":{low:.2f},"close":{close:.2f},'
        f'"volume":{dice.randrange(1_000, 9_000_000)},"vwap":{price / 100 + dice.random():.4f},'
        f'"transactions":{dice.randrange(10, 90_000)}}},'
    )


def _trade(dice: random.Random, symbol: str) -> str:
    return f'"s":"{symbol}","p":{dice.randrange(500, 90_000) / 100:.2f},'


QUOTE = Shape(name="quote", value_bytes=200, head='{"exchange":%d,"sequence":%d,', fields=_quote, filler="quote_id")
SNAPSHOT = Shape(
    name="snapshot", value_bytes=1024, head='{"exchange":%d,"sequence":%d,', fields=_snapshot, filler="quote_id"
)
TRADE = Shape(name="trade", value_bytes=50, head='{"x":%d,"n":%d,', fields=_trade, filler="q")
