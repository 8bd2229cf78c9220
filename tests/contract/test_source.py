"""What ports.Source promises, on the Kafka in memory and on the real one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from consumer.ports import CommitRefusedError, Committed, Fetched, LogRange, OutOfRange, SourceError
from tests.contract.source_worlds import FakeWorld, KafkaWorld, LivingSource, Notes, World
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from consumer.ports import Listener


@pytest.fixture(params=["fake", "kafka"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World = FakeWorld() if request.param == "fake" else KafkaWorld(request.getfixturevalue("kafka"))
    yield world
    await world.close()


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[LivingSource]:
    source = world.source()
    await source.connect()
    try:
        yield source
    finally:
        await source.leave()


@asynccontextmanager
async def member(world: World, listener: Listener | None = None) -> AsyncIterator[tuple[LivingSource, Notes]]:
    """A source that has joined; with the default listener it also has its partitions."""
    notes = Notes()
    async with connected(world) as source:
        source.join(listener or notes)
        if listener is None:
            await until_assigned((source, notes))
        yield source, notes


async def until_assigned(*members: tuple[LivingSource, Notes]) -> None:
    """Poll everyone, as a worker would, until all have their share."""

    async def all_assigned() -> bool:
        await asyncio.gather(*(source.poll([], 0.05) for source, _ in members))
        return all(notes.assigned is not None for _, notes in members)

    await eventually(all_assigned, "every member has its partitions")


async def take(source: LivingSource, wanted: Collection[int], until: int) -> list[Fetched]:
    """Poll until each wanted partition has been read up to `until`."""
    found: list[Fetched] = []
    ends = dict.fromkeys(wanted, -1)

    async def read() -> bool:
        for item in await source.poll(wanted, 0.5):
            assert isinstance(item, Fetched)
            found.append(item)
            ends[item.partition] = item.next_offset
        return all(end >= until for end in ends.values())

    await eventually(read, f"{wanted} read up to {until}, so far {ends}", seconds=60)
    return found


def values(found: Sequence[Fetched], partition: int = 0) -> list[bytes | None]:
    return [value for item in found if item.partition == partition for batch in item.batches for value in batch.values]


def numbered(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


# ---- questions, before joining ---------------------------------------------------------------------------------------


async def test_a_missing_topic_is_an_error_and_is_never_created(world: World) -> None:
    async with connected(world) as source:
        with pytest.raises(SourceError, match="does not exist"):
            await source.identity()
        source.join(Notes())
        for _ in range(3):
            await source.poll([], 0.3)
        assert not await world.exists()


async def test_a_topic_has_an_identity(world: World) -> None:
    await world.create_topic(3)
    async with connected(world) as source:
        identity = await source.identity()
        assert identity.partitions == 3
        assert identity.topic_id
        assert identity.cluster_id
        assert not identity.compacted
        assert await source.identity() == identity


async def test_a_compacted_topic_is_told_apart(world: World) -> None:
    await world.create_topic(compacted=True)
    async with connected(world) as source:
        assert (await source.identity()).compacted


async def test_offsets_are_read_before_joining_with_their_metadata(world: World) -> None:
    await world.create_topic(2)
    async with member(world) as (source, _):
        assert await source.committed([0, 1]) == {0: None, 1: None}
        await source.commit({1: Committed(offset=7, metadata="ticklake:c:7")})
    async with connected(world) as later:
        assert await later.committed([0, 1]) == {0: None, 1: Committed(offset=7, metadata="ticklake:c:7")}
        assert await later.committed([]) == {}


async def test_a_group_tells_whether_it_has_members(world: World) -> None:
    await world.create_topic()
    async with connected(world) as source:
        assert not await source.group_has_members()
        async with member(world):
            assert await source.group_has_members()
        assert not await source.group_has_members()


async def test_the_log_range_is_from_the_moved_start_to_the_high_watermark(world: World) -> None:
    await world.create_topic(2)
    await world.produce(0, numbered(0, 10))
    await world.delete_records(0, 4)
    await world.open_transaction(0, 3)
    async with connected(world) as source:
        ranges = await source.log_ranges([0, 1])
        assert ranges == {0: LogRange(start=4, high_watermark=13), 1: LogRange(start=0, high_watermark=0)}


async def test_nothing_works_before_connecting_or_after_leaving(world: World) -> None:
    await world.create_topic()
    source = world.source()
    with pytest.raises(SourceError, match="not connected"):
        await source.committed([0])
    await source.connect()
    await source.leave()
    await source.leave()
    with pytest.raises(SourceError, match="not connected"):
        await source.poll([0], 0.1)
    with pytest.raises(SourceError, match="not connected"):
        await source.commit({0: Committed(offset=1, metadata="")})
    source.seek(0, 1)
    assert source.high_watermark(0) is None


# ---- records ---------------------------------------------------------------------------------------------------------


async def test_polls_join_from_the_sought_offset_on(world: World) -> None:
    await world.create_topic()
    async with member(world) as (source, _):
        source.seek(0, 0)
        await world.produce(0, numbered(0, 5))
        found = await take(source, [0], 5)
        await world.produce(0, numbered(5, 9))
        found += await take(source, [0], 9)
        assert values(found) == numbered(0, 9)
        position = 0
        for item in found:
            assert item.start == position
            position = item.next_offset
        assert source.high_watermark(0) == 9


async def test_a_seek_into_a_wire_batch_leaves_out_what_is_before(world: World) -> None:
    await world.create_topic()
    await world.produce(0, numbered(0, 10))
    async with member(world) as (source, _):
        source.seek(0, 6)
        found = await take(source, [0], 10)
        assert found[0].start == 6
        assert values(found) == numbered(6, 10)
        batch = found[0].batches[0]
        assert list(batch.offsets) == [6, 7, 8, 9]
        assert len(batch.timestamps) == 4
        assert batch.max_timestamp >= max(batch.timestamps)
        assert batch.record(1).offset == 7
        assert batch.record(1).value == b"7"


async def test_a_seek_drops_what_was_fetched(world: World) -> None:
    await world.create_topic()
    await world.produce(0, numbered(0, 5))
    await world.produce(0, numbered(5, 10))
    async with member(world) as (source, _):
        source.seek(0, 0)
        await source.poll([], 1)  # the real one has prefetched by now
        source.seek(0, 5)
        assert values(await take(source, [0], 10)) == numbered(5, 10)
        source.seek(0, 2)
        assert values(await take(source, [0], 10)) == numbered(2, 10)


async def test_what_is_not_wanted_stays_where_it_is(world: World) -> None:
    await world.create_topic(2)
    await world.produce(0, numbered(0, 5))
    await world.produce(1, numbered(0, 5))
    async with member(world) as (source, _):
        source.seek(0, 0)
        source.seek(1, 0)
        assert values(await take(source, [1], 5), 1) == numbered(0, 5)
        assert list(await source.poll([], 0.3)) == []
        assert list(await source.poll([], 0.3)) == []
        assert values(await take(source, [0], 5)) == numbered(0, 5)


async def test_what_was_not_sought_is_not_delivered(world: World) -> None:
    await world.create_topic(2)
    await world.produce(0, numbered(0, 5))
    await world.produce(1, numbered(0, 5))
    async with member(world) as (source, _):
        source.seek(0, 0)
        await take(source, [0], 5)
        assert list(await source.poll([0, 1], 1)) == []


async def test_the_position_moves_over_aborted_records(world: World) -> None:
    await world.create_topic()
    await world.produce(0, numbered(0, 2))
    await world.produce_aborted(0, 3)
    async with member(world) as (source, _):
        source.seek(0, 2)
        found = await take(source, [0], 6)
        assert values(found) == []
        assert found[0].start == 2
        await world.produce(0, numbered(6, 8))
        assert values(await take(source, [0], 8)) == numbered(6, 8)


async def test_undecided_records_are_not_delivered(world: World) -> None:
    await world.create_topic()
    await world.produce(0, numbered(0, 2))
    await world.open_transaction(0, 2)
    async with member(world) as (source, _):
        source.seek(0, 0)
        assert values(await take(source, [0], 2)) == numbered(0, 2)
        assert list(await source.poll([0], 0.7)) == []
        assert source.high_watermark(0) == 4


@pytest.mark.parametrize("offset", [1, 11])
async def test_an_offset_outside_the_log_is_told_and_a_seek_mends_it(world: World, offset: int) -> None:
    await world.create_topic()
    await world.produce(0, numbered(0, 10))
    await world.delete_records(0, 4)
    async with member(world) as (source, _):
        source.seek(0, offset)
        told: list[object] = []

        async def is_told() -> bool:
            told.extend(await source.poll([0], 0.5))
            return bool(told)

        await eventually(is_told)
        assert told == [OutOfRange(partition=0, offset=offset)]
        source.seek(0, 4)
        assert values(await take(source, [0], 10)) == numbered(4, 10)


async def test_a_cancelled_poll_loses_nothing(world: World) -> None:
    await world.create_topic()
    async with member(world) as (source, _):
        source.seek(0, 0)
        found: list[Fetched] = []
        for number in range(20):
            poll = asyncio.create_task(source.poll([0], 5))
            await asyncio.gather(world.produce(0, numbered(number, number + 1)), asyncio.sleep(number / 1000))
            poll.cancel()  # while it waits, while the answer comes in, or when it is done
            await asyncio.wait([poll])
            if not poll.cancelled():
                found += [item for item in poll.result() if isinstance(item, Fetched)]
        if not found or found[-1].next_offset < 20:
            found += await take(source, [0], 20)
        assert values(found) == numbered(0, 20)


# ---- the group -------------------------------------------------------------------------------------------------------


async def test_a_rebalance_revokes_everything_and_shares_out_anew(world: World) -> None:
    await world.create_topic(4)
    async with member(world) as (first, notes):
        assert notes.told == [("assigned", [0, 1, 2, 3])]
        async with connected(world) as second:
            other = Notes()
            second.join(other)
            notes.assigned = None
            await until_assigned((first, notes), (second, other))
            assert notes.told[1] == ("revoked", [0, 1, 2, 3])
            assert sorted((notes.assigned or []) + (other.assigned or [])) == [0, 1, 2, 3]
            assert notes.assigned
            assert other.told == [("assigned", other.assigned)]
            notes.assigned = None
        await until_assigned((first, notes))
        assert notes.assigned == [0, 1, 2, 3]


async def test_a_member_without_partitions_is_told_so(world: World) -> None:
    await world.create_topic(1)
    async with member(world) as (first, notes), connected(world) as second:
        other = Notes()
        second.join(other)
        notes.assigned = None
        await until_assigned((first, notes), (second, other))
        assert sorted([notes.assigned, other.assigned], key=str) == [[0], []]


async def test_positions_are_forgotten_at_a_rebalance(world: World) -> None:
    await world.create_topic(1)
    await world.produce(0, numbered(0, 5))
    async with member(world) as (first, notes):
        first.seek(0, 0)
        await take(first, [0], 5)
        async with connected(world) as second:
            other = Notes()
            second.join(other)
            notes.assigned = None
            await until_assigned((first, notes), (second, other))
            notes.assigned = None
        await until_assigned((first, notes))
        assert notes.assigned == [0]
        await world.produce(0, numbered(5, 6))
        assert list(await first.poll([0], 1)) == []
        first.seek(0, 3)
        assert values(await take(first, [0], 6)) == numbered(3, 6)


class Committing(Notes):
    """Commits while it is being revoked, as a drain does."""

    def __init__(self, source: LivingSource) -> None:
        super().__init__()
        self._source = source

    async def on_revoked(self, partitions: Collection[int]) -> None:
        await self._source.commit({p: Committed(offset=3, metadata="drained") for p in partitions})
        await super().on_revoked(partitions)


async def test_what_is_revoked_can_still_be_committed(world: World) -> None:
    await world.create_topic(1)
    async with connected(world) as first, connected(world) as second:
        notes, other = Committing(first), Notes()
        first.join(notes)
        await until_assigned((first, notes))
        second.join(other)
        await eventually(lambda: ("revoked", [0]) in notes.told)
        await until_assigned((first, notes), (second, other))
        assert await second.committed([0]) == {0: Committed(offset=3, metadata="drained")}


async def test_a_commit_of_an_evicted_member_is_refused_and_it_joins_anew(world: World) -> None:
    await world.create_topic(1)
    async with member(world) as (source, notes):
        source.seek(0, 0)
        await world.evict(source)
        with pytest.raises(CommitRefusedError):
            await source.commit({0: Committed(offset=1, metadata="late")})
        notes.assigned = None
        await until_assigned((source, notes))
        assert notes.told == [("assigned", [0]), ("revoked", [0]), ("assigned", [0])]
        assert await source.committed([0]) == {0: None}
        await source.commit({0: Committed(offset=1, metadata="in time")})


async def test_a_commit_for_a_partition_that_is_not_ours_is_refused_whole(world: World) -> None:
    await world.create_topic(2)
    async with member(world) as (first, notes), connected(world) as second:
        other = Notes()
        second.join(other)
        notes.assigned = None
        await until_assigned((first, notes), (second, other))
        with pytest.raises(CommitRefusedError, match="not assigned"):
            await first.commit({p: Committed(offset=1, metadata="") for p in (0, 1)})
        assert await first.committed([0, 1]) == {0: None, 1: None}


class Failing(Notes):
    async def on_assigned(self, partitions: Collection[int]) -> None:
        raise RuntimeError("the listener failed")


async def test_a_failing_listener_fails_a_poll(world: World) -> None:
    await world.create_topic(1)
    async with member(world, Failing()) as (source, _):

        async def polled() -> bool:
            await source.poll([], 0.2)
            return False

        with pytest.raises(RuntimeError, match="the listener failed"):
            await eventually(polled, seconds=60)
