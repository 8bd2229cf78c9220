"""An independent engine reads what the consumer stored: DuckDB over the object files, with no line of ours between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb

from demo.market import Market
from demo.symbols import symbols
from tests.processes import ServiceProcess
from tests.servers import Produced, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import S3, Kafka

PARTITIONS = 4
SYMBOLS, SNAPSHOTS = 1_000, 20
START_MS = 1_764_028_770_000  # 2025-11-24T23:59:30Z: the snapshots fall into two days
STEP_MS = 3_000

# One row a record. Names by JSON paths: they tell `p`, the bid, from `P`, the ask.
ROWS = """
    SELECT regexp_extract(filename, '(\\d{{5}})-\\d{{20}}\\.', 1)::INT AS partition,
           json ->> '$.ticker', (json ->> '$.lastQuote.p')::DOUBLE, (json ->> '$.lastQuote.P')::DOUBLE
    FROM read_ndjson_objects('{files}', hive_partitioning = true, filename = true)
    ORDER BY ALL
"""
FOLDERS = """
    SELECT topic, dt::VARCHAR, hour, count(*)
    FROM read_ndjson_objects('{files}', hive_partitioning = true)
    GROUP BY ALL ORDER BY ALL
"""


def snapshots() -> list[Produced]:
    """20,000 quotes of the sample API's shape; the records bear the times of their snapshots."""
    market = Market(symbols(SYMBOLS), 7, START_MS * 1_000_000)
    found = []
    for number in range(SNAPSHOTS):
        now_ms = START_MS + number * STEP_MS
        market.move(now_ms * 1_000_000)
        tickers = market.snapshot()["tickers"]
        assert isinstance(tickers, list)
        found += [Produced(value=json.dumps(t).encode(), key=t["ticker"].encode(), timestamp=now_ms) for t in tickers]
    return found


async def test_duckdb_finds_in_the_files_exactly_what_the_topic_holds(
    kafka: Kafka, s3: S3, bucket: str, group: str, tmp_path: Path
) -> None:
    # Kept although the records are old.
    topic = await kafka.create_topic(PARTITIONS, {"retention.ms": "-1"})
    sent = snapshots()
    await kafka.produce(topic, sent)
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": group,
        "S3_BUCKET": bucket,
        "BATCH_MAX_RECORDS": "700",
        "BATCH_MAX_SECONDS": "2",
        **s3.environ(),
    }
    with ServiceProcess(["consumer"], settings, tmp_path) as consumer:
        await eventually(
            lambda: sum(int(str(line["records"])) for line in consumer.lines("Uploaded")) >= len(sent),
            "every record uploaded",
        )
        assert await consumer.stop() == 0

    on_topic = []
    for partition, records in (await kafka.read(topic)).items():
        for record in records:
            quote = json.loads(record.value or b"")
            on_topic.append((partition, quote["ticker"], quote["lastQuote"]["p"], quote["lastQuote"]["P"]))
    files = f"{s3.folder(bucket)}/topic={topic}/**/*.jsonl.gz"
    with duckdb.connect() as engine:
        stored = engine.execute(ROWS.format(files=files)).fetchall()
        folders = engine.execute(FOLDERS.format(files=files)).fetchall()

    assert len(on_topic) == len(sent)
    assert stored == sorted(on_topic)
    assert {row[0] for row in stored} == set(range(PARTITIONS))
    assert all(bid < ask for _, _, bid, ask in stored)
    days = [(topic, "2025-11-24", "23"), (topic, "2025-11-25", "00")]
    assert [row[:3] for row in folders] == days
    assert sum(row[3] for row in folders) == len(sent)
