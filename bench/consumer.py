"""The benchmark of the consumer: `make bench`, or `python -m bench.consumer --help`.

Owns: the cases, the order of the runs, the servers' lifetime. Does not own: one run (`consumer_runs`). Sinks take
turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import first_page, provenance, quotes, read_limit
from bench.consumer_report import Report
from bench.consumer_runs import CONFLUENT, OURS, STOCK, UNVALIDATED, Case, Figures, run
from bench.ground import s3_name, standing
from bench.process import ROOT, BenchError
from bench.topics import PARTITIONS, Topic
from demo import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.ground import Ground

COMMAND = "make bench"
LIBRARIES = ("aiokafka", "aioboto3", "msgspec", "isal", "zstandard", "uvloop", "confluent-kafka", "boto3")
RUNS = 3
MIB = 1 << 20
BATCH_BYTES = 16 * MIB
SMALL_MEMORY_BYTES = 64 * MIB
WHOLE_BATCHES = 4  # of a small memory fill one of BATCH_BYTES
QUOTES = 2_000_000  # of 200 bytes; the other topics have as many bytes, or fewer where a record costs more


def filled(records: int, name: str, shape: quotes.Shape, **how: object) -> Case:
    """Ours on a topic of about as many bytes as that many quotes: whole batches of at most BATCH_BYTES."""
    wanted = max(1, records * quotes.QUOTE.value_bytes // shape.value_bytes // PARTITIONS)
    full = min(wanted, BATCH_BYTES // shape.value_bytes)
    full -= full % WHOLE_BATCHES
    objects = max(1, round(wanted / full))
    topic = Topic(name=name, shape=shape, offsets=full * objects, **how)  # type: ignore[arg-type]
    return Case(module=OURS, topic=topic, objects=objects)


def cases(records: int = QUOTES) -> dict[str, Case]:
    """What is measured, by the name that the report knows it by."""
    plain = filled(records, "plain", quotes.QUOTE)
    small = {"MEMORY_LIMIT_BYTES": str(SMALL_MEMORY_BYTES)}
    return {
        "plain": plain,
        "stock": replace(plain, module=STOCK),
        "confluent": replace(plain, module=CONFLUENT),
        "read-limit": replace(plain, module=read_limit.TOOL),
        "zstd": replace(plain, settings={"COMPRESSION": "zstd"}),
        "unvalidated": replace(plain, module=UNVALIDATED),
        "small-memory": replace(plain, objects=plain.objects * WHOLE_BATCHES, settings=small),
        "two": replace(plain, processes=2),
        "1kib": filled(records, "1kib", quotes.SNAPSHOT),
        "50b": filled(records, "50b", quotes.TRADE),
        "zstd-topic": filled(records, "zstd", quotes.QUOTE, compression="zstd"),
        "headers": filled(records, "headers", quotes.QUOTE, compression="zstd", headers=True),
        "batches-of-16-kib": filled(records, "batches of 16 KiB", quotes.QUOTE, batch_bytes=16 << 10),
        "batches-of-5": filled(records // 6, "batches of 5 records", quotes.QUOTE, batch_records=5),
    }


def measure(
    ground: Ground, chosen: Mapping[str, Case], runs: int, tell: Callable[[str], object]
) -> dict[str, list[Figures]]:
    """Every case that many times, in turn. Raises BenchError when a run is void."""
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    for number in range(1, runs + 1):
        for name, case in chosen.items():
            figures = read_limit.read(case.topic, ground) if case.module == read_limit.TOOL else run(case, ground)
            found[name].append(figures)
            tell(f"{name} {number}/{runs}: {line(figures)}\n")
    return found


def line(figures: Figures) -> str:
    """A run in one line."""
    block = figures.block_p999_seconds
    return (
        f"{figures.cpu_seconds_per_million:.2f} CPU-s per million, {figures.records_per_second:,.0f} records/s "
        f"({figures.bytes_per_second / 1e6:.0f} MB/s), peak {figures.peak_memory_bytes / 1e6:.0f} MB, "
        f"{figures.objects} objects of {figures.stored_bytes / max(1, figures.objects) / 1e6:.1f} MB"
        f"{'' if block is None else f', loop block p99.9 up to {1000 * block:g} ms'}; start-up "
        f"{figures.start_wall_seconds:.1f} s, {figures.start_cpu_seconds:.1f} CPU-s; meanwhile Kafka "
        f"{figures.kafka_cpu_seconds:.1f} and S3 {figures.s3_cpu_seconds:.1f} CPU-s in {figures.wall_seconds:.1f} s"
    )


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.consumer", description="Measures the consumer from outside.")
    names = list(cases())
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each case (%(default)s)")
    parser.add_argument("--records", type=int, default=QUOTES, help="about as many quotes of 200 bytes (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="CASE", help=" ".join(names))
    parser.add_argument("--s3", choices=("ministack", "versitygw"), default=os.environ.get("TEST_S3") or "ministack")
    where = "where the report is written (docs/benchmarks, when nothing is left out)"
    parser.add_argument("--folder", type=Path, help=where)
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    options = arguments(given)
    environment.shield(os.environ)
    known = cases(options.records)
    chosen = {name: known[name] for name in options.only or known}
    with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as folder:
        try:
            with standing(Path(folder), options.s3) as ground:
                first = dict([next(iter(chosen.items()))])
                measure(ground, first, 1, lambda said: sys.stderr.write(f"not counted, the servers warm up: {said}"))
                found = measure(ground, chosen, options.runs, sys.stderr.write)
        except BenchError as error:
            sys.stderr.write(f"bench: {error}\n")
            return 1
    command = COMMAND if options.s3 == "ministack" else f"TEST_S3={options.s3} {COMMAND}"
    about = provenance.about(command, LIBRARIES, **{"s3 server": s3_name(options.s3)})
    report = Report(cases=known, figures=found, about=about, cores=os.cpu_count() or 1)
    whole = options.only is None and options.records == QUOTES
    if options.folder or whole:
        report.write(options.folder or ROOT / "docs" / "benchmarks")
        if not options.folder:
            first_page.main()
        sys.stdout.write(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
