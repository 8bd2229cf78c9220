"""Records that are no JSON, or odd JSON, with odd keys and headers, in both formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.servers import Produced, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.arena import Arena
    from tests.chaos.faults import Fault
    from tests.chaos.wire import Request

PARTITIONS = 4
LARGE_BYTES = 900_000

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


@scenario(
    "odd-records",
    "Poison, tombstones, empty and 900 KB values, pretty-printed JSON, non-UTF-8, BOM, NaN, deep nesting, binary keys,"
    " headers: in value format (two kills between quarantine and main object), then all of it again as envelopes.",
    ci=True,
    partitions=PARTITIONS,
    settings={"S3_PREFIX": "value/", "KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def odd_records(arena: Arena) -> None:
    written = await _stored_as_values(arena)
    await _stored_as_envelopes(arena, written)


async def _stored_as_values(arena: Arena) -> int:
    """Everything is written while it is read; how many records that are."""
    alone = PARTITIONS - 1  # gets nothing that can be a line: its objects are empty
    arena.consumer()
    await arena.assigned(*arena.running())
    async with arena.load(300, partitions=range(alone)):
        for number in range(ROUNDS):
            await _produce(arena, [*LINES, *ASIDES], partitions=range(alone))
            await _produce(arena, [*ASIDES], partitions=[alone])
            if number in KILLED_IN:
                await _kill_before_main_objects(
                    arena, KILLED_IN[number], batch_records=arena.random.randrange(100, 400)
                )
            else:
                await arena.objects_grow()
    verdict = await arena.proven()
    odd = (2 * ROUNDS + len(KILLED_IN)) * len(ASIDES)
    assert verdict.quarantined == odd, f"{verdict.quarantined} records are in quarantine, {odd} belong there"
    assert verdict.orphans, "no quarantine object lost its main object: the kills proved little"
    arena.note("value_quarantined", verdict.quarantined)
    arena.note("value_orphans", verdict.orphans)
    stored = (await arena.s3.objects(arena.bucket, "value/topic=")).values()
    assert any(each.metadata["record-count"] == "0" for each in stored), "no chunk was of quarantined records alone"
    written = arena.loads[0].acknowledged + ROUNDS * len(LINES) + odd
    assert verdict.consumed == written, f"{verdict.consumed} records were consumed, {written} written"
    return written


async def _stored_as_envelopes(arena: Arena, written: int) -> None:
    """The same topic once more, by another group below another prefix: every record has a line."""
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
    assert (verdict.consumed, verdict.quarantined) == (written, 0)


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
