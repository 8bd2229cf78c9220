"""A broker that dies, freezes, or does not know its groups yet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from demo import kafka_protocol
from demo.ports import HOST
from tests.chaos import loading_coordinator
from tests.chaos.loading_coordinator import LoadingCoordinator
from tests.chaos.registry import scenario
from tests.chaos.witness import Witness, writer_of
from tests.servers import Produced, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.arena import Arena
    from tests.processes import ServiceProcess

MIB = 1 << 20
PROCESS_ALLOWANCE_BYTES = 120 * MIB
FROZEN_SECONDS = 30.0
LOADING_SECONDS = 6.0
QUICK = {"KAFKA_SESSION_TIMEOUT_SECONDS": "3", "KAFKA_REBALANCE_TIMEOUT_SECONDS": "6"}


@scenario(
    "broker-killed",
    "The broker is killed with SIGKILL under load and started again, twice; members join while it is away and while its"
    " coordinator loads, one is killed, one stopped in order.",
    ci=True,
    own_kafka=True,
    settings=QUICK,
)
async def broker_killed(arena: Arena) -> None:
    first, second = arena.consumer(), arena.consumer()
    await arena.assigned(first, second)
    async with arena.load(3000):
        for leaver in (first, second):
            await arena.objects_grow(6)
            await asyncio.sleep(arena.random.uniform(0.0, 1.0))  # anywhere between two puts of a partition
            arena.kafka.server.kill()
            began = time.monotonic()
            early = arena.consumer()  # asks for a broker that is not there yet
            await early.logged("Asking again")
            seen = await _restart(arena, late := arena.consumer())
            arena.note(f"coordinator_loading_seen_{seen.replace(' ', '_')}", 1)
            arena.note_longest("broker_away_seconds", time.monotonic() - began)
            arena.note_longest("recovery_seconds", await arena.caught_up(seconds=45))
            await arena.assigned(early, late)
            if leaver is first:
                arena.kill(leaver)
            else:
                await arena.stop(leaver)
    await arena.proven()
    _nobody_fell_back(arena.consumers)
