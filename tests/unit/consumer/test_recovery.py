"""Where the chains end by the bucket: one listing for all, newest day first, and no object only when there is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from consumer.ports import StoreError
from consumer.recovery import find_ends
from tests.fakes.store import Asked, Call, FakeStore
from tests.unit.consumer.worker_worlds import KEYS, NO_KEYS_TIME
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from consumer.keys import KeyTemplate

DAY_MS = 86_400_000


def bucket(*objects: tuple[int, int, int], keys: KeyTemplate = KEYS) -> FakeStore:
    """Objects as (partition, start, day)."""
    store = FakeStore(page_size=2)
    for partition, start, day in objects:
        store.place(keys.render(partition=partition, start=start, timestamp=day * DAY_MS), b"")
    return store


@virtual_time
async def test_one_listing_serves_all_and_stops_at_the_first_day_that_suffices() -> None:
    store = bucket((0, 0, 1), (0, 7, 2), (1, 3, 2), (0, 9, 3), (1, 9, 3))
    ends = await find_ends(store, KEYS, {0: 8, 1: 8})
    assert {n: found.key if found else None for n, found in ends.items()} == {
        0: KEYS.render(partition=0, start=9, timestamp=3 * DAY_MS),
        1: KEYS.render(partition=1, start=9, timestamp=3 * DAY_MS),
    }
    assert set(store.asked(Call.LIST)) == {"topic=task/dt=1970-01-04/"}


@virtual_time
async def test_older_days_are_read_while_one_partition_has_not_enough() -> None:
    store = bucket((0, 20, 1), (0, 7, 2), (1, 3, 1))
    ends = await find_ends(store, KEYS, {0: 8, 1: 0, 2: 0})
    assert ends[0]
    assert ends[0].key == KEYS.render(partition=0, start=20, timestamp=DAY_MS)
    assert ends[1]
    assert ends[2] is None


@virtual_time
async def test_the_highest_start_counts_as_a_number_not_as_text() -> None:
    store = bucket((0, 9, 0), (0, 10, 0), (0, 100, 0), (0, 99, 0), keys=NO_KEYS_TIME)
    ends = await find_ends(store, NO_KEYS_TIME, {0: 10**9})
    assert ends[0]
    assert ends[0].key == "0-100.jsonl.gz"


@virtual_time
async def test_what_the_template_does_not_render_and_others_partitions_do_not_count() -> None:
    store = bucket((1, 50, 0))
    store.place("topic=task/dt=1970-01-01/hour=00/00000-7.jsonl.gz", b"")
    store.place("topic=other/dt=1970-01-01/hour=00/00000-00000000000000000007.jsonl.gz", b"")
    store.place("topic=task/dt=zzz/hour=00/00000-00000000000000000009.jsonl.gz", b"")
    assert await find_ends(store, KEYS, {0: 0}) == {0: None}


@virtual_time
async def test_an_object_that_vanishes_is_a_failure_and_never_an_empty_bucket() -> None:
    store = bucket((0, 7, 0))

    async def vanish(asked: Asked) -> None:
        if asked.call is Call.HEAD:
            store.objects.clear()

    store.before = vanish
    with pytest.raises(StoreError, match="was listed, then not found"):
        await find_ends(store, KEYS, {0: 0})


@virtual_time
async def test_the_ends_are_asked_for_sixteen_at_once() -> None:
    store = bucket(*((partition, 7, 0) for partition in range(64)))

    async def last(asked: Asked) -> None:
        if asked.call is Call.HEAD:
            await asyncio.sleep(1.0)

    store.before = last
    began = asyncio.get_running_loop().time()
    ends = await find_ends(store, KEYS, dict.fromkeys(range(64), 0))
    assert all(ends.values())
    assert asyncio.get_running_loop().time() - began == pytest.approx(64 / 16)
