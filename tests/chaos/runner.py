"""Runs scenarios one after the other, each within its budget, and tells how each went.

Owns: a scenario's course from servers to outcome, what is kept of a failure. Does not own: what happens in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
import traceback
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from tests.chaos import figures
from tests.chaos.arena import Arena
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.registry import NotHereError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.chaos.registry import Scenario
    from tests.chaos.servers import Servers

CLOSE_SECONDS = 30.0
INSPECTION_SECONDS = 60.0
TAIL_LINES = 25
FAULTS_SHOWN = 20


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How one scenario went. `failure` is empty when it passed; `skipped` says why it could not be run here."""

    name: str
    tells: str
    seed: int
    seconds: float = 0.0
    failure: str = ""
    skipped: str = ""
    folder: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.failure and not self.skipped


async def run(scenario: Scenario, servers: Servers, *, folder: Path, seed: int, keep: bool = False) -> Outcome:
    """One scenario. Its chance is drawn from the run's seed and its name, so that it is the same alone.

    Of a failure everything is kept, of a success only with `keep`: its figures stand in the report.
    """
    own_seed = zlib.crc32(f"{seed} {scenario.name}".encode())
    outcome = Outcome(name=scenario.name, tells=scenario.tells, seed=seed, folder=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    kafka, s3 = servers.kafka_for(scenario), servers.s3_for(scenario)
    async with FaultProxy(s3.server.port, seed=own_seed) as proxy:
        arena = Arena(scenario, kafka=kafka, s3=s3, proxy=proxy, folder=folder, seed=own_seed)
        try:
            async with asyncio.timeout(scenario.budget_seconds):
                await arena.open()
                await scenario.act(arena)
                assert arena.verdict is not None, "the scenario ends without `await arena.proven()`"
        except NotHereError as reason:
            outcome.skipped = str(reason)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the outcome
            outcome.failure = _told(scenario, error)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await arena.close()
        figures.of_logs(arena)
        outcome.figures, outcome.faults = dict(arena.figures), dict(proxy.counts)
    outcome.seconds = round(time.monotonic() - began, 1)
    if outcome.failure:
        await _tell_all(arena, outcome)
    elif not keep:
        arena.remove_data()
        shutil.rmtree(folder, ignore_errors=True)
    servers.release(kafka, s3)
    return outcome


def _told(scenario: Scenario, error: Exception) -> str:
    if isinstance(error, AssertionError) and str(error):
        where = traceback.extract_tb(error.__traceback__)
        lines = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in where if "/chaos/" in frame.filename
        ]
        return f"{error} (at {' > '.join(lines)})"
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, TimeoutError):
        return f"not done within its budget of {scenario.budget_seconds:g} s:\n{trace}"
    return trace


async def _inspect(arena: Arena) -> list[str]:
    """What the oracle thinks of a bucket that the scenario did not bring before it."""
    if arena.verdict is not None:
        return []
    try:
        async with asyncio.timeout(INSPECTION_SECONDS):
            faults = await arena.inspected()
    except Exception as error:  # noqa: BLE001 -- servers may be away, that is no reason to hide the failure itself
        return [f"the oracle could not look at the bucket: {error!r}"]
    return ["what the bucket holds so far:", *(faults or ["no fault"])]


async def _tell_all(arena: Arena, outcome: Outcome) -> None:
    """Put beside the failure what led to it: faults, the ends of the logs; the journal of faults into its folder."""
    with (arena.folder / "faults.jsonl").open("w") as journal:
        for struck in arena.proxy.journal:
            journal.write(json.dumps(asdict(struck)) + "\n")
    parts = [outcome.failure, f"seed {outcome.seed}", f"bucket as files: {arena.s3.folder(arena.bucket)}"]
    parts += await _inspect(arena)
    if arena.proxy.journal:
        parts.append("the last faults injected:")
        parts += [
            f"  {each.at:.3f} {each.fault} {each.method} {each.key} -> {each.status}"
            for each in arena.proxy.journal[-FAULTS_SHOWN:]
        ]
    for consumer in arena.consumers:
        tail = "\n".join(consumer.output().splitlines()[-TAIL_LINES:])
        parts.append(f"---- {consumer.log_file.name} (exit {consumer.process.returncode})\n{tail}")
    outcome.failure = "\n".join(parts)
    (arena.folder / "failure.txt").write_text(outcome.failure + "\n")
