"""A broker that dies, freezes, or does not know its groups yet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos import loading_coordinator
from tests.chaos.loading_coordinator import LoadingCoordinator
from tests.chaos.registry import scenario
from tests.chaos.witness import Witness
from tests.oracle import chain_ends
from tests.processes import failing_seconds
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.arena import Arena
    from tests.processes import ServiceProcess

MIB = 1 << 20
MEMORY_LIMIT_BYTES = 64 * MIB
PROCESS_ALLOWANCE_BYTES = 120 * MIB
FROZEN_SECONDS = 30.0
LYING_SECONDS = 2.0
QUICK_GROUP = {"KAFKA_SESSION_TIMEOUT_SECONDS": "3", "KAFKA_REBALANCE_TIMEOUT_SECONDS": "6"}
# A broker that was killed is registered anew only when its old session has ended; 9 s by default.
QUICK_BROKER = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


@scenario(
    "broker-killed",
    "The broker is killed with SIGKILL under load and started again, twice; members come while it is away and just as"
    " it is started again, and join as soon as it answers; one replica is killed, one stopped in order.",
    ci=True,
    own_kafka=True,
    kafka_settings=QUICK_BROKER,
    settings=QUICK_GROUP,
)
async def broker_killed(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    first, second = arena.consumer(), arena.consumer()
    await arena.assigned(first, second)
    joiners: list[ServiceProcess] = []
    async with arena.load(3000):
        await _all_committed(arena)
        began = time.monotonic()
        await _killed_and_back(arena, joiners)
        arena.kill(first)
        await _killed_and_back(arena, joiners)
        await arena.assigned(*joiners)
        await arena.stop(second)
    await arena.proven()
    _nobody_fell_back(arena.consumers, witness, since=began)


async def _killed_and_back(arena: Arena, joiners: list[ServiceProcess]) -> None:
    """One outage, two members coming in it, until all is stored."""
    server = arena.kafka.server
    await arena.objects_grow(4)
    await asyncio.sleep(arena.random.uniform(0.0, 1.0))  # anywhere between two puts of a partition
    server.kill()
    joiners.append(arena.consumer())
    await joiners[-1].logged("Asking again")  # for a broker that is not there
    server.spawn()
    joiners.append(arena.consumer())  # before the broker answers
    await asyncio.to_thread(server.wait_ready)
    arena.note_longest("recovery_seconds", await arena.caught_up(seconds=45))


@scenario(
    "coordinator-loading",
    "A coordinator that loads or has moved tells of no offsets (a proxy before the real broker says so at will): first"
    " members wait for the predecessor's offsets, later ones for their own; nobody believes that there are none.",
    ci=True,
    settings={**QUICK_GROUP, "KAFKA_START_FROM": "latest"},
)
async def coordinator_loading(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    async with arena.load(4000):
        await eventually(lambda: arena.loads[0].acknowledged >= 4000, "records of a predecessor's time")
    left = await _predecessor(arena)
    async with LoadingCoordinator(arena.kafka.server.port) as front:
        arena.settings["KAFKA_BOOTSTRAP_SERVERS"] = front.bootstrap_servers
        await _first_members_wait(arena, front, witness)
        async with arena.load(3000):
            await _all_committed(arena)
            await arena.objects_grow(6)
            await _later_members_wait(arena, front, witness)
        arena.note("offset_fetches_answered_with_an_error", front.answered)
        await arena.proven(origins=left)


async def _first_members_wait(arena: Arena, front: LoadingCoordinator, witness: Witness) -> None:
    """Origins come from the group's offsets; who believes that there are none writes `latest` into the layout."""
    front.error = loading_coordinator.LOADING
    first, second = arena.consumer(), arena.consumer()
    await _lied_to(front, 10)
    assert not await arena.s3.keys(arena.bucket), "a layout was written without knowing the group's offsets"
    assert not witness.puts
    front.error = None
    await arena.assigned(first, second)


async def _later_members_wait(arena: Arena, front: LoadingCoordinator, witness: Witness) -> None:
    """A member is killed, another comes: at the rebalance all ask for their offsets, and wait until they are told."""
    victim, survivor = arena.running()
    rebalances = len(survivor.lines("Partitions assigned"))
    front.error = loading_coordinator.MOVED
    arena.kill(victim)
    fresh = arena.consumer()
    await survivor.logged("Partitions assigned", count=rebalances + 1)
    began = time.monotonic()
    for front.error in (loading_coordinator.MOVED, loading_coordinator.LOADING):
        await _lied_to(front, 5)
    assert not fresh.lines("Partitions assigned"), "it joined without knowing whose offsets the group has"
    assert not witness.puts_of(survivor, since=began), "it put without knowing where its partitions stand"
    assert not witness.listings(since=began), "it looked for the chain's end in the bucket: it took the lie for truth"
    ends = await chain_ends(arena.s3, arena.bucket)
    front.error = None
    await arena.assigned(fresh)
    await eventually(lambda: len(_first_puts(witness, began)) == len(ends), "a put for each partition", 30)
    assert _first_puts(witness, began) == ends, f"first puts at {_first_puts(witness, began)}, chains ended at {ends}"
    assert not witness.listings(since=began)


def _first_puts(witness: Witness, since: float) -> dict[int, int]:
    """Where each partition's first put since then starts."""
    return {put.partition: put.start for put in reversed(witness.puts) if put.at >= since}


async def _lied_to(front: LoadingCoordinator, times: int) -> None:
    """That many lies more, and seconds of them."""
    until, wanted = time.monotonic() + LYING_SECONDS, front.answered + times
    await eventually(lambda: front.answered >= wanted and time.monotonic() >= until, f"{times} lies told", 60)


async def _predecessor(arena: Arena) -> Mapping[int, int]:
    """What another program has committed for the group before it was stopped: offsets within the log, unsigned."""
    ends = await arena.kafka.end_offsets(arena.topic)
    left = {partition: arena.random.randint(1, end - 1) for partition, end in ends.items()}
    other = AIOKafkaConsumer(
        bootstrap_servers=arena.kafka.bootstrap_servers, group_id=arena.group, enable_auto_commit=False
    )
    await other.start()
    try:
        names = {partition: TopicPartition(arena.topic, partition) for partition in left}
        other.assign(list(names.values()))
        await other.commit({names[partition]: offset for partition, offset in left.items()})
    finally:
        await other.stop()
    return left


async def _all_committed(arena: Arena) -> None:
    """Every partition has its first commit; before it, looking into the bucket is right."""

    async def committed() -> bool:
        return len(await arena.kafka.committed(arena.group, arena.topic)) == arena.scenario.partitions

    await eventually(committed, "a commit for each partition", 40, every_seconds=0.25)


@scenario(
    "broker-frozen",
    "The broker is stopped by SIGSTOP for 30 s under load: nobody dies, memory stays bounded, readiness names Kafka,"
    " all goes on by itself.",
    own_kafka=True,
    settings={"MEMORY_LIMIT_BYTES": str(MEMORY_LIMIT_BYTES), "BATCH_MAX_BYTES": str(8 * MIB)},
)
async def broker_frozen(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    replicas = [arena.consumer(), arena.consumer()]
    await arena.assigned(*replicas)
    async with arena.load(2500, value_bytes=1000):
        await _all_committed(arena)
        began = time.monotonic()
        await arena.objects_grow(6)
        frozen = time.monotonic()
        arena.kafka.server.suspend()
        try:
            for replica in replicas:
                await replica.ready_reason("Kafka fails for", seconds=FROZEN_SECONDS)
            arena.note("readiness_red_after_seconds", time.monotonic() - frozen)
            await asyncio.sleep(FROZEN_SECONDS - (time.monotonic() - frozen))
            for replica in replicas:
                assert (await replica.get("/healthz"))[0] == 200, "it is said to be dead, but only Kafka is away"
                _since((await replica.get("/readyz"))[1], at_most=FROZEN_SECONDS + 5)
        finally:
            arena.kafka.server.resume()
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        for replica in replicas:
            await eventually(replica.is_ready, "ready again", 30, every_seconds=0.2)
    assert arena.running() == replicas, "a replica ended"
    await arena.proven()
    _nobody_fell_back(arena.consumers, witness, since=began)
    peak, allowed = arena.peak_memory_bytes(), MEMORY_LIMIT_BYTES + PROCESS_ALLOWANCE_BYTES
    assert peak <= allowed, f"peak memory was {peak / MIB:.0f} MiB, {allowed / MIB:.0f} are allowed"


@scenario(
    "members-in-outage",
    "While the broker hangs, then while it is dead: members come, one is killed, others are stopped by SIGTERM and end"
    " with 0 within their budget.",
    own_kafka=True,
    kafka_settings=QUICK_BROKER,
    settings=QUICK_GROUP,
)
async def members_in_outage(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    replicas = [arena.consumer() for _ in range(4)]
    await arena.assigned(*replicas)
    async with arena.load(2000):
        await _all_committed(arena)
        began = time.monotonic()
        await arena.objects_grow(6)
        server = arena.kafka.server
        server.suspend()
        try:
            joined = arena.consumer()
            arena.kill(replicas[0])
            arena.note("stop_while_kafka_hangs_seconds", await arena.stop(replicas[1]))
            waiting = arena.consumer()
            await waiting.ready_reason("starting", seconds=20)
            await arena.stop(waiting)
        finally:
            server.resume()
        arena.note("recovery_seconds", await arena.caught_up(seconds=40))
        server.kill()
        another = arena.consumer()
        await another.logged("Asking again")
        arena.note("stop_while_kafka_is_dead_seconds", await arena.stop(replicas[2]))
        await arena.restart(server)
        await arena.assigned(joined, another)
    await arena.proven()
    _nobody_fell_back(arena.consumers, witness, since=began)


def _since(reasons: str, *, at_most: float) -> None:
    """It may have been noticed as late as a question of the replica's own timed out."""
    assert 0 < failing_seconds(reasons, "Kafka") <= at_most, f"since when is wrong: {reasons}"


def _nobody_fell_back(consumers: Sequence[ServiceProcess], witness: Witness, *, since: float) -> None:
    """Nobody took a silent or loading coordinator for a group without offsets, and nothing stalled."""
    for consumer in consumers:
        for event in ("Unsigned offset ignored", "Stalled", "Crashed", "Gave up"):
            assert not consumer.lines(event), f"{consumer.log_file.name}: {consumer.lines(event)}"
    listings = witness.listings(since=since)
    assert not listings, f"the chain's end was looked for in the bucket {listings} times, though all had commits"
