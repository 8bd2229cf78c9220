"""The benchmark of the producer: `make bench-producer`, or `python -m bench.producer --help`.

Owns: the cases, the order of the runs, the broker. Does not own: one run (`producer_runs`), the tables
(`producer_report`). Ours and the stock loop take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import producer_report
from bench.process import ROOT, BenchError
from bench.producer_runs import OURS, STOCK, Case, Figures, original, quotes, run
from demo import environment, kafka_server
from tests.servers import Kafka

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# A broker that does not hold up what is measured: more memory than the tests', both compilers.
JVM_OPTIONS = ("-Xmx1g",)
RUNS = 3


def cases(*, quick: bool) -> dict[str, Case]:
    """What is measured, by the name that the report knows it by."""
    many, few = (3, 1) if quick else (10, 3)
    polls = 10 if quick else 30
    return {
        "all": quotes(OURS, "all", warm_up=few, measured=many),
        "all-stock": quotes(STOCK, "all", warm_up=few, measured=many),
        "changed": quotes(OURS, "changed", warm_up=few, measured=many),
        "changed-etag": quotes(OURS, "changed", warm_up=few, measured=many, validators=True),
        "original": original(OURS, warm_up=2, measured=polls),
        "original-stock": original(STOCK, warm_up=2, measured=polls),
    }


def measure(
    kafka: Kafka, chosen: Mapping[str, Case], runs: int, tell: Callable[[str], object]
) -> dict[str, list[Figures]]:
    """Every case that many times, in turn. Raises BenchError when a run is void."""
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    for number in range(1, runs + 1):
        for name, case in chosen.items():
            figures = run(case, kafka)
            found[name].append(figures)
            tell(f"{name} {number}/{runs}: {producer_report.line(figures)}\n")
    return found


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.producer", description="Measures the producer from outside.")
    names = list(cases(quick=False))
    parser.add_argument("--quick", action="store_true", help="one short run of each case; nothing is written")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each case (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CASE", help=" ".join(names))
    folder = ROOT / "docs" / "benchmarks"
    parser.add_argument("--folder", type=Path, default=folder, help="where the report is written (docs/benchmarks)")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """The exit code: 0 = measured, 1 = void."""
    options = arguments(given)
    environment.shield(os.environ)
    known = cases(quick=options.quick)
    chosen = {name: known[name] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="ticklake-bench-") as folder:
        server = kafka_server.KafkaServer(kafka_server.runtime(), Path(folder) / "kafka", jvm_options=JVM_OPTIONS)
        try:
            server.start()
            found = measure(Kafka(server), chosen, 1 if options.quick else options.runs, sys.stderr.write)
        except BenchError as error:
            sys.stderr.write(f"bench: {error}\n")
            return 1
        finally:
            server.stop()
    report = producer_report.Report(cases=known, figures=found, about=producer_report.about())
    if not options.quick:
        report.write(options.folder)
    sys.stdout.write(report.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
