"""How long the consumer takes to start, and what it holds then: `make bench-startup`, or `python -m bench.startup`.

Owns: the starts, their moments as seen from outside, the imports beside those of the bare libraries. Does not own: the
tables (`startup_report`). A run counts only when it ended with exit code 0.

The interpreter is that of the consumer's own environment, as its image has it: beside the tools of this one, libraries
import more than they would there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import startup_report
from bench.process import ROOT, BenchError, cpu_seconds
from demo import environment, installation, kafka_server
from tests.servers import Kafka, Produced, make_s3, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.servers import S3

RUNS: Final = 5
IMPORTS_A_RUN: Final = 3  # what our modules add is small beside what a busy machine does to either
PARTITIONS: Final = 8
PATIENCE_SECONDS: Final = 60.0
# A broker's own wait for more members when somebody joins an empty group: the tests' and Kafka's default.
DELAYS_MS: Final = {"": 0, startup_report.DEFAULT_BROKER: 3000}
# Every record is an object of its own, which makes the consumer tell when it has received one.
SETTINGS: Final = {"BATCH_MAX_RECORDS": "1", "LOG_FORMAT": "json", "HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0"}
MARKS: Final = ("Starting", "Layout agreed", "Partitions assigned", "Received message", "Uploaded")

_BOTH = "uvloop, aiokafka, aiohttp.web, msgspec, prometheus_client, pydantic_settings, structlog, tenacity"
IMPORTS: Final = {
    "consumer": (
        "import uvloop; from consumer.__main__ import service_class; service_class()",
        f"import {_BOTH}, aioboto3, crc32c, isal.isal_zlib, zstandard",
    ),
    "producer": ("import uvloop, producer.__main__", f"import {_BOTH}, httpx"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a process had taken when it said something. Seconds since it was spawned."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One interpreter that imported and ended."""

    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All runs. `starts`: by case, each with its moments by event; `imports`: ours and bare, by service."""

    starts: Mapping[str, Sequence[Mapping[str, Moment]]]
    imports: Mapping[str, Sequence[tuple[Imported, Imported]]]


def start(python: Path, settings: Mapping[str, str]) -> dict[str, Moment]:
    """One start to its first stored object, and its end. Raises BenchError when it gets nowhere."""
    spawned = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 -- an interpreter and a module of ours
        [str(python), "-m", "consumer"],
        cwd=ROOT,
        env=environment.for_service(os.environ, {**SETTINGS, **settings}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(PATIENCE_SECONDS, process.kill)
    guard.start()
    moments: dict[str, Moment] = {}
    said: list[str] = []
    try:
        for text in process.stdout or ():
            said.append(text)
            event = str(json.loads(text)["event"])
            if event in MARKS and event not in moments:
                moments[event] = Moment(
                    seconds=time.monotonic() - spawned,
                    cpu_seconds=cpu_seconds(process.pid),
                    memory_bytes=_memory_bytes(process.pid),
                )
                if event == MARKS[-1]:
                    process.send_signal(signal.SIGTERM)
        exit_code = process.wait()
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    if exit_code or set(moments) != set(MARKS):
        raise BenchError(f"a start ended with exit code {exit_code}:\n{''.join(said[-20:])}")
    return moments


def imported(python: Path, code: str) -> Imported:
    """Run the code in an interpreter of its own."""
    process = subprocess.Popen([str(python), "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL)  # noqa: S603 -- as above
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or its end would be waited for once more
    if process.returncode:
        raise BenchError(f"{code!r} ended with exit code {process.returncode}")
    return Imported(cpu_seconds=used.ru_utime + used.ru_stime, memory_bytes=used.ru_maxrss << 10)


def measure(runs: int, folder: Path, tell: Callable[[str], object]) -> Figures:
    """Everything that many times, in turn."""
    pythons = {service: installation.ensure(service) for service in IMPORTS}
    starts: dict[str, list[Mapping[str, Moment]]] = {}
    imports: dict[str, list[tuple[Imported, Imported]]] = {service: [] for service in IMPORTS}
    for number in range(1, IMPORTS_A_RUN * runs + 1):
        for service, codes in IMPORTS.items():
            ours, bare = (imported(pythons[service], code) for code in codes)
            imports[service].append((ours, bare))
            tell(f"imports of the {service}, {number}: {ours.cpu_seconds:.3f} s, bare {bare.cpu_seconds:.3f} s\n")
    with ExitStack() as stack:
        s3 = make_s3("ministack", folder / "s3")
        stack.callback(s3.server.stop)
        s3.server.start()
        for broker, delay_ms in DELAYS_MS.items():
            delay = {"group.initial.rebalance.delay.ms": str(delay_ms)}
            server = kafka_server.KafkaServer(kafka_server.runtime(), folder / f"kafka-{delay_ms}", settings=delay)
            stack.callback(server.stop)
            server.start()
            for number in range(1, runs + 1):
                for case, moments in pair(pythons["consumer"], Kafka(server), s3).items():
                    starts.setdefault(case + broker, []).append(moments)
                    tell(f"{case}{broker} {number}/{runs}: {startup_report.line(moments)}\n")
            server.stop()
    return Figures(starts=starts, imports=imports)


def pair(python: Path, kafka: Kafka, s3: S3) -> dict[str, dict[str, Moment]]:
    """A first start, with neither layout nor group, and a second one, each with a new record in every partition."""
    topic = asyncio.run(kafka.create_topic(PARTITIONS))
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": unique("group"),
        "S3_BUCKET": asyncio.run(s3.create_bucket()),
        **s3.environ(),
    }
    found = {}
    for case in (startup_report.FIRST, startup_report.AGAIN):
        records = [Produced(value=b'{"price":1}', partition=partition) for partition in range(PARTITIONS)]
        asyncio.run(kafka.produce(topic, records))
        found[case] = start(python, settings)
    return found


def _memory_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description="Measures starts from outside.")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each case (%(default)s)")
    default = ROOT / "docs" / "benchmarks"
    parser.add_argument("--folder", type=Path, default=default, help="where the report is written (docs/benchmarks)")
    options = parser.parse_args(given)
    environment.shield(os.environ)
    try:
        with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as folder:
            figures = measure(options.runs, Path(folder), sys.stdout.write)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    startup_report.write(figures, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
