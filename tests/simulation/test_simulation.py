"""The whole consumer in simulated worlds, a thousand seeds of them. Replay one with SIM_SEED=n."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Final

import pytest

from tests.simulation.run import live, live_all

SEEDS: Final = 1_000
CHUNKS: Final = 2  # large enough for what a world in a hundred meets
REPLAYED: Final = os.environ.get("SIM_SEED")

# What each chunk must have met, else its worlds are too tame to prove anything.
MUST_BE_SEEN: Final = (
    "above the memory limit",
    "above the memory limit, compressed",
    "adopted",
    "answer lost after the effect",
    "commit failed",
    "commit landed after it was given up",
    "commit landed under a newer generation",
    "commit refused",
    "commit stepped back",
    "coordinator loads",
    "created",
    "drain cut by its deadline",
    "kafka: away",
    "kafka: lagging",
    "killed",
    "killed with a put in flight",
    "landed after it was given up",
    "left without farewell",
    "log start moved",
    "loss",
    "loss skipped",
    "offsets harmed",
    "own",
    "partition added",
    "poll failed, what it had drained is lost",
    "process gave up",
    "process stopped",
    "put out: did not rejoin in time",
    "put out: session over",
    "quarantine",
    "rebalances",
    "retrying",
    "sky: denied",
    "sky: expired",
    "sky: outage",
    "sky: slow",
    "sky: storm",
    "sky: throttled",
    "stalled",
    "stalled: memory",
    "store silent",
    "store: conflict",
    "store: credentials",
    "store: refused",
    "store: unavailable",
    "unsigned offset",
    "waiting",
    "zombie woke",
    "zombie woke, had a put in flight",
)


@pytest.mark.skipif(REPLAYED is not None, reason="SIM_SEED replays one world")
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens_everything_is_stored_once_in_order_and_in_time(chunk: int) -> None:
    tally = live_all(range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS))
    assert not tally.reports, "\n\n".join(tally.reports)
    assert not [what for what in MUST_BE_SEEN if not tally.seen[what]]


@pytest.mark.skipif(REPLAYED is None, reason="without SIM_SEED there is nothing to replay")
def test_replay() -> None:
    life = live(int(REPLAYED or 0))
    print(*life.trace, sep="\n")
    if life.failure is not None:
        raise life.failure


@pytest.mark.parametrize("seed", [3, 44])
def test_the_same_seed_gives_the_same_trace_in_every_interpreter(seed: int) -> None:
    life = live(seed)
    live(seed + 1)  # what ran before must not matter
    assert live(seed).trace == life.trace
    assert len(life.trace) > 20
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
        assert re.findall(r"sha256 (\w+)", told) == [life.digest]


def test_another_seed_gives_another_trace() -> None:
    assert live(3).digest != live(4).digest
