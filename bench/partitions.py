"""A consumer on 512 partitions: `python -m bench.partitions`, part of `make bench-scaling`.

Owns: the cases, their order, the servers, the file of figures. Does not own: one run (`partition_runs`), what the
figures are compared with (`scaling`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import provenance
from bench.ground import s3_name
from bench.partition_runs import Case, fill, run, run_rebalance
from bench.process import ROOT, BenchError
from demo import environment, kafka_server
from tests.servers import Kafka, make_s3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers import S3

FIGURES: Final = ROOT / "docs" / "benchmarks" / "scaling.json"
JVM_OPTIONS: Final = ("-Xmx1g", "-XX:+UseSerialGC")
PARTITIONS: Final = 512
FEW: Final = 8
SHORT_EACH, LONG_EACH = 20, 2_500  # records a partition: a few, then so many that their batches meet the limit
MIB: Final = 1 << 20
WIDE, USUAL = 1024 * MIB, 256 * MIB


async def measure(kafka: Kafka, s3: S3, folder: Path, partitions: int) -> dict[str, object]:
    """All cases, in order. Raises BenchError when one is void."""
    runs: dict[str, object] = {}

    async def one(case: Case) -> None:
        figures = await run(case, kafka, s3, folder)
        runs[case.name] = asdict(figures)
        sys.stderr.write(f"{case.name}: {figures}\n")

    def case(name: str, compression: str, limit: int, *, on: str, count: int = partitions) -> Case:
        return Case(
            name=name,
            topic=on,
            partitions=count,
            records=records,
            value_bytes=size,
            compression=compression,
            memory_limit_bytes=limit,
        )

    records = size = 0
    topic, small = await kafka.create_topic(partitions), await kafka.create_topic(FEW)
    await one(case("idle, 8 partitions", "gzip", USUAL, on=small, count=FEW))
    await one(case("idle", "gzip", USUAL, on=topic))
    size += await fill(kafka, topic, partitions, SHORT_EACH)
    records += partitions * SHORT_EACH
    for compression in ("gzip", "zstd"):
        await one(case(f"{compression}, {SHORT_EACH} records each", compression, USUAL, on=topic))
    size += await fill(kafka, topic, partitions, LONG_EACH)
    records += partitions * LONG_EACH
    for compression in ("gzip", "zstd"):
        await one(case(f"{compression}, limit not reached", compression, WIDE, on=topic))
        await one(case(f"{compression}, limit reached", compression, USUAL, on=topic))
    rebalance = await run_rebalance(case("rebalance", "gzip", USUAL, on=topic), kafka, s3, folder)
    sys.stderr.write(f"{rebalance}\n")
    return {"runs": runs, "rebalance": asdict(rebalance)}


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.partitions", description="A consumer on many partitions.")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of the topic (%(default)s)")
    parser.add_argument("--s3", choices=("ministack", "versitygw"), default=os.environ.get("TEST_S3") or "ministack")
    parser.add_argument(
        "--file", type=Path, default=FIGURES, help="where the figures go (docs/benchmarks/scaling.json)"
    )
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    options = arguments(given)
    environment.shield(os.environ)
    with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as name:
        folder = Path(name)
        broker = kafka_server.KafkaServer(kafka_server.runtime(), folder / "kafka", jvm_options=JVM_OPTIONS)
        s3 = make_s3(options.s3, folder / "s3")
        try:
            broker.start()
            s3.server.start()
            found = asyncio.run(measure(Kafka(broker), s3, folder, options.partitions))
        except BenchError as error:
            sys.stderr.write(f"bench: {error}\n")
            return 1
        finally:
            s3.server.stop()
            broker.stop()
    stood_on = provenance.about(
        "make bench-scaling" if options.s3 == "ministack" else f"TEST_S3={options.s3} make bench-scaling",
        ("aiokafka",),
        s3=s3_name(options.s3),
    )
    known = json.loads(options.file.read_text()) if options.file.exists() else {}  # the simulation's stay
    options.file.write_text(json.dumps({**known, "about": stood_on, **found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
