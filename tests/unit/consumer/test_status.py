"""Readiness in words, liveness by the loop alone, and the page."""

from __future__ import annotations

import asyncio

import pytest

from consumer.ports import Committed, Failure, SourceError, StoreError
from consumer.status import LOOP_SECONDS, ConsumerProbe
from consumer.worker import Trouble
from shared.schemas import sign_offset
from tests.fakes.store import Asked, Call, Fail
from tests.unit.consumer.worker_worlds import CHAIN_ID, KEYS, Process, World
from tests.virtual_time import until, virtual_time


def probe_of(process: Process | None = None) -> ConsumerProbe:
    probe = ConsumerProbe(facts={"Topic": "task"}, clock=asyncio.get_running_loop().time)
    if process is not None:
        probe.starting, probe.worker, probe.store = None, process.worker, process.store
    return probe


@virtual_time
async def test_alive_is_a_turning_loop_whatever_s3_and_kafka_do() -> None:
    world = World()
    world.store.plan = lambda _: Fail()
    process = await world.start()
    process.worker.kafka_trouble = Trouble(reason="away", since=process.worker.now())
    probe = probe_of(process)
    await asyncio.sleep(LOOP_SECONDS - 1)
    assert probe.not_ready()
    assert probe.not_alive() is None
    await asyncio.sleep(2)
    assert probe.not_alive() == "the event loop has not turned for 31 s"
    probe.turned()
    assert probe.not_alive() is None
    await process.end()


@virtual_time
async def test_starting_and_stopping_are_said() -> None:
    probe = probe_of()
    assert probe.not_ready() == ["starting"]
    probe.stopping = True
    assert probe.not_ready() == ["stopping", "starting"]
    assert probe.status().tables == []


@virtual_time
async def test_ready_once_assigned_and_not_before() -> None:
    world = World()
    process = await world.start()
    probe = probe_of(process)
    assert probe.not_ready() == ["waiting for the group to assign partitions"]
    await process.running()
    assert probe.not_ready() == []
    process.worker.kafka_trouble = Trouble(reason="no broker", since=process.worker.now() - 7)
    assert probe.not_ready() == ["Kafka fails for 7 s: no broker"]
    await process.end()


@virtual_time
async def test_a_retrying_partition_says_since_when_and_why() -> None:
    world = World(seconds=1.0)
    process = await world.start()
    await process.running()
    probe = probe_of(process)
    world.store.plan = lambda asked: (
        Fail(failure=Failure.REFUSED, reason="AccessDenied: put") if asked.call is Call.PUT else None
    )
    world.numbers(0, 5)
    await until(lambda: process[0].chain.retry and not process[0].chain.asking)
    await asyncio.sleep(20)
    assert probe.not_ready() == ["partition 0 retrying for 20 s: AccessDenied: put"]
    (table,) = probe.status().tables
    assert list(table.rows[0][1:4]) == ["running, retrying", 0, 5]
    assert table.rows[0][5] == KEYS.render(partition=0, start=0, timestamp=0)
    world.store.plan = lambda _: None
    await world.until_complete()
    await until(lambda: not probe.not_ready())
    (table,) = probe.status().tables
    assert table.rows[0][-1] == KEYS.render(partition=0, start=0, timestamp=0)
    await process.end()


class Vague(Fail):
    """A HEAD's error: a status without a code."""

    def error(self, asked: Asked) -> StoreError:
        return StoreError(self.failure, f"{asked.call}: HTTP 400 without an error code", vague=True)


@virtual_time
async def test_the_reason_with_a_code_is_told_though_the_head_behind_it_has_none() -> None:
    world = World(seconds=1.0)
    process = await world.start()
    await process.running()
    probe = probe_of(process)
    world.numbers(0, 5)
    await until(lambda: process[0].chain.batch.records)
    world.store.plan = lambda asked: (
        Fail(failure=Failure.CREDENTIALS, reason="ExpiredToken") if asked.call is Call.PUT else Vague()
    )
    await until(lambda: len(world.store.asked(Call.HEAD)) > 4)
    s3, partition = probe.not_ready()
    assert s3.startswith("S3 fails for ")
    assert s3.endswith(": ExpiredToken")
    assert partition.endswith(": ExpiredToken")
    world.store.plan = lambda _: None
    await world.until_complete()
    await process.end()


@virtual_time
async def test_a_stalled_partition_says_since_when_key_and_why() -> None:
    world = World()
    world.numbers(0, 5)
    world.group.offsets[0] = Committed(offset=0, metadata=sign_offset(CHAIN_ID, 0))
    key = KEYS.render(partition=0, start=0, timestamp=0)
    world.store.place(key, b"foreign")
    process = await world.start()
    await until(lambda: 0 in process.worker.partitions and process[0].chain.stall)
    await asyncio.sleep(100)  # looked at again meanwhile: still the same stall
    (reason,) = probe_of(process).not_ready()
    assert reason.startswith(f"partition 0 stalled for 100 s, key {key}: a foreign object lies")
    await process.end()


@virtual_time
async def test_s3_that_fails_is_said_since_when() -> None:
    world = World()
    world.store.plan = lambda _: Fail(reason="connection refused")
    process = await world.start()
    await asyncio.sleep(100)
    (reason,) = probe_of(process).not_ready()
    assert reason in {f"S3 fails for {seconds} s: connection refused" for seconds in (99, 100)}
    await process.end()


@virtual_time
async def test_a_chain_ahead_of_the_log_waits_and_says_so() -> None:
    world = World()
    world.group.offsets[0] = Committed(offset=7, metadata=sign_offset(CHAIN_ID, 7))
    process = await world.start()
    await asyncio.sleep(1)
    (reason,) = probe_of(process).not_ready()
    assert reason.startswith("partition 0 waits: the chain ends at 7, the log at 0: ")
    await until(lambda: process[0].chain.stall, seconds=70)
    world.numbers(0, 20)  # no growth heals it
    await asyncio.sleep(200)
    (reason,) = probe_of(process).not_ready()
    assert "truncated or created anew" in reason
    await process.end()


@pytest.mark.parametrize("method", ["committed", "log_ranges", "identity"])
@virtual_time
async def test_questions_that_kafka_does_not_answer_are_said_until_it_does(method: str) -> None:
    world = World()
    process = await world.start()
    for _ in range(8):
        process.source.fail_next(method, SourceError("coordinator loading"))
    await asyncio.sleep(2)
    assert "Kafka fails for 2 s: coordinator loading" in probe_of(process).not_ready()
    await until(lambda: not probe_of(process).not_ready(), seconds=120)
    await process.end()
