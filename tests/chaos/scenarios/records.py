"""What the topic is like: timestamps of many hours, partitions that are added."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from demo.kafka_server import TOPICS
from tests.chaos.registry import scenario
from tests.servers import Produced, eventually

if TYPE_CHECKING:
    from tests.chaos.arena import Arena

PARTITIONS = 4
LONGEST = str((1 << 63) - 1)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LAST_MS = 253402300799999  # 9999-12-31T23:59:59.999Z
SPARSE_FROM_MS = 946684800000  # 2000-01-01T00:00:00Z

CALENDAR_AGE_SECONDS = 5.0
CALENDAR_SHARE = 16
BATCH_RECORDS = 64_000
INTERLEAVED_SECONDS = 20.0
BURST = 40_000


@scenario(
    "interleaved-hours",
    "Timestamps of several hours and days, of 0 and of the year 9999 lie mixed, or each record is an hour after the one"
    " before: no storm of tiny objects.",
    partitions=PARTITIONS,
    topic_config={
        "message.timestamp.after.max.ms": LONGEST,
        "retention.ms": "-1",  # else the broker deletes what claims to be that old
        "segment.ms": LONGEST,
    },
    settings={
        "BATCH_MAX_SECONDS": "10",
        "BATCH_MAX_RECORDS": str(BATCH_RECORDS),
        "KAFKA_SESSION_TIMEOUT_SECONDS": "3",
    },
)
async def interleaved_hours(arena: Arena) -> None:
    """The bound (design §5, §6.3). Without a rule each record of a later hour would begin an object.

    A batch is sealed by its own age (10 s here), by a later hour once it is 5 s old or holds 1/16 of a limit, by a full
    limit, or once at the end of an assignment. So an object is 5 s old, or holds L/16 records (the values are small:
    bytes never count), or is the last one of its partition in a process. The ages of neighbours overlap by no more than
    the time that the first one's put takes, for the record that cuts may have arrived during the put before. So of R
    records in P partitions within T seconds, read by N processes whose puts took S seconds in all, there are at most

        (P * T + S) / 5  +  R / (L / 16)  +  P * N   objects.
    """
    first = arena.consumer()
    await arena.assigned(first)
    began = time.monotonic()
    written = 0
    while time.monotonic() - began < INTERLEAVED_SECONDS:
        written += await _produce_interleaved(arena, 2000, begin=written)
    arena.kill(first)
    written += await _produce_interleaved(arena, BURST, begin=written)  # more than batches may hold, there at once
    second = arena.consumer()
    verdict = await arena.proven()
    seconds = time.monotonic() - began
    assert verdict.consumed == written
    puts_seconds = sum(float(str(line["seconds"])) for each in (first, second) for line in each.lines("Uploaded"))
    by_age = (PARTITIONS * seconds + puts_seconds) / CALENDAR_AGE_SECONDS
    bound = by_age + written / (BATCH_RECORDS / CALENDAR_SHARE) + PARTITIONS * len(arena.consumers)
    arena.note("objects_allowed", int(bound))
    assert verdict.objects <= bound, f"{verdict.objects} objects, {bound:.0f} are allowed"


async def _produce_interleaved(arena: Arena, count: int, *, begin: int) -> int:
    """That many records from the number `begin` on; how many. Half of the partitions hold hours in any order, the other
    half an hour a record: there each record is of a later hour than the one before."""
    dice, now = arena.random, int(time.time() * 1000)

    def timestamp(n: int) -> int:
        if n % PARTITIONS < PARTITIONS // 2:
            return SPARSE_FROM_MS + n * HOUR_MS
        draw = dice.random()
        if draw < 0.02:
            return dice.choice((0, 1, LAST_MS, LAST_MS + 1))
        return now + dice.randint(-3, 3) * HOUR_MS + (dice.randint(-3, 3) * DAY_MS if draw < 0.3 else 0)

    records = [
        Produced(value=b'{"n":%d}' % n, partition=n % PARTITIONS, timestamp=timestamp(n))
        for n in range(begin, begin + count)
    ]
    return len(await arena.kafka.produce(arena.topic, records))


@scenario(
    "partitions-added",
    "Partitions are added twice under load, the second time a replica is killed before any has noticed; the new ones"
    " begin at 0, though the start says `latest`.",
    partitions=PARTITIONS,
    settings={"KAFKA_START_FROM": "latest", "KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def partitions_added(arena: Arena) -> None:
    first, second = arena.consumer(), arena.consumer()
    await arena.assigned(first, second)  # the topic is empty: every origin is 0
    async with arena.load(2000):
        await arena.objects_grow(PARTITIONS)
        await _add_partitions(arena, PARTITIONS + 2)
        async with arena.load(1000, partitions=range(PARTITIONS, PARTITIONS + 2)):
            await _noticed(arena, PARTITIONS + 2)
            await _add_partitions(arena, PARTITIONS + 3)
            arena.kill(second)
            assert not _held(arena, PARTITIONS + 3), "the new partition was noticed before the kill"
            async with arena.load(500, partitions=[PARTITIONS + 2]):
                arena.consumer()
                await _noticed(arena, PARTITIONS + 3)
                await arena.objects_grow(PARTITIONS + 3)
    verdict = await arena.proven()
    assert {partition: spans[0][0] for partition, spans in verdict.spans.items()} == dict.fromkeys(
        range(PARTITIONS + 3), 0
    )
    assert verdict.consumed == sum(load.acknowledged for load in arena.loads)


async def _add_partitions(arena: Arena, count: int) -> None:
    arguments = ("--alter", "--topic", arena.topic, "--partitions", str(count))
    done = await asyncio.to_thread(arena.kafka.server.tool, TOPICS, *arguments)

    async def there() -> bool:
        return len(await arena.kafka.end_offsets(arena.topic)) == count

    await eventually(there, f"{count} partitions ({done.stdout}{done.stderr})", 30)


async def _noticed(arena: Arena, count: int) -> None:
    """Wait until the newest partition is somebody's: members see it when they ask for metadata anew (30 s)."""

    began = time.monotonic()
    await eventually(lambda: _held(arena, count), f"partition {count - 1} assigned", 60)
    arena.note_longest("noticed_seconds", time.monotonic() - began)


def _held(arena: Arena, count: int) -> bool:
    """Whether the newest of so many partitions was ever assigned to anybody."""
    lines = [line for consumer in arena.consumers for line in consumer.lines("Partitions assigned")]
    return any(count - 1 in cast("list[int]", line["partitions"]) for line in lines)
