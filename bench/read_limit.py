"""Kafka's own reader, `ConsumerPerformance`: reading alone, by Java, nothing kept. What a sink cannot be much below.

Owns: its command line, its report, its CPU time. Does not own: the topic, the broker (`ground`).

Invariants: rates are the tool's own, over its time of fetching. Of its CPU time that of a run over one record is taken
off: a Java machine's start is none of the reading.
"""

from __future__ import annotations

import csv
import os
import subprocess
from typing import TYPE_CHECKING

from bench.consumer_runs import Figures
from bench.process import BenchError
from demo import kafka_server
from demo.environment import for_service
from tests.servers import unique

if TYPE_CHECKING:
    from bench.ground import Ground
    from bench.topics import Topic

TOOL = "org.apache.kafka.tools.ConsumerPerformance"
JVM_OPTIONS = ("-Xmx512M", "-server", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")  # its script's


def read(topic: Topic, ground: Ground) -> Figures:
    """Read the topic once. Raises BenchError when the tool did not read all of it."""
    name = ground.topic(topic)
    start_cpu, _, _ = _run(ground, name, 1)
    cpu, memory, said = _run(ground, name, topic.records)
    return Figures(
        cpu_seconds=cpu - start_cpu,
        wall_seconds=fetch_seconds(said, topic.records),
        records=topic.records,
        value_bytes=topic.value_bytes,
        peak_memory_bytes=memory,
        start_cpu_seconds=start_cpu,
    )


def fetch_seconds(said: str, records: int) -> float:
    """Its time of fetching, from what it prints. Raises BenchError when it read fewer records."""
    rows = list(csv.reader(said.splitlines(), skipinitialspace=True))
    try:
        titles = next(number for number, row in enumerate(rows) if "fetch.time.ms" in row)
        told = dict(zip(rows[titles], rows[titles + 1], strict=True))
        found, milliseconds = int(told["data.consumed.in.nMsg"]), float(told["fetch.time.ms"])
    except (StopIteration, IndexError, KeyError, ValueError) as error:
        message = f"{TOOL} says what nobody expects: {said[-2000:]}"
        raise BenchError(message) from error
    if found < records or milliseconds <= 0:
        message = f"{TOOL} read {found:,} of {records:,} records in {milliseconds:g} ms: the figures are void"
        raise BenchError(message)
    return milliseconds / 1000


def _run(ground: Ground, topic: str, records: int) -> tuple[float, int, str]:
    """CPU seconds and peak memory, as the kernel tells when it has ended, and what it printed."""
    arguments = ("--bootstrap-server", ground.kafka.bootstrap_servers, "--topic", topic, "--group", unique("reader"))
    command = kafka_server.runtime().command(TOOL, *arguments, "--num-records", str(records), options=JVM_OPTIONS)
    with subprocess.Popen(  # noqa: S603 -- the Java of the local stack
        command, env=for_service(os.environ, {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = "" if process.stdout is None else process.stdout.read()  # it gives up by itself when nothing comes
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, used.ru_maxrss << 10, said
