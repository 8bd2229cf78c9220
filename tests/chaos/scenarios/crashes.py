"""Processes that end without a word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos import faults
from tests.chaos.registry import scenario

if TYPE_CHECKING:
    from tests.chaos.arena import Arena

REPLICAS = 3
KILLS = 3


@scenario(
    "kill-storm",
    "Three replicas under load; three times one of them, or two at once, is killed with SIGKILL and replaced. A sixth"
    " of all puts takes effect 2 s after it was sent, behind the death of some of the senders; a sixth never does.",
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
    arena.proxy.inject(faults.STALL.late(2.0), method="PUT", share=1 / 6, key_part="topic=")
    arena.proxy.inject(faults.STALL, method="PUT", share=1 / 6, key_part="topic=")
    async with arena.load(3000):
        for _ in range(REPLICAS):
            arena.consumer()
        await arena.assigned(*arena.consumers)
        for _ in range(KILLS):
            await arena.objects_grow(4)  # else most blows would fall while Kafka waits for the dead
            await asyncio.sleep(dice.uniform(0.0, 1.2))  # anywhere between two puts of a partition
            victims = dice.sample(arena.running(), dice.choice([1, 1, 2]))
            arena.kill(*victims)
            for _ in victims:
                arena.consumer()
        await arena.objects_grow()
    arena.proxy.heal()
    verdict = await arena.proven()
    assert verdict.consumed == arena.loads[0].acknowledged
    arena.note("kills", sum(consumer.process.returncode == -9 for consumer in arena.consumers))
