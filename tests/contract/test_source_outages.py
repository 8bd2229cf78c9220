"""The real source when its broker hangs, dies and comes back, and when its topic goes away."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from consumer.ports import CommitRefusedError, Committed, Fetched, SourceError
from consumer.source import KafkaSource, SourceBrokenError
from tests.contract.source_worlds import Notes
from tests.servers import Kafka, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def new_source(kafka: Kafka, topic: str, group: str) -> KafkaSource:
    return KafkaSource(
        topic=topic,
        group=group,
        connection={"bootstrap_servers": kafka.bootstrap_servers},
        session_timeout_seconds=10,
        rebalance_timeout_seconds=10,
        request_timeout_seconds=3,
        leave_timeout_seconds=3,
    )


async def joined(source: KafkaSource, notes: Notes) -> None:
    source.join(notes)

    async def assigned() -> bool:
        await source.poll([], 0.1)
        return notes.assigned is not None

    await eventually(assigned)


async def within(seconds: float, call: Awaitable[object]) -> None:
    started = time.monotonic()
    await call
    assert time.monotonic() - started < seconds


async def test_a_hanging_broker_holds_no_call_beyond_its_deadline(
    new_kafka: Callable[..., Kafka], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic()
    source, notes = new_source(kafka, topic, unique("group")), Notes()
    await source.connect()
    await joined(source, notes)
    source.seek(0, 0)
    kafka.server.suspend()

    async def hangs() -> bool:  # the signal takes a moment to reach every thread
        try:
            await source.log_ranges([0])
        except SourceError:
            return True
        return False

    try:
        await eventually(hangs)
        with pytest.raises(SourceError, match="did not answer a commit within 3 s"):
            await within(6, source.commit({0: Committed(offset=1, metadata="")}))
        for ask in (source.committed([0]), source.log_ranges([0]), source.identity(), source.group_has_members()):
            with pytest.raises(SourceError, match="within 3 s"):
                await within(6, ask)
        other = new_source(kafka, topic, unique("group"))
        with pytest.raises(SourceError, match="no connection to Kafka"):
            await within(12, other.connect())
        await within(12, source.leave())
    finally:
        kafka.server.resume()
        await source.leave()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    del other  # whatever was cut off is finalized now
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_restarting_broker_is_never_taken_for_one_without_offsets(new_kafka: Callable[..., Kafka]) -> None:
    kafka = new_kafka()
    topic, group = await kafka.create_topic(), unique("group")
    source, notes = new_source(kafka, topic, group), Notes()
    await source.connect()
    await joined(source, notes)
    source.seek(0, 0)
    signed = {0: Committed(offset=500, metadata="ticklake:c:500")}
    await source.commit(signed)
    kafka.server.kill()
    with pytest.raises(SourceError):
        await source.committed([0])
    kafka.server.spawn()  # and do not wait until it is ready: what it answers while it loads is the point
    answers: list[object] = []

    async def answered() -> bool:
        try:
            answers.append(await source.committed([0]))
        except SourceError:
            return False
        return True

    await eventually(answered, every_seconds=0)
    assert answers == [signed]
    found: list[Fetched] = []

    async def fetched() -> bool:
        try:
            found.extend(item for item in await source.poll([0], 1) if isinstance(item, Fetched))
        except SourceError:
            source.seek(0, 0)
        if 0 not in (notes.assigned or []):
            return False
        source.seek(0, 0) if source.high_watermark(0) is None else None
        return bool(found)

    await kafka.produce(topic, [b"after"])
    await eventually(fetched, "the source goes on by itself")

    async def committed() -> bool:
        try:
            await source.commit({0: Committed(offset=501, metadata="ticklake:c:501")})
        except CommitRefusedError:
            await source.poll([0], 0.2)
            return False
        return True

    await eventually(committed, "the group takes commits again")
    await source.leave()


async def test_a_deleted_topic_is_not_created_by_those_who_read_it(kafka: Kafka, topic: str, group: str) -> None:
    source, notes = new_source(kafka, topic, group), Notes()
    await source.connect()
    await joined(source, notes)
    source.seek(0, 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        assert source._consumer is not None
        for _ in range(5):
            await source._consumer.client.force_metadata_update()
            try:
                await source.poll([0], 0.3)
            except SourceError:
                pass  # as it should be told; the point is the next line
        assert topic not in await admin.list_topics()
        with pytest.raises(SourceError, match="does not exist"):
            await source.identity()
    finally:
        await admin.close()
        await source.leave()


async def test_a_dead_background_task_ends_the_process_instead_of_stalling(
    kafka: Kafka, topic: str, group: str
) -> None:
    source, notes = new_source(kafka, topic, group), Notes()
    await source.connect()
    await joined(source, notes)
    assert source._consumer is not None
    source._consumer._fetcher._fetch_task.cancel()

    async def polled() -> bool:
        await source.poll([0], 0.1)
        return False

    with pytest.raises(SourceBrokenError, match="has ended"):
        await eventually(polled, seconds=10)
    await source.leave()
