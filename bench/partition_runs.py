"""One consumer on a topic of many partitions, measured from outside: memory, times, and that everything is stored.

Owns: loading the topic, running one consumer or two, what is read when. Does not own: the servers and the cases
(`partitions`), the formulas (`scale_model`). Linux only: memory and CPU as the kernel counts them.

Invariants: a run is void (BenchError) unless the consumers end with exit code 0 and `verify` then exits 0 with every
record of the topic stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaProducer

from bench.process import ROOT, BenchError
from demo.environment import for_service
from tests.processes import ServiceProcess
from tests.servers import eventually, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.servers import S3, Kafka

READ_SECONDS: Final = 180.0
SETTLE_SECONDS: Final = 2.5  # the gauge is set every second
IDLE_SECONDS: Final = 3.0
WIRE_BATCH_RECORDS: Final = 500
IN_FLIGHT: Final = 64
POOL: Final = 20_000
_CPUCLOCK_SCHED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A topic of `partitions` with `records` (and `value_bytes` of them) in all, read under `memory_limit_bytes`."""

    name: str
    topic: str
    partitions: int
    records: int
    value_bytes: int
    compression: str
    memory_limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Seconds count from the process's start; bytes are those of memory, `stored_bytes` those of objects."""

    case: Case
    assigned_seconds: float
    read_seconds: float
    assigned_cpu_seconds: float
    read_cpu_seconds: float
    idle_core_percent: float
    buffered_bytes: int
    buffered_peak_bytes: int
    resident_bytes: int
    resident_peak_bytes: int
    objects_before_stop: int
    objects: int
    stored_bytes: int
    give_back_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance:
    """A second member joins. `give_back_seconds`: until everything open was put and committed; `joined_seconds`: from
    then until both had their partitions; `located_seconds`: from then until each knew where each of its chains ends.
    """

    case: Case
    give_back_seconds: float
    joined_seconds: float
    located_seconds: float
    objects: int


def quotes(count: int = POOL) -> list[bytes]:
    """Market quotes of about 170 bytes, the same ones each time."""
    chance = random.Random(1)
    return [_quote(chance) for _ in range(count)]


def _quote(chance: random.Random) -> bytes:
    symbol = "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=4))
    price = chance.randrange(1_000, 90_000)
    fields = {
        "symbol": symbol,
        "name": f"{symbol} Holdings",
        "price": price / 100,
        "bid": (price - chance.randrange(20)) / 100,
        "ask": (price + chance.randrange(20)) / 100,
        "volume": chance.randrange(10_000_000),
        "exchange": "XNAS",
        "currency": "USD",
        "timestamp": 1_790_000_000_000 + chance.randrange(10_000_000),
        "sequence": chance.randrange(1_000_000_000),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


async def fill(kafka: Kafka, topic: str, partitions: int, records_each: int) -> int:
    """Write as many quotes into each partition, in wire batches of WIRE_BATCH_RECORDS; the bytes of all values."""
    pool, chance, size = quotes(), random.Random(2), 0
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, acks=1, max_batch_size=1 << 20, request_timeout_ms=60_000
    )
    await producer.start()
    try:
        sent: list[asyncio.Future[object]] = []
        for first in range(0, records_each, WIRE_BATCH_RECORDS):
            count = min(WIRE_BATCH_RECORDS, records_each - first)
            for partition in range(partitions):
                begin = chance.randrange(POOL - count)
                batch = producer.create_batch()
                for value in pool[begin : begin + count]:
                    batch.append(key=None, value=value, timestamp=None)
                    size += len(value)
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                if len(sent) >= IN_FLIGHT:
                    await asyncio.gather(*sent)
                    sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return size


async def run(case: Case, kafka: Kafka, s3: S3, folder: Path) -> Figures:
    """Read the topic to its end, wait, stop. Batches end at a limit or at the stop, never by time."""
    environ = await _environ(case, kafka, s3)
    began = time.monotonic()
    with ServiceProcess(["consumer"], environ, _own(folder)) as consumer:
        pid = consumer.process.pid
        await consumer.logged("Partitions assigned")
        assigned_seconds, assigned_cpu = time.monotonic() - began, _cpu_seconds(pid)
        peak = await _until_read(consumer, case)
        read_seconds, read_cpu = time.monotonic() - began, _cpu_seconds(pid)
        await asyncio.sleep(SETTLE_SECONDS)
        buffered = await _buffered(consumer)
        resident = _memory(pid, "VmRSS")
        before, idle_from = _cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        idle = (_cpu_seconds(pid) - before) / (time.monotonic() - idle_from)
        objects_before_stop = len(consumer.lines("Uploaded"))
        resident_peak = _memory(pid, "VmHWM")
        await _stop(consumer)
        uploaded = consumer.lines("Uploaded")
        given_back = consumer.lines("Partitions revoked")
    await _verify(environ, case, uploaded)
    return Figures(
        case=case,
        assigned_seconds=assigned_seconds,
        read_seconds=read_seconds,
        assigned_cpu_seconds=assigned_cpu,
        read_cpu_seconds=read_cpu,
        idle_core_percent=100 * idle,
        buffered_bytes=buffered,
        buffered_peak_bytes=max(peak, buffered),
        resident_bytes=resident,
        resident_peak_bytes=resident_peak,
        objects_before_stop=objects_before_stop,
        objects=len(uploaded),
        stored_bytes=sum(_number(line, "bytes") for line in uploaded),
        give_back_seconds=float(str(given_back[-1]["seconds"])),
    )


async def run_rebalance(case: Case, kafka: Kafka, s3: S3, folder: Path) -> Rebalance:
    """Let one member read everything, then start a second one; both stop once each chain's end is known again."""
    environ = await _environ(case, kafka, s3)
    with ServiceProcess(["consumer"], environ, _own(folder)) as first:
        await _until_read(first, case)
        with ServiceProcess(["consumer"], environ, _own(folder)) as second:
            revoked = (await first.logged("Partitions revoked"))[0]
            assigned = [(await first.logged("Partitions assigned", count=2))[1]]
            assigned += await second.logged("Partitions assigned")
            joined = max(_moment(line) for line in assigned)

            async def located_all() -> bool:
                return len(await _lags(first)) + len(await _lags(second)) >= case.partitions

            await eventually(located_all, "the chains' ends after the rebalance", READ_SECONDS)
            located = time.time()
            await _stop(second)
        await _stop(first)
        uploaded = first.lines("Uploaded")
    await _verify(environ, case, uploaded)
    return Rebalance(
        case=case,
        give_back_seconds=float(str(revoked["seconds"])),
        joined_seconds=joined - _moment(revoked),
        located_seconds=located - joined,
        objects=len(uploaded),
    )


# ---- the process, seen from outside ----------------------------------------------------------------------------------


async def _environ(case: Case, kafka: Kafka, s3: S3) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": case.topic,
        "KAFKA_GROUP_ID": unique("group"),
        "S3_BUCKET": await s3.create_bucket(),
        "COMPRESSION": case.compression,
        "MEMORY_LIMIT_BYTES": str(case.memory_limit_bytes),
        "BATCH_MAX_SECONDS": "3600",
        "SHUTDOWN_TIMEOUT_SECONDS": "60",
        **s3.environ(),
    }


def _own(folder: Path) -> Path:
    """A folder for one process's log."""
    own = folder / unique("run")
    own.mkdir()
    return own


async def _until_read(consumer: ServiceProcess, case: Case) -> int:
    """Wait until everything is read (an empty partition: located); the most bytes that were buffered meanwhile."""
    peak, deadline = 0, time.monotonic() + READ_SECONDS
    while True:
        lags = await _lags(consumer)
        if len(lags) == case.partitions and not sum(lags):
            return peak
        peak = max(peak, await _buffered(consumer))
        if time.monotonic() > deadline:
            message = (
                f"{case.name}: {len(lags)} partitions known, {sum(lags):,.0f} records to read after {READ_SECONDS} s"
            )
            raise BenchError(message)
        await asyncio.sleep(0.1)


async def _lags(consumer: ServiceProcess) -> list[float]:
    _, text = await consumer.get("/metrics")
    return [
        float(value)
        for value in re.findall(r"^ticklake_consumer_position_lag_records\{.*\} (\S+)$", text, re.MULTILINE)
    ]


async def _buffered(consumer: ServiceProcess) -> int:
    _, text = await consumer.get("/metrics")
    found = re.search(r"^ticklake_consumer_buffered_bytes (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


async def _stop(consumer: ServiceProcess) -> None:
    if exit_code := await consumer.stop():
        message = f"the consumer ended with exit code {exit_code}:\n{consumer.output()[-2000:]}"
        raise BenchError(message)


async def _verify(environ: Mapping[str, str], case: Case, uploaded: Sequence[Mapping[str, object]]) -> None:
    """Whether the chains hold the whole topic: `verify` (each chain whole, to the committed offset), and the count."""
    if not case.records:
        return
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "consumer", "verify"],
        cwd=ROOT,
        env=for_service(os.environ, environ),
        capture_output=True,
        text=True,
        check=False,
    )
    stored = sum(_number(line, "records") for line in uploaded)
    if done.returncode or stored != case.records:
        message = (
            f"{case.name}: verify exits {done.returncode}, {stored:,} of {case.records:,} records stored: the figures"
            f" are void\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        )
        raise BenchError(message)


def _number(line: Mapping[str, object], name: str) -> int:
    return int(str(line[name]))


def _moment(line: Mapping[str, object]) -> float:
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


def _memory(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def _cpu_seconds(pid: int) -> float:
    """User and system time of all its threads so far (clock_getcpuclockid of glibc)."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
