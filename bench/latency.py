"""The benchmark of small and timely objects: `make bench-latency`, or `python -m bench.latency --help`.

Owns: the cases, the order of the runs, the servers. Does not own: one run (`latency_runs`), the table
(`latency_report`). Ours and the stock loop take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import latency_report
from bench.latency_report import BATCH_SECONDS, FLAT, PACED, PER_SECOND, TIMED, stock_of
from bench.latency_runs import OURS, STOCK, Case, Figures, original, run, timed
from bench.process import ROOT, BenchError
from demo import environment, kafka_server, s3_server
from demo.buckets import S3Access
from tests.servers import S3, Kafka, make_s3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# A broker that does not hold up what is measured: more memory than the tests', both compilers.
JVM_OPTIONS = ("-Xmx1g",)
RUNS = 3


def cases(*, quick: bool) -> dict[str, Case]:
    """What is measured, by the name that the report knows it by."""
    many, some, few = (1_500, 200, 200) if quick else (5_000, 700, 600)
    paced = {"records": some + 100, "warm_up": 100, "per_second": PER_SECOND}
    return {
        FLAT: original(OURS, records=many, warm_up=500),
        stock_of(FLAT): original(STOCK, records=many, warm_up=500),
        PACED: original(OURS, **paced),
        stock_of(PACED): original(STOCK, **paced),
        TIMED: timed(records=few + 100, warm_up=100, per_second=PER_SECOND, seconds=BATCH_SECONDS),
    }


def measure(
    kafka: Kafka, s3: S3, chosen: Mapping[str, Case], runs: int, tell: Callable[[str], object]
) -> dict[str, list[Figures]]:
    """Every case that many times, in turn. Raises BenchError when a run is void."""
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    for number in range(1, runs + 1):
        for name, case in chosen.items():
            figures = run(case, kafka, s3)
            found[name].append(figures)
            tell(f"{name} {number}/{runs}: {latency_report.line(figures)}\n")
    return found


def server(kind: str, folder: Path) -> S3:
    """An S3 server that keeps connections alive, as S3 does; versitygw does so only when told."""
    if kind != "versitygw":
        return make_s3(kind, folder)
    gateway = s3_server.VersityGateway(s3_server.versitygw_binary(), folder, keep_alive=True)
    access = S3Access(
        endpoint_url=gateway.endpoint_url,
        access_key=s3_server.ACCESS_KEY,
        secret_key=s3_server.SECRET_KEY,
        region=s3_server.REGION,
    )
    return S3(gateway, access)


def arguments(given: Sequence[str], s3: str) -> argparse.Namespace:
    """The command line. `s3`: the server when it names none."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description="Measures objects from outside.")
    names = list(cases(quick=False))
    parser.add_argument("--quick", action="store_true", help="one short run of each case; nothing is written")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each case (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CASE", help=" ".join(names))
    parser.add_argument("--s3", choices=("ministack", "versitygw"), default=s3, help="the S3 server (%(default)s)")
    folder = ROOT / "docs" / "benchmarks"
    parser.add_argument("--folder", type=Path, default=folder, help="where the report is written (docs/benchmarks)")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    options = arguments(given, os.environ.get("TEST_S3") or "ministack")
    environment.shield(os.environ)
    known = cases(quick=options.quick)
    chosen = {name: known[name] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as folder:
        broker = kafka_server.KafkaServer(kafka_server.runtime(), Path(folder) / "kafka", jvm_options=JVM_OPTIONS)
        s3 = server(options.s3, Path(folder) / "s3")
        try:
            broker.start()
            s3.server.start()
            found = measure(Kafka(broker), s3, chosen, 1 if options.quick else options.runs, sys.stderr.write)
        except BenchError as error:
            sys.stderr.write(f"bench: {error}\n")
            return 1
        finally:
            broker.stop()
            s3.server.stop()
    report = latency_report.Report(cases=known, figures=found, about=latency_report.about(options.s3))
    if not options.quick:
        report.write(options.folder)
    sys.stdout.write(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
