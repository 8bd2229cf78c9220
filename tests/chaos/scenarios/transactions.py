"""Transactional producers: what they aborted stands nowhere, what they committed stands once."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer

from tests import oracle_reading
from tests.chaos.registry import scenario
from tests.oracle import chain_ends
from tests.servers import eventually, unique

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping

    from tests.chaos.arena import Arena
    from tests.chaos.load import Load
    from tests.oracle import Verdict

PARTITIONS = 3
WRITERS = 3
LARGEST = 120  # records of a transaction
BEHIND = 600  # records of others behind an open transaction: 2 s of them
REQUEST_TIMEOUT_MS = 60_000
GAPS = 20
ABORTED = b'"fate":"aborted"'


@dataclass(slots=True)
class Account:
    """Records whose transaction was committed, or aborted."""

    committed: int = 0
    aborted: int = 0


@scenario(
    "transactions",
    "Three transactional producers commit and abort in turn beside a plain one; one transaction stays open for some"
    " seconds and is committed, one is cut off by its producer's successor; during each a replica is killed and nothing"
    " behind the open transaction is stored.",
    ci=True,
    partitions=PARTITIONS,
    settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def transactions(arena: Arena) -> None:
    account = Account()
    arena.consumer()
    arena.consumer()
    await arena.assigned(*arena.running())
    async with arena.load(300) as plain, _writers(arena, account):
        await arena.objects_grow(PARTITIONS)
        async with _producer(arena, "slow") as slow:
            await slow.begin_transaction()
            await _killed_while_open(arena, plain, await _send(slow, arena, "committed", 50))
            await slow.commit_transaction()
            account.committed += 50
        await arena.objects_grow(PARTITIONS)
        id_ = unique("cut-off")
        async with _producer(arena, id_) as cut_off:
            await cut_off.begin_transaction()
            await _killed_while_open(arena, plain, await _send(cut_off, arena, "aborted", 50))
            async with _producer(arena, id_):  # its start aborts what its predecessor left open
                account.aborted += 50
        await arena.objects_grow(PARTITIONS)
    async with _producer(arena, "last") as last:  # the log ends with records that nobody ever sees
        await last.begin_transaction()
        await _send(last, arena, "aborted", 50)
        await last.abort_transaction()
        account.aborted += 50
    verdict = await arena.proven()
    assert account.aborted > LARGEST, "hardly anything was aborted"
    assert verdict.consumed == account.committed + plain.acknowledged, (
        f"{verdict.consumed} records are stored, {account.committed} + {plain.acknowledged} were committed"
    )
    arena.note("aborted_records", account.aborted)
    await _nothing_aborted(arena)
    await _gaps_within_chunks(arena, verdict)


# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _producer(arena: Arena, id_: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=arena.kafka.bootstrap_servers,
        transactional_id=f"{arena.topic}-{id_}",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    await producer.start()
    try:
        yield producer
    finally:
        async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
            await producer.stop()


@contextlib.asynccontextmanager
async def _writers(arena: Arena, account: Account) -> AsyncIterator[None]:
    """Transactions, one after the other in each of several producers, inside the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(_write(arena, f"writer-{number}", account, stop), name=f"writer {number}")
        try:
            yield
        finally:
            stop.set()


async def _write(arena: Arena, id_: str, account: Account, stop: asyncio.Event) -> None:
    dice = arena.random
    async with _producer(arena, id_) as producer:
        while not stop.is_set():
            count, fate = dice.randint(1, LARGEST), dice.choice(("committed", "aborted"))
            await producer.begin_transaction()
            await _send(producer, arena, fate, count)
            if fate == "committed":
                await producer.commit_transaction()
                account.committed += count
            else:
                await producer.abort_transaction()
                account.aborted += count
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(dice.uniform(0.0, 0.1)):
                    await stop.wait()


async def _send(producer: AIOKafkaProducer, arena: Arena, fate: str, count: int) -> dict[int, int]:
    """So many records of that fate, acknowledged: they are in the log before it is sealed. Each partition's first."""
    dice: random.Random = arena.random
    value = f'{{"fate":"{fate}"}}'.encode()
    sent = [await producer.send(arena.topic, value, partition=dice.randrange(PARTITIONS)) for _ in range(count)]
    first: dict[int, int] = {}
    for record in await asyncio.gather(*sent):
        first[record.partition] = min(record.offset, first.get(record.partition, record.offset))
    return first


async def _killed_while_open(arena: Arena, plain: Load, opened: Mapping[int, int]) -> None:
    """A transaction is open from these offsets on; a replica dies. All before it is stored, nothing behind it."""
    assert len(opened) == PARTITIONS, f"it is open in the partitions {sorted(opened)} only"
    behind = plain.acknowledged + BEHIND
    arena.kill(arena.random.choice(arena.running()))
    new = arena.consumer()
    await arena.assigned(new)
    await eventually(lambda: plain.acknowledged >= behind, f"{BEHIND} records behind the open transaction", 20)
    await eventually(lambda: _stored_up_to(arena, opened), "all before the open transaction stored", 20)


async def _stored_up_to(arena: Arena, opened: Mapping[int, int]) -> bool:
    """Whether all that can be read below these offsets is stored; what is above them must not be."""
    ends = await chain_ends(arena.s3, arena.bucket)
    beyond = {partition: end for partition, end in ends.items() if end > opened[partition]}
    assert not beyond, f"stored up to {beyond}, though a transaction is open from {opened} on"
    readable = {
        partition: max((record.offset for record in records if record.offset < opened[partition]), default=-1)
        for partition, records in (await arena.kafka.read(arena.topic)).items()
    }
    return all(ends.get(partition, 0) > offset for partition, offset in readable.items())


# ---- what must hold --------------------------------------------------------------------------------------------------


async def _nothing_aborted(arena: Arena) -> None:
    """Asked of the lines themselves: what the oracle compares them with is what a Kafka client leaves out."""
    for key, stored in (await arena.s3.objects(arena.bucket)).items():
        found = oracle_reading.uncompressed(key, stored.body).count(ABORTED)
        assert not found, f"{key} holds {found} records that were aborted"


async def _gaps_within_chunks(arena: Arena, verdict: Verdict) -> None:
    """Offsets that hold no committed record end no chunk."""
    found = 0
    for partition, records in (await arena.kafka.read(arena.topic)).items():
        offsets = [record.offset for record in records]
        spans = iter(verdict.spans[partition])
        _, end = next(spans)
        for before, after in pairwise(offsets):
            while before >= end:
                _, end = next(spans)
            found += after - before > 1 and after < end
    arena.note("gaps_within_chunks", found)
    assert found >= GAPS, f"only {found} gaps lie within a chunk"
