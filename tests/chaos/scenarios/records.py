"""Records that are odd, partitions that are added: what the topic holds and where, not who reads it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.servers import Produced, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.arena import Arena
    from tests.chaos.faults import Fault
    from tests.chaos.wire import Request

TOPICS = "org.apache.kafka.tools.TopicCommand"
PARTITIONS = 4
LONGEST = str((1 << 63) - 1)
LARGE_BYTES = 900_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LAST_MS = 253402300799999  # 9999-12-31T23:59:59.999Z

# Each is one JSON value, so a line; the line breaks are compacted away.
LINES = (
    b"{}",
    b"null",
    b"-0",
    b"1E400",
    b"123456789012345678901234567890.1234567890",
    b' { "a" : [ 1 , 2 ] } ',
    b'{\n  "symbol": "AAPL",\n  "prices": [\n    1.50,\n    2.0\n  ]\n}\n',
    b'{"a":\r\n"x"}\r\n',
    b'{"a":1,"a":2}',
    b'{"offset":7,"value":null,"reason":"x"}',
    b'"\\u0000\\ud83d\\ude00 \\u001f"',
    '"\u2028 \x7f ü 😀"'.encode(),
    b"[" * 512 + b"]" * 512,
    b'{"large":"%s"}' % (b"x" * LARGE_BYTES),
)
# None is: they go to quarantine, bit for bit.
ASIDES = (
    None,
    b"",
    b" ",
    b"poison",
    b"NaN",
    b'{"a":NaN}',
    b"[-Infinity]",
    b"{}{}",
    b"{}\n{}",
    b'{"a":1',
    b"{'a':1}",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe\x00",
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b'{"a":"\\udc00\\ud800"}',
    b'"\x01"',
    b'"a\nb"',
    b"\x00",
    b"[" * 513 + b"]" * 513,
    b"[" * 100_000,
    b"\x80" * LARGE_BYTES,
)
KEYS = (None, b"", b"AAPL", b"\xff\x00", b"a\nb\r", b'","value":null}', b"\xed\xa0\x80", b"null")
HEADERS: Sequence[Sequence[tuple[str, bytes | None]]] = (
    (),
    (("ce_id", b"1"), ("content-type", b"application/json")),
    (("twice", b"1"), ("twice", b"2"), ("twice", None), ("", b"")),
    (("binary", b"\xff\x00"), ("schlüssel", "größe".encode()), ("json", b'{"base64":"QQ=="}')),
)
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
ROUNDS = 4
KILLED_IN = {1: faults.STALL, 3: faults.HELD}  # these rounds: what becomes of the main objects' puts
BATCH_BYTES = 1 << 20

CALENDAR_AGE_SECONDS = 5.0
CALENDAR_SHARE = 16
BATCH_RECORDS = 64_000
INTERLEAVED_SECONDS = 20.0
BURST = 40_000


@scenario(
    "odd-records",
    "Poison, tombstones, empty and 900 KB values, pretty-printed JSON, non-UTF-8, BOM, NaN, deep nesting, binary keys,"
    " headers: in value format (two kills between quarantine and main object), then all of it again as envelopes.",
    ci=True,
    partitions=PARTITIONS,
    settings={"S3_PREFIX": "value/", "KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def odd_records(arena: Arena) -> None:
    alone = PARTITIONS - 1  # gets nothing that can be a line: its objects are empty
    arena.consumer()
    await arena.assigned(*arena.running())
    async with arena.load(800, partitions=range(alone)):
        for number in range(ROUNDS):
            await _produce(arena, [*LINES, *ASIDES], partitions=range(alone))
            await _produce(arena, [*ASIDES], partitions=[alone])
            if number in KILLED_IN:
                await _kill_before_main_objects(arena, KILLED_IN[number], batch_records=arena.random.randrange(20, 400))
            else:
                await arena.objects_grow()
    verdict = await arena.proven()
    odd = (2 * ROUNDS + len(KILLED_IN)) * len(ASIDES)
    assert verdict.quarantined == odd, f"{verdict.quarantined} records are in quarantine, {odd} belong there"
    empty = sum(
        found.metadata["record-count"] == "0"
        for found in (await arena.s3.objects(arena.bucket)).values()
        if "_ticklake/" not in found.key
    )
    assert empty, "no chunk was of quarantined records alone"
    arena.note("value_quarantined", verdict.quarantined)
    arena.note("value_orphans", verdict.orphans)
    assert verdict.orphans, "no quarantine object lost its main object: the kills proved little"

    arena.group = unique("group")
    arena.settings |= {
        "S3_PREFIX": "envelope/",
        "KAFKA_GROUP_ID": arena.group,
        "RECORD_FORMAT": "envelope",
        "BATCH_MAX_BYTES": str(BATCH_BYTES),
    }
    with arena.proxy.injecting(faults.LOST_ANSWER, method="PUT", share=0.2):
        killed = arena.consumer()
        await arena.objects_grow(PARTITIONS)
        arena.kill(killed)
        arena.consumer()
        await arena.objects_grow(PARTITIONS)
    verdict = await arena.proven()
    assert not verdict.quarantined
    assert verdict.consumed == arena.loads[0].acknowledged + ROUNDS * len(LINES) + odd


async def _produce(arena: Arena, values: Sequence[bytes | None], *, partitions: Sequence[int]) -> None:
    """Each value once, in any order, with odd keys and headers, in wire batches of any codec."""
    dice = arena.random
    records = [
        Produced(
            value=value,
            key=dice.choice(KEYS if value is not None else KEYS[1:]),  # the client refuses a record of nothing
            partition=dice.choice(partitions),
            headers=cast("Sequence[tuple[str, bytes]]", dice.choice(HEADERS)),
        )
        for value in dice.sample(values, len(values))
    ]
    await arena.kafka.produce(arena.topic, records, compression=dice.choice(CODECS))


async def _kill_before_main_objects(arena: Arena, fault: Fault, *, batch_records: int) -> None:
    """SIGKILL once a quarantine object is there whose main object is not; the next one cuts its batches elsewhere.

    Main objects' puts meet the fault; those that are held land when the next one is at work.
    """
    with arena.proxy.injecting(fault, method="PUT", where=_of_a_main_object):
        before = await _quarantine_objects(arena)

        async def more() -> bool:
            return await _quarantine_objects(arena) > before

        await _produce(arena, ASIDES, partitions=range(PARTITIONS))
        await eventually(more, "a quarantine object without its main object", 30)
        arena.kill(*arena.running())
    await arena.assigned(arena.consumer(BATCH_MAX_RECORDS=str(batch_records)))
    arena.proxy.release()
    await arena.objects_grow()


def _of_a_main_object(request: Request) -> bool:
    return "_ticklake/" not in request.key


async def _quarantine_objects(arena: Arena) -> int:
    return sum("/quarantine/" in key for key in await arena.s3.keys(arena.bucket))


@scenario(
    "interleaved-hours",
    "Timestamps of several hours and days, of 0 and of the year 9999 lie mixed: no storm of tiny objects.",
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
    """The bound (design §5, §6.3). Most neighbours are of different hours: without a rule each would be cut.

    A batch is sealed by its own age (10 s here), by a later hour once it is 5 s old or holds 1/16 of a limit, by a full
    limit, or once at the end of an assignment. So an object is 5 s old, or holds L/16 records (the values are small:
    bytes never count), or is the last one of its partition in a process. Ages of neighbours overlap by no more than the
    time p that a put takes, for the record that cuts has arrived while the object before was on its way. Of R records
    in P partitions within T seconds, read by N processes, there are at most

        P * T / (5 - p)  +  R / (L / 16)  +  P * N   objects.
    """
    first = arena.consumer()
    await arena.assigned(first)
    began = time.monotonic()
    written = 0
    while time.monotonic() - began < INTERLEAVED_SECONDS:
        written += await _produce_interleaved(arena, 2000)
    arena.kill(first)
    written += await _produce_interleaved(arena, BURST)  # more than batches may hold, there at once
    second = arena.consumer()
    verdict = await arena.proven()
    seconds = time.monotonic() - began
    assert verdict.consumed == written
    longest_put = max(float(str(line["seconds"])) for each in (first, second) for line in each.lines("Uploaded"))
    assert longest_put < CALENDAR_AGE_SECONDS / 2, f"a put took {longest_put:.1f} s: the bound says nothing then"
    by_age = PARTITIONS * seconds / (CALENDAR_AGE_SECONDS - longest_put)
    bound = by_age + written / (BATCH_RECORDS / CALENDAR_SHARE) + PARTITIONS * len(arena.consumers)
    arena.note("objects_allowed", int(bound))
    assert verdict.objects <= bound, f"{verdict.objects} objects, {bound:.0f} are allowed"


async def _produce_interleaved(arena: Arena, count: int) -> int:
    """That many records, each of an hour of its own choice; the number of them."""
    dice, now = arena.random, int(time.time() * 1000)

    def timestamp() -> int:
        draw = dice.random()
        if draw < 0.02:
            return dice.choice((0, 1, LAST_MS, LAST_MS + 1))
        return now + dice.randint(-3, 3) * HOUR_MS + (dice.randint(-3, 3) * DAY_MS if draw < 0.3 else 0)

    records = [Produced(value=b'{"n":%d}' % n, partition=n % PARTITIONS, timestamp=timestamp()) for n in range(count)]
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
            async with arena.load(500, partitions=[PARTITIONS + 2]):
                arena.kill(second)
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

    def held() -> bool:
        lines = [line for consumer in arena.running() for line in consumer.lines("Partitions assigned")]
        return any(count - 1 in cast("list[int]", line["partitions"]) for line in lines)

    began = time.monotonic()
    await eventually(held, f"partition {count - 1} assigned", 60)
    arena.note_longest("noticed_seconds", time.monotonic() - began)
