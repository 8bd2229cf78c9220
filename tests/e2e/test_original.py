"""docs/original.md, run: one random record every poll, one object a message, and the log lines."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT, ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import S3, Kafka

NAME = re.compile(r"stock_market_(\d+)_0_(\d+)\.json")


@pytest.fixture
def prices_url(tmp_path: Path) -> Iterator[str]:
    """The sample market API as a process; the URL of the original's shape."""
    output = tmp_path / "api.out"
    with output.open("wb") as file:
        api = subprocess.Popen(
            [sys.executable, "-m", "demo.market_api", "--host", "127.0.0.1", "--port", "0"],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _url(api, output)
    finally:
        api.terminate()
        api.wait()


def _url(api: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + 60
    while (found := re.search(r"http://127\.0\.0\.1:\d+", output.read_text())) is None:
        assert api.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return f"{found[0]}/prices"


async def test_the_original_system_keeps_working(
    kafka: Kafka, s3: S3, bucket: str, group: str, topic: str, prices_url: str, tmp_path: Path
) -> None:
    both = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_TOPIC": topic, "LOG_FORMAT": "console"}
    producing = {**both, "API_URL": prices_url}
    consuming = {
        **both,
        **s3.environ(),
        "KAFKA_GROUP_ID": group,
        "S3_BUCKET": bucket,
        "BATCH_MAX_RECORDS": "1",
        "RECORD_FORMAT": "value",
        "COMPRESSION": "none",
        "S3_KEY_TEMPLATE": "stock_market_{unix}_{partition}_{start}.{ext}",
        "S3_ACL": "private",
    }
    with (
        ServiceProcess(["producer"], producing, tmp_path) as producer,
        ServiceProcess(["consumer"], consuming, tmp_path) as consumer,
    ):
        await eventually(lambda: consumer.output().count("Uploaded stock_market_") >= 3, "three uploads")
        assert await producer.stop() == 0
        sent = re.findall(r"Message sent: (\{.*?\})", producer.output())
        await eventually(lambda: consumer.output().count("Uploaded stock_market_") >= len(sent), "every upload")
        assert await consumer.stop() == 0
        received = re.findall(r"Received message: (\{.*?\})", consumer.output())
        uploaded = re.findall(r"Uploaded (stock_market_\S+) to S3", consumer.output())

    records = (await kafka.read(topic))[0]
    assert sent == received == [record.value.decode() for record in records if record.value]
    objects = {key: stored for key, stored in (await s3.objects(bucket)).items() if not key.startswith("_ticklake/")}
    assert sorted(uploaded) == sorted(objects)
    assert len(objects) == len(records)
    for key, stored in objects.items():
        name = NAME.fullmatch(key)
        assert name is not None, key
        record = records[int(name[2])]
        assert int(name[1]) == record.timestamp // 1000
        assert stored.body == (record.value or b"") + b"\n"
        assert stored.content_type == "application/json"
        assert set(json.loads(stored.body)) == {"symbol", "price"}, "a map of strings, as the original API gave it"
    gaps = [later.timestamp - earlier.timestamp for earlier, later in itertools.pairwise(records)]
    assert all(1000 < gap < 5000 for gap in gaps), "one record every 2 s"
