"""What no formula tells: the real worker on the tests' fakes, in virtual time, at many partitions.

Owns: the load, what is read off the bucket's requests and the worker. Does not own: the worker (`consumer`), the fakes
and the clock (`tests`), the formulas it is compared with (`scale_model`).

Invariants: the same numbers on every machine: time is virtual, chance has a seed. Every record is in the bucket once
in the end, or the figures are void (BenchError).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from bench.process import BenchError
from bench.scale_model import BATCH_BYTES, BATCH_RECORDS, BATCH_SECONDS, HEAD_SECONDS, PUT_SECONDS
from consumer.chain import Phase
from consumer.keys import KeyTemplate
from tests.fakes.store import Call
from tests.unit.consumer.worker_worlds import TEMPLATE, World
from tests.virtual_time import run, until

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.fakes.store import Asked

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
TICK_SECONDS: Final = 0.5
STEADY_FROM, STEADY_CYCLES = 2, 6  # cycles of BATCH_SECONDS: the first two are the start, then so many are counted
LATENCY: Final = {Call.PUT: PUT_SECONDS, Call.HEAD: HEAD_SECONDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One topic, each partition getting a record every `gap_seconds` on average; one member, then two.

    `busiest_second` counts puts asked for: at the start's echo (all batches began together), in the steady cycles, and
    where the hour turns. `standstill_seconds`: from the second member's joining until every partition reads again;
    `cut_objects`: puts in that time. `cycle_seconds`: between objects of a partition, in the steady cycles.
    """

    partitions: int
    gap_seconds: float
    cycle_seconds: float
    busiest_start: int
    busiest_steady: int
    busiest_hour: int
    standstill_seconds: float
    cut_objects: int


class _Watch:
    """Notes when puts are asked for, and takes the time a request takes."""

    def __init__(self) -> None:
        self.puts: list[tuple[float, str]] = []  # when, of which partition
        self._loop = asyncio.get_running_loop()

    async def before(self, asked: Asked) -> None:
        if asked.upload is not None:
            self.puts.append((self._loop.time(), asked.upload.metadata["partition"]))
        await asyncio.sleep(LATENCY.get(asked.call, 0.0))

    def between(self, begin: float, end: float) -> list[float]:
        return [at for at, _ in self.puts if begin <= at < end]

    def cycle_seconds(self, begin: float, end: float) -> float:
        """The mean time from a put to the next of the same partition."""
        last: dict[str, float] = {}
        gaps: list[float] = []
        for at, partition in self.puts:
            if begin <= at < end:
                if partition in last:
                    gaps.append(at - last[partition])
                last[partition] = at
        return mean(gaps)

    def busiest(self, begin: float, end: float) -> int:
        """Puts in the fullest second."""
        return max(Counter(int(at - begin) for at in self.between(begin, end)).values(), default=0)


def simulate(partitions: int, gap_seconds: float) -> Seen:
    """A start, some steady minutes, an hour's turn, and a second member's joining."""
    return _quietly(_simulate(partitions, gap_seconds))


async def _simulate(partitions: int, gap_seconds: float) -> Seen:
    loop = asyncio.get_running_loop()
    world = World(partitions=partitions, seconds=BATCH_SECONDS, records=BATCH_RECORDS, max_bytes=BATCH_BYTES)
    watch = _Watch()
    world.store.before = watch.before
    hour = 0

    async def load() -> None:
        while True:
            for partition in range(partitions):
                if loop.random.random() < TICK_SECONDS / gap_seconds:  # type: ignore[attr-defined] # of the virtual loop
                    world.numbers(partition, 1, timestamp=hour * HOUR_MS)
            await asyncio.sleep(TICK_SECONDS)

    began = loop.time()
    first = await world.start("a")
    loading = asyncio.create_task(load())
    steady = began + STEADY_FROM * BATCH_SECONDS
    turn = steady + STEADY_CYCLES * BATCH_SECONDS
    await asyncio.sleep(turn - loop.time())
    hour = 1
    await asyncio.sleep(BATCH_SECONDS)
    joining = loop.time()
    second = await world.start("b")

    def reads_again() -> bool:
        owned = [*first.worker.partitions.values(), *second.worker.partitions.values()]
        reading = (Phase.POSITIONED, Phase.RUNNING)  # positioned: it waits for a first record only
        return world.group.generation > 1 and len(owned) == partitions and all(p.chain.phase in reading for p in owned)

    await until(reads_again, what="every partition reads")
    standing = loop.time() - joining
    loading.cancel()
    await asyncio.sleep(2 * BATCH_SECONDS)  # what is open ends by time
    await first.end()
    await second.end()
    _check(world)
    return Seen(
        partitions=partitions,
        gap_seconds=gap_seconds,
        cycle_seconds=watch.cycle_seconds(steady, turn),
        busiest_start=watch.busiest(began, steady),
        busiest_steady=watch.busiest(steady, turn),
        busiest_hour=watch.busiest(turn, joining),
        standstill_seconds=standing,
        cut_objects=len(watch.between(joining, joining + standing)),
    )


def simulate_pressure(partitions: int, memory_bytes: int) -> float:
    """The mean object's bytes where memory, and nothing else, ends the batches; uncompressed, all growing alike."""
    return _quietly(_simulate_pressure(partitions, memory_bytes))


async def _simulate_pressure(partitions: int, memory_bytes: int) -> float:
    world = World(
        partitions=partitions,
        seconds=10_000.0,
        records=BATCH_RECORDS,
        max_bytes=BATCH_BYTES,
        memory_bytes=memory_bytes,
        compression="none",
        keys=KeyTemplate(TEMPLATE, prefix="", topic="task", ext="jsonl"),
    )
    process = await world.start()
    value = '"' + "x" * 97 + '"'
    begins = len(value) * (memory_bytes // partitions // len(value) // 40)
    sizes: list[int] = []
    while len(sizes) < 12 * partitions:
        for partition in range(partitions):
            world.produce(partition, *([value] * max(1, begins // len(value))))
        await asyncio.sleep(TICK_SECONDS)
        sizes = [len(stored.body) for stored in world.store.objects.values()]
    await process.end()
    _check(world)
    return mean(sizes[4 * partitions : 12 * partitions])


def _check(world: World) -> None:
    if not world.complete():
        message = "records are missing or doubled: the figures are void"
        raise BenchError(message)


def _quietly(work: Coroutine[object, object, T]) -> T:
    """Its result, in virtual time, without the worker's log lines."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        return run(work)
    finally:
        structlog.configure(**before)
