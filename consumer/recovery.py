"""Where the chains end according to the bucket: the highest start of each partition, from one listing.

Owns: which keys are looked at, newest day first where the template allows it. Does not own: what the found object
means (`chain`), repeating the search when it fails (its caller).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from consumer.ports import Failure, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from consumer.keys import KeyTemplate
    from consumer.ports import Found, Store


HEADS: Final = 16  # at once: hundreds of partitions one after the other would stand still for half a minute


async def find_ends(store: Store, keys: KeyTemplate, enough: Mapping[int, int]) -> dict[int, Found | None]:
    """For each partition of `enough` its object with the highest start, None where it has none. Raises StoreError."""
    highest = await highest_keys(store, keys, enough)
    slots = asyncio.Semaphore(HEADS)

    async def in_slot(key: str) -> Found:
        async with slots:
            return await listed(store, key)

    asked = {partition: asyncio.ensure_future(in_slot(key)) for partition, key in highest.items()}
    try:
        found = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    finally:
        for asking in asked.values():
            asking.cancel()
    return {**dict.fromkeys(enough), **found}


async def highest_keys(store: Store, keys: KeyTemplate, enough: Mapping[int, int]) -> dict[int, str]:
    """The key with the highest start of each partition of `enough` that has one, from one listing.

    `enough[partition]` is the log's start: once a start at or above it is found, older days are not read, since every
    object at or above the log's start will do: the chain is probed on from there.
    """
    best: dict[int, tuple[int, str]] = {}
    async for prefix in _prefixes(store, keys):
        async for key in store.list_keys(prefix):
            parsed = keys.parse(key)
            if parsed and parsed.partition in enough and parsed.start > best.get(parsed.partition, (-1, ""))[0]:
                best[parsed.partition] = (parsed.start, key)
        if all(partition in best and best[partition][0] >= start for partition, start in enough.items()):
            break
    return {partition: key for partition, (_, key) in best.items()}


async def listed(store: Store, key: str) -> Found:
    """The object at a key that a listing showed. StoreError when it is gone."""
    found = await store.head(key)
    if found is None:  # never taken for "no object": that would start the chain anew at its origin
        raise StoreError(Failure.UNAVAILABLE, f"{key} was listed, then not found; the listing starts again")
    return found


async def _prefixes(store: Store, keys: KeyTemplate) -> AsyncIterator[str]:
    if keys.days_prefix is None:
        yield keys.listing_prefix
        return
    days = [folder async for folder in store.list_folders(keys.days_prefix) if folder.startswith(keys.listing_prefix)]
    for day in sorted(days, reverse=True):
        yield day
