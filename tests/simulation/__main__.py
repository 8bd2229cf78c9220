"""Simulated worlds from the command line, on all cores: many seeds, or one with its whole trace.

python -m tests.simulation --seeds 100000
python -m tests.simulation --seed 123
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

from tests.simulation.run import Tally, live, live_all

CHUNK: Final = 20
TELL_SECONDS: Final = 5.0
MOST_FAILURES: Final = 10


def main() -> int:
    """0 = no world went wrong."""
    arguments = _arguments()
    if arguments.seed is not None:
        life = live(arguments.seed)
        print(*life.trace, sep="\n")
        print(f"{len(life.trace)} lines, sha256 {life.digest}")
        print(life.report(lines=0) if life.failure is not None else f"seed {life.seed}: all was well")
        return 0 if life.failure is None else 1
    first = random.SystemRandom().randrange(10**9) if arguments.first is None else arguments.first
    return _run_many(first, arguments.seeds, arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, help="their first seed; by default any")
    parser.add_argument("--seed", type=int, help="this world alone, with its trace")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, by default one a core")
    return parser.parse_args()


def _run_many(first: int, count: int, jobs: int) -> int:
    print(f"{count} worlds, seeds from {first} on, {jobs} at a time", flush=True)
    total, began = Tally(), time.monotonic()
    told = began
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(live_all, chunk) for chunk in chunks]):
            if future.cancelled():
                continue
            total.add(future.result())
            for report in future.result().reports:
                print("", report, "", sep="\n", flush=True)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                pace = total.worlds / (told - began)
                print(f"{total.worlds} of {count}, {pace:.1f} a second, {len(total.reports)} failed", flush=True)
            if len(total.reports) >= MOST_FAILURES:
                print(f"enough: {MOST_FAILURES} failures", flush=True)
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.monotonic() - began
    print(*(f"{number:>10} {what}" for what, number in sorted(total.seen.items())), sep="\n")
    pace = total.worlds / seconds
    print(
        f"{total.worlds} worlds in {seconds:.0f} s: {pace:.1f} schedules a second, {pace / jobs:.1f} a core;"
        f" {total.virtual_seconds / 3600:.1f} simulated hours; {len(total.reports)} failed"
    )
    return 1 if total.reports else 0


if __name__ == "__main__":
    sys.exit(main())
