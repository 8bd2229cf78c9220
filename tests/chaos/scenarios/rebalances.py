"""Replicas that come and go in order: what a deployment and a change of scale do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.figures import hand_over_count, hand_overs
from tests.chaos.registry import scenario
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.arena import Arena
    from tests.processes import ServiceProcess

REPLICAS = 4
PARTITIONS = 8
HAND_OVER_LIMIT_SECONDS = 3.0  # beyond Kafka's own waits, from revocation to the new owner's first record
MEASURED_SHARE = 0.5  # of all hand-overs: an owner of a moment puts no object by which its first record could be told


async def _replace_each(arena: Arena, replicas: Sequence[ServiceProcess]) -> list[ServiceProcess]:
    """One at a time: the new one works before the old one is stopped."""
    fresh = []
    for old in replicas:
        new = arena.consumer()
        await arena.assigned(new)
        await arena.objects_grow(PARTITIONS)
        await arena.stop(old)
        fresh.append(new)
        await arena.objects_grow(PARTITIONS)
    return fresh


@scenario(
    "rolling-restart",
    "Four replicas under load are replaced one by one; each hand-over takes less than 3 s beyond Kafka's own waits.",
    ci=True,
    partitions=PARTITIONS,
)
async def rolling_restart(arena: Arena) -> None:
    replicas = [arena.consumer() for _ in range(REPLICAS)]
    async with arena.load(4000):
        await arena.assigned(*replicas)
        await arena.objects_grow(2 * PARTITIONS)
        await _replace_each(arena, replicas)
    await arena.proven()
    found = hand_overs(arena.consumers, batch_max_seconds=float(arena.settings["BATCH_MAX_SECONDS"]))
    happened = hand_over_count(arena.consumers)
    assert len(found) >= happened * MEASURED_SHARE, f"only {len(found)} of {happened} hand-overs could be measured"
    longest = max(found, key=lambda each: each.beyond_kafka_seconds)
    assert longest.beyond_kafka_seconds < HAND_OVER_LIMIT_SECONDS, f"the longest hand-over: {longest}"


@scenario(
    "rolling-deploy",
    "Four replicas with batches of a minute are replaced one by one, then all at once: how many objects that leaves.",
    partitions=PARTITIONS,
    settings={"BATCH_MAX_SECONDS": "60", "KAFKA_SESSION_TIMEOUT_SECONDS": "10"},
)
async def rolling_deploy(arena: Arena) -> None:
    replicas = [arena.consumer() for _ in range(REPLICAS)]
    async with arena.load(4000):
        await arena.assigned(*replicas)
        before = await _put_so_far(arena)
        fresh = []
        for old in replicas:
            new = arena.consumer()
            await arena.assigned(new)
            await arena.stop(old)
            fresh.append(new)
        await arena.spread(*fresh)
        one_by_one = await _put_so_far(arena)
        _note_left_behind(arena, "one_by_one", before, one_by_one)
        last = [arena.consumer() for _ in range(REPLICAS)]
        await arena.assigned(*last)
        await arena.stop(*fresh)
        await arena.spread(*last)
        _note_left_behind(arena, "at_once", one_by_one, await _put_so_far(arena))
    await arena.stop(*last)
    await arena.assigned(arena.consumer(BATCH_MAX_SECONDS="1"))  # puts the rest without waiting for a minute
    await arena.proven()
    arena.note("most_objects_allowed_per_rebalance", PARTITIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Put:
    """What all consumers put so far, as their log lines tell, and how many rebalances there were."""

    objects: int
    records: int
    body_bytes: int
    rebalances: int


async def _put_so_far(arena: Arena) -> _Put:
    objects, records, rebalances = await arena.counted()
    lines = [line for consumer in arena.consumers for line in consumer.lines("Uploaded")]
    return _Put(
        objects=objects,
        records=records,
        body_bytes=sum(int(str(line["bytes"])) for line in lines),
        rebalances=rebalances,
    )


def _note_left_behind(arena: Arena, how: str, before: _Put, after: _Put) -> None:
    objects, rebalances = after.objects - before.objects, after.rebalances - before.rebalances
    arena.note(f"{how}_objects", objects)
    arena.note(f"{how}_mean_object_records", (after.records - before.records) // max(1, objects))
    arena.note(f"{how}_mean_object_bytes", (after.body_bytes - before.body_bytes) // max(1, objects))
    arena.note(f"{how}_rebalances", rebalances)
    assert objects <= PARTITIONS * (rebalances + 1), f"{how}: {objects} objects of {rebalances} rebalances"


@scenario(
    "scale",
    "One replica under load becomes four, then two; nothing but orderly starts and stops.",
    partitions=PARTITIONS,
)
async def scale(arena: Arena) -> None:
    async with arena.load(4000):
        first = arena.consumer()
        await arena.assigned(first)
        await arena.objects_grow(PARTITIONS)
        others = [arena.consumer() for _ in range(REPLICAS - 1)]
        await _shared_by(arena, first, *others)
        await arena.objects_grow(2 * PARTITIONS)
        await arena.stop(first, others[0])
        await _shared_by(arena, *others[1:])
        await arena.objects_grow(2 * PARTITIONS)
    await arena.proven()


async def _shared_by(arena: Arena, *consumers: ServiceProcess) -> None:
    """Wait until these, and only these, have all partitions, each of them some."""

    def each_has_some() -> bool:
        latest = [consumer.lines("Partitions assigned")[-1:] for consumer in consumers]
        return all(lines and lines[0]["partitions"] for lines in latest)

    await eventually(each_has_some, f"partitions for each of {len(consumers)}", 60)
    await arena.spread(*consumers)
    assert each_has_some(), "the partitions were taken away again"
