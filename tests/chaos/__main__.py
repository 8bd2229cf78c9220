"""`python -m tests.chaos [SCENARIO …]`: what the command line says, a line a scenario, exit code 1 when any failed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo import environment
from tests.chaos import report, runner
from tests.chaos.registry import all_scenarios
from tests.chaos.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.registry import Scenario

DEFAULT_FOLDER = Path(__file__).parents[2] / ".local" / "chaos"


def main() -> int:
    known = all_scenarios()
    arguments = _arguments(list(known))
    if arguments.list:
        for found in known.values():
            print(f"{found.name:28} {'ci ' if found.ci else '   '} {found.budget_seconds:4.0f} s  {found.tells}")
        return 0
    chosen = [known[name] for name in arguments.scenario] if arguments.scenario else list(known.values())
    if arguments.subset == "ci":
        chosen = [found for found in chosen if found.ci]
    environment.shield(os.environ)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    return asyncio.run(_run(chosen, seed=seed, folder=arguments.report, s3_kind=arguments.s3, keep=arguments.keep))


async def _run(chosen: Sequence[Scenario], *, seed: int, folder: Path, s3_kind: str, keep: bool) -> int:
    place = folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{seed}"
    place.mkdir(parents=True)
    print(f"seed {seed}, {len(chosen)} scenarios on {s3_kind}; everything in {place}", flush=True)
    # aiokafka says a lot on stderr while a broker is away.
    logging.basicConfig(
        filename=place / "harness.log", level=logging.WARNING, format="%(asctime)s %(name)s %(message)s"
    )
    servers = Servers(place / "servers", kind=s3_kind)
    about = report.versions(s3_kind)
    outcomes = []
    try:
        for scenario in chosen:
            outcome = await runner.run(scenario, servers, folder=place / scenario.name, seed=seed, keep=keep)
            outcomes.append(outcome)
            print(report.line(outcome), flush=True)
            if outcome.failure:
                print(outcome.failure, file=sys.stderr, flush=True)
            report.write(place, outcomes, seed=seed, about=about)
    finally:
        servers.stop()
        failed = [outcome.name for outcome in outcomes if outcome.failure]
        if not failed and len(outcomes) == len(chosen) and not keep:
            servers.remove_data()
    for name in ("report.json", "report.md"):
        shutil.copy(place / name, folder / name)
    again = f"python -m tests.chaos --seed {seed} {' '.join(failed)}"
    print(f"{report.verdict(outcomes)}; report: {folder / 'report.md'}; again: {again}")
    return 1 if failed else 0


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Real processes, real Kafka, a real S3 server, and faults."
    )
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help="by name; without one: all")
    parser.add_argument("--seed", type=int, help="what chance is drawn from; printed when not given")
    parser.add_argument("--list", action="store_true", help="the scenarios there are")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of what passed, too")
    parser.add_argument("--subset", choices=["ci"], help="only those that run in .ci/run")
    parser.add_argument("--report", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="default: .local/chaos")
    parser.add_argument("--s3", choices=["ministack", "versitygw"], default="ministack", help="the S3 server")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenario) - set(names):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; --list names them")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
