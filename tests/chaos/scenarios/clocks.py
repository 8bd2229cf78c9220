"""A replica whose wall clock is wrong and jumps."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

from demo.s3_server import VersityGateway
from tests.chaos.faults import Fault, Sees
from tests.chaos.figures import moment
from tests.chaos.jumping_clock import VARIABLE, set_shift
from tests.chaos.registry import scenario
from tests.chaos.witness import Witness, signed_ahead_seconds
from tests.processes import ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.arena import Arena

HOUR_SECONDS = 3600.0
TOLERATED_SECONDS = 600.0  # by a store that looks at the date
STEPS = (-1, 0, 1, 0, -1)  # late from the start, then on time, ahead, and back by both
PHASE_SECONDS = 5.0
TOLERANCE_SECONDS = 60.0
AWS_TOLERANCE_SECONDS = 900.0
TOO_SKEWED = Fault(
    name="403 RequestTimeTooSkewed",
    sees=Sees.REFUSAL,
    status=403,
    code="RequestTimeTooSkewed",
    message="The difference between the request time and the current time is too large.",
)


@scenario(
    "clock-jumps",
    "The wall clock of one of two replicas starts an hour late and jumps forward and back by hours: as many objects as"
    " before, by the same keys, no rebalance.",
)
async def clock_jumps(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    clock = arena.folder / "clock"
    size = TOLERATED_SECONDS if isinstance(arena.s3.server, VersityGateway) else HOUR_SECONDS
    set_shift(clock, STEPS[0] * size)
    wrong, right = _with_clock(arena, clock), arena.consumer()
    await arena.assigned(wrong, right)
    await arena.spread(wrong, right)
    assignments = len(wrong.lines("Partitions assigned"))
    async with arena.load(2000):
        await arena.objects_grow(8)
        for step in STEPS:
            began, shift = time.monotonic(), step * size
            set_shift(clock, shift)
            await asyncio.sleep(PHASE_SECONDS)  # what is asserted is how many objects that time brings
            _as_many_as_ever(arena, witness, wrong, since=began, shift=shift)
            assert await wrong.is_ready()
            for ahead, what in (
                (moment(wrong.lines()[-1]) - time.time(), "its log lines"),
                (witness.puts_of(wrong)[-1].signed_ahead_seconds, "its signatures"),
            ):
                assert abs(ahead - shift) < TOLERANCE_SECONDS, f"{what} are {ahead:.0f} s ahead, not {shift:.0f} s"
    assert len(wrong.lines("Partitions assigned")) == assignments, "a clock has caused a rebalance"
    await arena.proven()


@scenario(
    "clock-skewed",
    "The wall clock of one of two replicas jumps ahead by an hour, and the store refuses what is signed so, as AWS"
    " does: shown with its reason, nothing lost, healed once the clock is right, no restart.",
)
async def clock_skewed(arena: Arena) -> None:
    clock = arena.folder / "clock"
    set_shift(clock, 0.0)
    wrong, right = _with_clock(arena, clock), arena.consumer()
    await arena.assigned(wrong, right)
    await arena.spread(wrong, right)
    arena.proxy.inject(TOO_SKEWED, where=lambda request: abs(signed_ahead_seconds(request)) > AWS_TOLERANCE_SECONDS)
    async with arena.load(2000):
        await arena.objects_grow(8)
        set_shift(clock, HOUR_SECONDS)
        reasons = await wrong.ready_reason("S3 fails for", seconds=20)
        assert re.search(r"RequestTimeTooSkewed|clock", reasons), f"readiness does not name the reason: {reasons}"
        assert await right.is_ready(), "the other replica is none the worse"
        await asyncio.sleep(PHASE_SECONDS)
        set_shift(clock, 0.0)
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        await eventually(wrong.is_ready, "ready once the clock is right", 40, every_seconds=0.2)
    await arena.proven()


def _with_clock(arena: Arena, file: Path) -> ServiceProcess:
    """A consumer whose clock is off by what the file says."""
    process = ServiceProcess(
        ["tests.chaos.jumping_clock", "consumer"], {**arena.settings, VARIABLE: str(file)}, arena.folder
    )
    process.wrong_clock = True
    arena.consumers.append(process)
    return process


def _as_many_as_ever(arena: Arena, witness: Witness, wrong: ServiceProcess, *, since: float, shift: float) -> None:
    """Each of its partitions is put once in BATCH_MAX_SECONDS, neither in a storm nor more seldom."""
    each = PHASE_SECONDS / float(arena.settings["BATCH_MAX_SECONDS"])
    puts = Counter(put.partition for put in witness.puts_of(wrong, since=since))
    assert len(puts) == arena.scenario.partitions // 2, f"at {shift:+.0f} s it put partitions {sorted(puts)} only"
    for partition, count in puts.items():
        assert each / 2 <= count <= each + 2, f"at {shift:+.0f} s partition {partition}: {count} puts, {each} are due"
