"""Processes that end without a word."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.chaos.witness import put_of, writer_of
from tests.servers import eventually

if TYPE_CHECKING:
    from tests.chaos.arena import Arena
    from tests.chaos.wire import Request
    from tests.chaos.witness import Put
    from tests.processes import ServiceProcess

REPLICAS = 3
KILLS = 3
SHARE = 1 / 6
LATE_SECONDS = 2.0
ARRIVED_SECONDS = 0.2  # after its head a put's body has arrived: cut off in between it would never take effect
LEFT_SECONDS = 0.5  # at least, until a put takes effect whose writer is to die before
CREATED = 200


@scenario(
    "kill-storm",
    "Three replicas under load; three times one of them, or two at once, is killed with SIGKILL and replaced. A sixth"
    " of all puts takes effect 2 s after it was sent, each time one of the killed replica's after its death; a sixth"
    " never does.",
    ci=True,
    partitions=6,
    settings={
        "KAFKA_SESSION_TIMEOUT_SECONDS": "3",
        "KAFKA_REBALANCE_TIMEOUT_SECONDS": "5",
        "UPLOAD_TIMEOUT_SECONDS": "4",
    },
)
async def kill_storm(arena: Arena) -> None:
    dice = arena.random
    late = _LatePuts(arena)
    arena.proxy.inject(faults.STALL, method="PUT", share=SHARE, key_part="topic=")
    async with arena.load(3000):
        for _ in range(REPLICAS):
            arena.consumer()
        await arena.assigned(*arena.consumers)
        for _ in range(KILLS):
            await arena.objects_grow(4)  # else most blows would fall while Kafka waits for the dead
            await asyncio.sleep(dice.uniform(0.0, 1.2))  # anywhere between two puts of a partition
            await eventually(lambda: bool(late.writers()), "a replica whose put is yet to take effect", 40)
            victim = dice.choice(late.writers())
            others = [each for each in arena.running() if each is not victim]
            victims = [victim, *dice.sample(others, dice.choice([0, 0, 1]))]
            arena.kill(*victims)
            await late.landed_of_the_dead(victim)
            for _ in victims:
                arena.consumer()
        await arena.objects_grow()
    arena.proxy.heal()
    verdict = await arena.proven()
    assert late.landed, "no put of a dead writer was stored after its death"
    assert verdict.consumed == arena.loads[0].acknowledged
    arena.note("puts_after_their_writers_death", late.landed)
    arena.note("kills", sum(consumer.process.returncode == -9 for consumer in arena.consumers))


class _LatePuts:
    """A sixth of the objects takes effect seconds after its first put was sent; whose, and which have not yet."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._tried: set[str] = set()  # so that what is late creates its object: nobody has put it before
        self._late: list[Put] = []
        self.landed = 0  # after their writer's death
        self._fault = faults.STALL.late(LATE_SECONDS)
        arena.proxy.inject(self._fault, where=self._strikes)

    def _strikes(self, request: Request) -> bool:
        put = put_of(request)
        if put is None or put.key in self._tried:
            return False
        self._tried.add(put.key)
        struck = self._arena.random.random() < SHARE
        if struck:
            self._late.append(put)
        return struck

    def _answers(self) -> dict[str, int | None]:
        """What the store answered, by key."""
        return {struck.key: struck.status for struck in self._arena.proxy.journal if struck.fault == self._fault.name}

    def _outstanding(self, *, at_least_seconds: float) -> list[Put]:
        """Sent, arrived whole, and with at least that long to go."""
        age = LATE_SECONDS - at_least_seconds
        now = time.monotonic()
        return [put for put in self._late if ARRIVED_SECONDS < now - put.at < age and put.key not in self._answers()]

    def writers(self) -> list[ServiceProcess]:
        """The running ones that have a put outstanding, with time enough left to kill them before."""
        names = {put.writer for put in self._outstanding(at_least_seconds=LEFT_SECONDS)}
        return [each for each in self._arena.running() if each.lines("Starting") and writer_of(each) in names]

    async def landed_of_the_dead(self, writer: ServiceProcess) -> None:
        """Called at once after its death: what it had outstanding is not in the store yet, and gets there.

        Where Kafka had not heard of the writer for a while, its successor may have been quicker: that counts not.
        """
        name = writer_of(writer)
        keys = {put.key for put in self._outstanding(at_least_seconds=0.0) if put.writer == name}
        assert keys, "its puts took effect before it was killed"
        await eventually(lambda: keys <= self._answers().keys(), f"the dead writer's puts of {keys}", 10)
        self.landed += sum(self._answers()[key] == CREATED for key in keys)
