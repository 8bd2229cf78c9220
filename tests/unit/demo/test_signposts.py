"""The query that the demo offers to paste."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import duckdb

from demo.market import Market
from demo.signposts import sql

if TYPE_CHECKING:
    from pathlib import Path


def test_the_query_runs_over_the_vendors_records_although_p_and_P_differ(tmp_path: Path) -> None:  # noqa: N802
    folder = tmp_path / "topic=task" / "dt=2026-01-01" / "hour=00"
    folder.mkdir(parents=True)
    snapshot = Market(["AAPL", "MSFT"], 1, 1_700_000_000_000_000_000).snapshot()
    tickers = snapshot["tickers"]
    assert isinstance(tickers, list)
    lines = "".join(json.dumps(ticker) + "\n" for ticker in [*tickers, tickers[0]])
    (folder / "00000-00000000000000000000.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "00000-00000000000000000000.jsonl.gz.meta.json").write_text("{}")
    rows = duckdb.connect().execute(sql(tmp_path, "task")).fetchall()
    assert [(row[0], row[1]) for row in rows] == [("AAPL", 2), ("MSFT", 1)]
    assert rows[0][2] == tickers[0]["lastTrade"]["p"]
