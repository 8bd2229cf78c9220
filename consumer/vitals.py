"""Whether S3 answers: a Store around the real one that remembers since when every request has failed.

Owns: that memory, and the limit after which the process should make room for another. Does not own: requests, retries.

An answer is 200, 404 or 412, each entry of a listing too. A process with nothing to ask does not fail: time counts from
failure to failure, and anew after a pause longer than any between the attempts of one request.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from consumer.ports import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from consumer.ports import Found, PutAnswer, Store, Upload

GIVE_UP_SECONDS: Final = 900.0
PAUSE_SECONDS: Final = 60.0  # repeated requests wait half of that at most: after as long nothing was asked


class GaveUpError(Exception):
    """S3 has not answered for too long; the fault may be this process's own: leave, another replica may do better."""


class WatchedStore:
    """The Store port, every call watched. `give_up_seconds` should be jittered: replicas are not to leave as one."""

    def __init__(self, store: Store, *, clock: Callable[[], float], give_up_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self.give_up_seconds = give_up_seconds
        self.failing_since: float | None = None
        self.last_reason = ""
        self._failed_at = 0.0
        # Whether the last failure came more than the limit after the first, without an answer in between.
        self.exhausted = False

    @contextmanager
    def _watched(self) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        except StoreError as error:
            now = self._clock()
            if self.failing_since is None or began - self._failed_at > PAUSE_SECONDS:
                self.failing_since, self.last_reason = now, error.reason
            elif not error.vague:
                self.last_reason = error.reason
            self._failed_at = now
            self.exhausted = now - self.failing_since >= self.give_up_seconds
            raise
        self._answered()

    def _answered(self) -> None:
        self.failing_since = None
        self.exhausted = False

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        with self._watched():
            return await self._store.put_if_absent(upload)

    async def head(self, key: str) -> Found | None:
        with self._watched():
            return await self._store.head(key)

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        with self._watched():
            async for key in self._store.list_keys(prefix):
                self._answered()
                yield key

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        with self._watched():
            async for folder in self._store.list_folders(prefix):
                self._answered()
                yield folder

    async def get(self, key: str) -> bytes | None:
        with self._watched():
            return await self._store.get(key)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        with self._watched():
            async for piece in self._store.read(key):
                self._answered()
                yield piece
