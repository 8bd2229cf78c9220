"""The benchmark of the consumer: `make bench`, or `python -m bench.consumer --help`.

Owns: the cases, the order of the runs, the servers' lifetime. Does not own: one run (`consumer_runs`). Sinks take
turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import quotes
from bench.consumer_runs import OURS, STOCK, Case, Figures, run
from bench.ground import standing
from bench.process import BenchError
from bench.topics import PARTITIONS, Topic
from demo import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.ground import Ground

RUNS = 3
MIB = 1 << 20
BATCH_BYTES = 16 * MIB
QUOTES = 2_000_000  # of 200 bytes; the other topics have as many bytes, or fewer where a record costs more


def cases(records: int) -> dict[str, Case]:
    """What is measured, by the name that the report knows it by; `records` of 200 bytes, or as many bytes."""

    def topic(name: str, shape: quotes.Shape, share: float = 1.0, **how: str | int | bool) -> tuple[Topic, int]:
        """The topic and how many batches fill each of its partitions: whole ones, of at most BATCH_BYTES."""
        wanted = max(1, int(records * share) * quotes.QUOTE.value_bytes // shape.value_bytes // PARTITIONS)
        full = BATCH_BYTES // shape.value_bytes
        objects = max(1, round(wanted / full))
        made = Topic(name=name, shape=shape, offsets=min(wanted, full) * objects, **how)  # type: ignore[arg-type]
        return made, objects

    plain = topic("plain", quotes.QUOTE)
    read = {
        "plain": plain,
        "zstd-topic": topic("zstd", quotes.QUOTE, compression="zstd"),
        "1kib": topic("1kib", quotes.SNAPSHOT),
        "50b": topic("50b", quotes.TRADE),
        "headers": topic("headers", quotes.QUOTE, 0.7, compression="zstd", headers=True),
        "batches-of-5": topic("batches-of-5", quotes.QUOTE, 0.15, batch_records=5),
        "batches-of-16-kib": topic("batches-of-16-kib", quotes.QUOTE, batch_bytes=16 << 10),
    }
    found = {name: Case(module=OURS, topic=made, objects=objects) for name, (made, objects) in read.items()}
    made, objects = plain
    found["zstd"] = Case(module=OURS, topic=made, objects=objects, settings={"COMPRESSION": "zstd"})
    found["two"] = Case(module=OURS, topic=made, objects=objects, processes=2)
    found["stock"] = Case(module=STOCK, topic=made, objects=objects)
    return found


def measure(
    ground: Ground, chosen: Mapping[str, Case], runs: int, tell: Callable[[str], object]
) -> dict[str, list[Figures]]:
    """Every case that many times, in turn. Raises BenchError when a run is void."""
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    for number in range(1, runs + 1):
        for name, case in chosen.items():
            figures = run(case, ground)
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
    names = list(cases(QUOTES))
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each case (%(default)s)")
    parser.add_argument("--records", type=int, default=QUOTES, help="about as many quotes of 200 bytes (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CASE", help=" ".join(names))
    parser.add_argument("--s3", choices=("ministack", "versitygw"), default="ministack", help="the S3 server")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    options = arguments(given)
    environment.shield(os.environ)
    known = cases(options.records)
    chosen = {name: known[name] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as folder:
        try:
            with standing(Path(folder), options.s3) as ground:
                measure(ground, chosen, options.runs, sys.stdout.write)
        except BenchError as error:
            sys.stderr.write(f"bench: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
