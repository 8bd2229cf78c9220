"""`verify` streams: objects of any size and number are checked within a bound of memory, with a bar on a terminal.

`VERIFY_OBJECTS=100000` before pytest makes it a bucket of that size (minutes); without it 3,000. What an audit keeps
of each object is measured in `tests/unit/consumer/test_audit_memory.py`.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
import termios
import time
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from consumer.connections import new_source
from consumer.settings import Settings
from demo.environment import for_service
from shared.schemas import sign_offset
from shared.settings import load
from tests.archive_server import LARGE_BYTES, LARGE_OBJECTS, ArchiveServer
from tests.planting import CHAIN, layout_for
from tests.processes import ROOT, peak_memory_bytes
from tests.servers import Produced, unique

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.servers import Kafka

OBJECTS = int(os.environ.get("VERIFY_OBJECTS", "3000"))
PARTITIONS = 2
LIMIT_BYTES = (144 << 20) + 500 * OBJECTS  # 192 MiB for 100,000
COLUMNS = 70
BAR = re.compile(r"\[(#*)\.*\] +(\d+)%  ([\d,]+) objects checked, [\d,]+/s, [\d,]+ MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One run of the command on a terminal: its end, what went to stdout and to the terminal, its peak of memory."""

    exit_code: int
    said: str
    shown: str
    peak_bytes: int
    seconds: float


async def audited(environ: Mapping[str, str], folder: Path) -> Audit:
    terminal, end = pty.openpty()
    tty.setraw(end)
    termios.tcsetwinsize(end, (24, COLUMNS))
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            shown.extend(os.read(terminal, 1 << 16))
        except OSError:  # the other end is closed: all was read
            loop.remove_reader(terminal)

    loop.add_reader(terminal, read)
    with (folder / "verify.out").open("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumer", "verify"],
            cwd=ROOT,
            env=for_service(os.environ, environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=end,
        )
        os.close(end)
        peak, began = 0, time.monotonic()
        try:
            while process.poll() is None:
                peak = max(peak, peak_memory_bytes(process.pid))
                await asyncio.sleep(0.05)
        finally:
            process.kill()
            process.wait()
            loop.remove_reader(terminal)
            os.close(terminal)
        out.seek(0)
        return Audit(
            exit_code=process.returncode,
            said=out.read(),
            shown=shown.decode(),
            peak_bytes=peak,
            seconds=time.monotonic() - began,
        )


async def audit_of(kafka: Kafka, objects: int, folder: Path) -> Audit:
    """An audit of that many objects: a record of the topic in each, all committed."""
    topic = await kafka.create_topic(PARTITIONS)
    each = objects // PARTITIONS
    await kafka.produce(topic, [Produced(value=b"0", partition=n % PARTITIONS) for n in range(each * PARTITIONS)])
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": unique("group"),
        "S3_BUCKET": "bucket",
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    await _commit(environ, each)
    settings = load(Settings, environ)
    source = new_source(settings)
    await source.connect()
    identity = await source.identity()
    await source.leave()
    layout = layout_for(settings.keys, topic_id=identity.topic_id, cluster_id=identity.cluster_id)
    server = ArchiveServer(keys=settings.keys, layout=layout, partitions=PARTITIONS, objects_per_partition=each)
    async with server:
        return await audited({**environ, "AWS_ENDPOINT_URL_S3": server.url}, folder)


async def _commit(environ: Mapping[str, str], offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=environ["KAFKA_GROUP_ID"],
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(environ["KAFKA_TOPIC"], number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, OffsetAndMetadata(offset, sign_offset(CHAIN, offset))))
    finally:
        await consumer.stop()


@pytest.mark.timeout(300 + OBJECTS // 50)
async def test_memory_is_bounded_however_many_and_large_the_objects_are(kafka: Kafka, tmp_path: Path) -> None:
    audit = await audit_of(kafka, OBJECTS, tmp_path)
    sys.stdout.write(f"{OBJECTS} objects: peak {audit.peak_bytes >> 20} MiB, {audit.seconds:.0f} s\n")
    assert audit.exit_code == 0, audit.said
    assert audit.said.splitlines()[-1] == "clean"
    total = next(line for line in audit.said.splitlines() if line.split()[:1] == ["total"]).split()
    assert total[1:] == ["0", str(OBJECTS), str(OBJECTS), "0", "0", "0"]
    assert LARGE_BYTES * LARGE_OBJECTS * PARTITIONS > LIMIT_BYTES, "all of them at once would not fit"
    assert audit.peak_bytes < LIMIT_BYTES
    assert "\r" not in audit.said
    _check_bar(audit.shown, OBJECTS)


def _check_bar(shown: str, objects: int) -> None:
    """It grew to its end on one line of the terminal, and is gone; nothing else was written there."""
    lines = shown.split("\r\x1b[K")
    assert lines[0] == ""
    assert lines[-1] == ""
    assert max(map(len, lines)) < COLUMNS, "it would wrap, and the next one could not clear it"
    bars = [BAR.fullmatch(line) for line in lines[1:-1]]
    assert all(bars), lines
    drawn = [(len(bar[1]), int(bar[2]), int(bar[3].replace(",", ""))) for bar in bars if bar]
    percents, counts = [percent for _, percent, _ in drawn], [count for *_, count in drawn]
    assert len(drawn) >= 3
    assert percents == sorted(percents)
    assert counts == sorted(counts)
    assert percents[0] < 50 <= percents[-1] <= 100
    assert drawn[0][0] < drawn[-1][0]
    assert counts[-1] <= objects
