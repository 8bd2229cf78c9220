"""One object asked for and read: HEAD, then its body and its quarantine, judged while they stream.

Owns: the requests of an audit, how often they are tried, and threads for the work on large pieces. Does not own: any
judgement (`audit`, `decoder`), which objects are looked at (`auditor`).
Memory: of a body one piece (256 KiB) and its decompressed output at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from consumer.audit import Ground, body_fault, object_fault, read_object
from consumer.decoder import BodyError, BodyFacts, LineSplitter, Tally, body_decoder
from consumer.findings import Fault, Kind
from consumer.ports import Failure, StoreError
from consumer.quarantine_audit import QuarantineAudit
from consumer.retrying import delay_seconds, wait_by_class

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from consumer.ports import Store
    from shared.schemas import Envelope, ObjectMetadata

ATTEMPTS: Final = 6  # of one request: an audit has an end, unlike the consumer
THREAD_BYTES: Final = 1 << 15  # smaller pieces are done sooner than a thread is woken

T = TypeVar("T")


async def a_few_times(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again what may pass, ATTEMPTS times; the last StoreError otherwise."""

    async def asking() -> T:  # tenacity awaits only what it sees to be a coroutine function
        return await ask()

    retrying = AsyncRetrying(
        retry=retry_if_exception(_may_pass), wait=wait_by_class, stop=stop_after_attempt(ATTEMPTS), reraise=True
    )
    return await retrying(asking)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StoreError) and error.failure is not Failure.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What one object turned out to be. `metadata` None = it is no link of the chain."""

    metadata: ObjectMetadata | None
    faults: tuple[Fault, ...]
    body_bytes: int


class Inspector:
    """Looks at objects of one chain layout. Stateless, so any number of inspections may run at once."""

    def __init__(self, store: Store, ground: Ground) -> None:
        self._store = store
        self._ground = ground

    async def inspect(self, key: str) -> Inspected | None:
        """The object at a key of the template; None = it is gone. Raises StoreError when S3 would not say."""
        found = await a_few_times(lambda: self._store.head(key))
        if found is None:
            return None
        metadata = read_object(found, ground=self._ground)
        if isinstance(metadata, Fault):
            return Inspected(metadata=None, faults=(metadata,), body_bytes=0)
        what, size = await self._read_body(key, metadata)
        if what is not None and await a_few_times(lambda: self._store.head(key)) is None:
            return None  # deleted while we read
        faults = [] if what is None else [object_fault(Kind.BODY, metadata, key, what)]
        if metadata.quarantine:
            quarantine_key = self._ground.keys.quarantine_prefix + metadata.quarantine
            what = await self._read_quarantine(quarantine_key, metadata)
            if what is not None:
                faults.append(object_fault(Kind.QUARANTINE, metadata, quarantine_key, f"{what} (named by {key})"))
        return Inspected(metadata=metadata, faults=tuple(faults), body_bytes=size)

    async def _read_body(self, key: str, metadata: ObjectMetadata) -> tuple[str | None, int]:
        async def read() -> BodyFacts:
            tally = Tally()
            async for data in self.uncompressed(key, self._ground.layout.compression):
                await _worked(partial(tally.add, data), len(data))
            return tally.finish()

        try:
            facts = await a_few_times(read)
        except BodyError as error:
            return str(error), 0
        except StoreError as error:
            if _may_pass(error):
                raise
            return f"the body cannot be read: {error.reason}", 0
        return body_fault(metadata, facts), facts.size

    async def _read_quarantine(self, key: str, metadata: ObjectMetadata) -> str | None:
        async def read() -> str | None:
            audit, tally, splitter = QuarantineAudit(metadata), Tally(), LineSplitter()
            async for data in self.uncompressed(key, "gzip"):
                tally.add(data)
                for line in splitter.add(data):
                    audit.add(line)
            return audit.finish(tally.finish(), self._ground)

        return await self._of_quarantine(key, read)

    async def _of_quarantine(self, key: str, read: Callable[[], Awaitable[str | None]]) -> str | None:
        if await a_few_times(lambda: self._store.head(key)) is None:
            return f"the quarantine object is missing: {key}"
        try:
            return await a_few_times(read)
        except BodyError as error:
            return str(error)
        except StoreError as error:
            if _may_pass(error):
                raise
            return f"it cannot be read: {error.reason}"

    async def envelopes(self, metadata: ObjectMetadata) -> dict[int, Envelope]:
        """The quarantined records of an object by offset, as far as they can be read. Raises StoreError."""
        if not metadata.quarantine:
            return {}
        key = self._ground.keys.quarantine_prefix + metadata.quarantine

        async def read() -> dict[int, Envelope]:
            audit, splitter = QuarantineAudit(metadata), LineSplitter()
            found: dict[int, Envelope] = {}
            try:
                async with aclosing(self.uncompressed(key, "gzip")) as body:
                    async for data in body:
                        envelopes = [audit.add(line) for line in splitter.add(data)]
                        found.update((envelope.offset, envelope) for envelope in envelopes if envelope is not None)
            except BodyError:
                pass  # a fault that `inspect` told; what could be read is compared
            return found

        try:
            return await a_few_times(read)
        except StoreError as error:
            if _may_pass(error):
                raise
            return {}  # missing or not to be read: likewise told by `inspect`

    async def uncompressed(self, key: str, compression: str) -> AsyncGenerator[bytes, None]:
        """A body's uncompressed bytes in pieces. Raises StoreError, and BodyError when it is not one whole body.

        To be closed when it is not read to its end (`aclosing`): it holds a connection.
        """
        decoder = body_decoder(compression)
        pieces = self._store.read(key)
        try:
            async for piece in pieces:
                step = partial(next, decoder.add(piece), None)
                while (output := await _worked(step, len(piece))) is not None:
                    yield output
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        decoder.finish()


async def _worked(work: Callable[[], T], size: int) -> T:
    """The result of work on `size` bytes, done in a thread when that is worth it."""
    return await asyncio.to_thread(work) if size >= THREAD_BYTES else work()


async def listed(store: Store, prefix: str) -> AsyncIterator[str]:
    """Every key below the prefix, in order. A listing that breaks off starts again, what was told is left out."""
    last, attempt = "", 0
    while True:
        try:
            async for key in store.list_keys(prefix):
                if key > last:
                    last, attempt = key, 0
                    yield key
            return
        except StoreError as error:
            attempt += 1
            if not _may_pass(error) or attempt >= ATTEMPTS:
                raise
            await asyncio.sleep(delay_seconds(error.failure, attempt))
