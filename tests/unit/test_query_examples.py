"""The DuckDB statements of docs/query.md run, on objects as the consumer stores them, and answer what they should."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DOC = Path(__file__).parents[2] / "docs/query.md"
NOW_NS = time.time_ns()
QUOTE = {"updated": NOW_NS, "lastTrade": {"p": 1.5, "s": 3}}


def quote(ticker: str, bid: float, ask: float) -> dict[str, object]:
    return {"ticker": ticker, "lastQuote": {"P": ask, "S": 1, "p": bid, "s": 2}, **QUOTE}


def put(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[tuple[object, ...]]]]:
    """The rows of each statement, in the document's order, over a small bucket."""
    folder = tmp_path / time.strftime("topic=task/dt=%Y-%m-%d/hour=%H", time.gmtime(NOW_NS / 1e9))
    put(folder / f"00000-{0:020d}.jsonl.gz", [quote("AAPL", 1.0, 2.0), quote("MSFT", 5.0, 6.0)])
    put(folder / f"00003-{7:020d}.jsonl.gz", [quote("AAPL", 1.25, 2.25)])
    envelope = {"timestamp": 1764061200000, "headers": [["content-type", "application/json"]]}
    quarantined = [
        {
            "offset": 7,
            "key": "AAPL",
            **envelope,
            "value_base64": base64.b64encode(b'{"p":NaN}').decode(),
            "reason": "x",
        },
        {"offset": 9, "key": None, **envelope, "value": None, "reason": "y"},
    ]
    put(tmp_path / f"_ticklake/task/quarantine/00003-{7:020d}-{10:020d}-0123456789abcdef.jsonl.gz", quarantined)
    monkeypatch.chdir(tmp_path)
    statements = re.findall(r"```sql duckdb\n(.*?)```", DOC.read_text(), re.DOTALL)
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        yield [connection.execute(statement).fetchall() for statement in statements]


def test_every_statement_runs_and_tells_bid_from_ask(answers: list[list[tuple[object, ...]]]) -> None:
    _, totals, partitions, quarantine = answers
    assert totals == [("AAPL", 2, 1.0, 2.25), ("MSFT", 1, 5.0, 6.0)]
    assert partitions == [(0, 2), (3, 1)]
    assert [(row[0], row[1], *row[3:]) for row in quarantine] == [
        (3, 7, "AAPL", "x", '{"p":NaN}'),
        (3, 9, None, "y", None),
    ]
    assert str(quarantine[0][2]) == "2025-11-25 09:00:00"
