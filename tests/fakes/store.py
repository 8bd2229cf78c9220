"""An S3 bucket in memory, as the worker sees one through consumer.ports.Store.

Owns: create-if-absent in one step, the answers S3 gives, and faults that a test asks for. Does not own: time (a
latency is a coroutine the test injects) or chance: the same calls meet the same answers.
Invariants: without faults it passes the contract suite that the real stores pass; every call is in `calls`, before
its answer; a fault says separately what the caller sees and whether the effect happened.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from consumer.ports import Failure, Found, PutAnswer, StoreError, Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

PAGE_SIZE = 1000


class Call(StrEnum):
    """The calls of the port."""

    PUT = "put"
    HEAD = "head"
    LIST = "list"
    FOLDERS = "folders"
    GET = "get"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call as it was made; `key` is the prefix of a listing."""

    call: Call
    key: str
    upload: Upload | None = None


class Wrong(StrEnum):
    """Faults of a put that are not an error."""

    SAYS_EXISTS = "says-exists"  # EXISTS, nothing looked at, nothing stored
    EXISTS_AFTER = "exists-after"  # stored, then EXISTS: the client sent the put twice by itself
    IGNORES_CONDITION = "ignores-condition"  # CREATED, though something was there, which is gone now
    LOSES_EFFECT = "loses-effect"  # CREATED, nothing stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The call raises a StoreError; `after_effect` = a put has been done by then, its answer is lost."""

    failure: Failure = Failure.UNAVAILABLE
    after_effect: bool = False
    reason: str = ""

    def error(self, asked: Asked) -> StoreError:
        """The error to raise."""
        return StoreError(self.failure, self.reason or f"fake: {asked.call} {asked.key}: {self.failure}")


Fault: TypeAlias = Fail | Wrong
# Called with each request; says which fault it meets. None = a store in order.
Plan: TypeAlias = "Callable[[Asked], Fault | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeObject:
    """An object with all that it was put with."""

    body: bytes
    metadata: Mapping[str, str]
    content_type: str = "application/octet-stream"


async def _at_once(_: Asked) -> None:
    """No latency."""


@dataclass(slots=True, kw_only=True)
class FakeStore:
    """One bucket; implements consumer.ports.Store.

    `before` and `after` are awaited ahead of and behind the effect of a call, so a test decides how long each way
    takes and what happens meanwhile. Faults come from `script` (next call of that kind, first in first out), else
    from `plan`.
    """

    objects: dict[str, FakeObject] = field(default_factory=dict)
    calls: list[Asked] = field(default_factory=list)
    plan: Plan = lambda _: None
    before: Callable[[Asked], Awaitable[None]] = _at_once
    after: Callable[[Asked], Awaitable[None]] = _at_once
    page_size: int = PAGE_SIZE
    piece_bytes: int = 1 << 16
    _scripts: dict[Call, deque[Fault]] = field(default_factory=dict)

    def script(self, call: Call, *faults: Fault) -> None:
        """The next calls of this kind meet these faults, one each."""
        self._scripts.setdefault(call, deque()).extend(faults)

    def place(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Put an object there by other hands; overwrites."""
        self.objects[key] = FakeObject(body=body, metadata=dict(metadata or {}))

    def asked(self, call: Call) -> list[str]:
        """Keys of the calls of one kind, in order."""
        return [asked.key for asked in self.calls if asked.call is call]

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        """See consumer.ports.Store."""
        asked = Asked(call=Call.PUT, key=upload.key, upload=upload)
        fault = await self._arrive(asked)
        answer = self._put(upload, fault)
        await self.after(asked)
        if isinstance(fault, Fail):
            raise fault.error(asked)
        return answer

    async def head(self, key: str) -> Found | None:
        """See consumer.ports.Store."""
        asked = Asked(call=Call.HEAD, key=key)
        return _found(key, await self._look(asked))

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        """See consumer.ports.Store."""
        async for entry in self._pages(Asked(call=Call.LIST, key=prefix)):
            yield entry

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        """See consumer.ports.Store."""
        async for entry in self._pages(Asked(call=Call.FOLDERS, key=prefix)):
            yield entry

    async def get(self, key: str) -> bytes | None:
        """See consumer.ports.Store."""
        there = await self._look(Asked(call=Call.GET, key=key))
        return None if there is None else there.body

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See consumer.ports.Store; a Fail `after_effect` breaks off in the middle."""
        asked = Asked(call=Call.READ, key=key)
        fault = await self._arrive(asked)
        if isinstance(fault, Fail) and not fault.after_effect:
            raise fault.error(asked)
        there = self.objects.get(key)
        if there is None:
            raise StoreError(Failure.REFUSED, f"fake: read {key}: NoSuchKey")
        end = len(there.body) // 2 if isinstance(fault, Fail) else len(there.body)
        for start in range(0, end, self.piece_bytes):
            await self.after(asked)
            yield there.body[start : min(start + self.piece_bytes, end)]
        if isinstance(fault, Fail):
            raise fault.error(asked)

    async def _arrive(self, asked: Asked) -> Fault | None:
        self.calls.append(asked)
        scripted = self._scripts.get(asked.call)
        fault = scripted.popleft() if scripted else self.plan(asked)
        await self.before(asked)
        return fault

    def _put(self, upload: Upload, fault: Fault | None) -> PutAnswer:
        """The effect and its answer, in one step: nothing is awaited here."""
        if isinstance(fault, Fail) and not fault.after_effect:
            return PutAnswer.CREATED  # not seen: the caller raises
        if zlib.crc32(upload.body) != upload.crc32:
            raise StoreError(Failure.UNAVAILABLE, f"fake: put {upload.key}: BadDigest")
        if fault is Wrong.SAYS_EXISTS:
            return PutAnswer.EXISTS
        if fault is Wrong.LOSES_EFFECT:
            return PutAnswer.CREATED
        if upload.key in self.objects and fault is not Wrong.IGNORES_CONDITION:
            return PutAnswer.EXISTS
        self.objects[upload.key] = FakeObject(
            body=bytes(upload.body), metadata=dict(upload.metadata), content_type=upload.content_type
        )
        return PutAnswer.EXISTS if fault is Wrong.EXISTS_AFTER else PutAnswer.CREATED

    async def _look(self, asked: Asked) -> FakeObject | None:
        """What is at the key at the moment the request arrives, whatever happens while the answer travels."""
        fault = await self._arrive(asked)
        there = self.objects.get(asked.key)
        await self.after(asked)
        if isinstance(fault, Fail):
            raise fault.error(asked)
        return there

    async def _pages(self, asked: Asked) -> AsyncIterator[str]:
        """Each page is one request and sees the bucket as it is then; a new object before the page is not seen."""
        last: str | None = ""
        while last is not None:
            fault = await self._arrive(asked)
            entries, last = self.page(asked, last)
            await self.after(asked)
            if isinstance(fault, Fail):
                raise fault.error(asked)
            for entry in entries:
                yield entry

    # ---- the effects alone, at once, for whoever models the way there and back himself ----------------------------

    def create(self, upload: Upload) -> PutAnswer:
        """A put that arrives."""
        return self._put(upload, None)

    def find(self, key: str) -> Found | None:
        """A head that arrives."""
        return _found(key, self.objects.get(key))

    def page(self, asked: Asked, last: str) -> tuple[list[str], str | None]:
        """The entries of a listing after `last`, one page, and the last of them; None when there are no more."""
        entries = {
            _folder(key, asked.key) if asked.call is Call.FOLDERS else key
            for key in self.objects
            if key.startswith(asked.key)
        }
        rest = sorted(entry for entry in entries if entry is not None and entry > last)
        page = rest[: self.page_size]
        return page, page[-1] if len(rest) > self.page_size else None


def _found(key: str, there: FakeObject | None) -> Found | None:
    if there is None:
        return None
    metadata = {name.lower(): text for name, text in there.metadata.items()}
    return Found(key=key, size=len(there.body), metadata=metadata)


def _folder(key: str, prefix: str) -> str | None:
    end = key.find("/", len(prefix))
    return None if end < 0 else key[: end + 1]
