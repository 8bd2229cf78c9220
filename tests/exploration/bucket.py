"""The bucket as a value, and the real listing on top of it.

Owns: what is at a key, what a listing shows, running the product's coroutines against it without an event loop. Does
not own: whether what is there is right (`invariants`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.ports import Found
from consumer.recovery import highest_keys, listed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

    from consumer.keys import KeyTemplate
    from consumer.ports import PutAnswer, Upload
    from tests.exploration.world import Thing


class Bucket:
    """The objects at one moment; a `ports.Store` that answers at once and takes nothing."""

    def __init__(self, things: Iterable[Thing]) -> None:
        self.things = {thing.key: thing for thing in things}

    async def head(self, key: str) -> Found | None:
        thing = self.things.get(key)
        return None if thing is None else found(thing)

    async def get(self, key: str) -> bytes | None:
        thing = self.things.get(key)
        return None if thing is None else thing.body

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        for key in self.keys_below(prefix):
            yield key

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        for folder in self.folders_below(prefix):
            yield folder

    def keys_below(self, prefix: str) -> list[str]:
        return sorted(key for key in self.things if key.startswith(prefix))

    def folders_below(self, prefix: str) -> list[str]:
        tails = (key[len(prefix) :] for key in self.keys_below(prefix))
        return sorted({prefix + tail.split("/")[0] + "/" for tail in tails if "/" in tail})

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        raise AssertionError(f"a listing puts {upload.key}")

    def read(self, key: str) -> AsyncIterator[bytes]:
        raise AssertionError(f"a listing reads {key}")


def found(thing: Thing) -> Found:
    return Found(key=thing.key, size=len(thing.lines), metadata=dict(thing.metadata))


def recovered(bucket: Bucket, keys: KeyTemplate, enough: int) -> Thing | None:
    """What the product's own listing finds as the chain's end."""
    key = at_once(highest_keys(bucket, keys, {0: enough})).get(0)
    return None if key is None else bucket.things[at_once(listed(bucket, key)).key]


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stopped:
        return stopped.value
    work.close()
    raise AssertionError("it waits for something")
