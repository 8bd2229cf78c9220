"""Running simulated worlds, one or many: a seed in, its trace and what was seen in it out.

Owns: the loop around a world, and saying how a failure is replayed. Does not own: the world.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.simulation.processes import ProcessLoop
from tests.simulation.world import World
from tests.virtual_time import run

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_SECONDS: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What became of one seed; `failure` None = all was well."""

    seed: int
    trace: Sequence[str]
    seen: Counter[str]
    virtual_seconds: float
    failure: BaseException | None

    @property
    def digest(self) -> str:
        """Of the trace: the same seed has the same."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def report(self, lines: int = 60) -> str:
        """The failure, the end of its trace, and how to see it again."""
        return "\n".join(
            [
                f"seed {self.seed}: {self.failure!r}",
                *self.trace[-lines:],
                f"replay: SIM_SEED={self.seed} pytest tests/simulation; python -m tests.simulation --seed {self.seed}",
            ]
        )


def live(seed: int) -> Life:
    """The whole life of one world."""
    worlds: list[World] = []
    ages: list[float] = []

    async def main() -> BaseException | None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        began = loop.time()
        worlds.append(World(loop))
        try:
            await worlds[0].live()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- any of them is what is looked for
            return error
        finally:
            ages.append(loop.time() - began)
            loop.set_exception_handler(lambda *_: None)  # the remains are cleared away: whatever they say now
            loop.release()
        return None

    collecting = gc.isenabled()
    gc.disable()  # when it finalizes what is not a matter of the seed
    try:
        failure = run(main(), seed=seed, limit_seconds=LIMIT_SECONDS, loop_class=ProcessLoop)
    except RuntimeError as error:  # NothingScheduledError, TooLateError
        failure = error
    finally:
        if collecting:
            gc.enable()
    world = worlds[0]
    return Life(
        seed=seed,
        trace=world.trace,
        seen=world.seen,
        virtual_seconds=ages[0] if ages else 0.0,
        failure=failure,
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """Many lives together; `reports` of those that went wrong."""

    seen: Counter[str] = field(default_factory=Counter)
    reports: list[str] = field(default_factory=list)
    virtual_seconds: float = 0.0
    worlds: int = 0

    def add(self, other: Tally) -> None:
        self.seen += other.seen
        self.reports += other.reports
        self.virtual_seconds += other.virtual_seconds
        self.worlds += other.worlds


def live_all(seeds: Sequence[int]) -> Tally:
    """One after the other."""
    tally = Tally()
    for seed in seeds:
        life = live(seed)
        reports = [] if life.failure is None else [life.report()]
        tally.add(Tally(seen=life.seen, reports=reports, virtual_seconds=life.virtual_seconds, worlds=1))
    return tally
