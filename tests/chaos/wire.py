"""HTTP/1.1 messages as bytes: read whole from one side, to be written unchanged to the other.

Owns: where a message ends (length, chunks, end of stream) and the few facts of a request that faults are chosen by.
Does not own: connections, faults. Invariants: what was read is kept byte for byte, so that signatures hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

HEAD_LIMIT = 1 << 16
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. `key` is empty for the bucket itself; `raw` is all of it."""

    method: str
    bucket: str
    key: str
    headers: Mapping[str, str]
    head: bytes
    body: bytes = b""

    @property
    def raw(self) -> bytes:
        return self.head + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A final answer. `keeps_open` = its end was told by itself, so the connection may serve another."""

    status: int
    raw: bytes
    keeps_open: bool


async def read_request_head(reader: asyncio.StreamReader) -> Request:
    """Request line and headers. IncompleteReadError when the client has gone."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, headers = _parsed(head)
    method, target, _ = first.split(" ", 2)
    bucket, _, key = unquote(urlsplit(target).path).lstrip("/").partition("/")
    return Request(method=method, bucket=bucket, key=key, headers=headers, head=head)


async def read_request_body(reader: asyncio.StreamReader, request: Request) -> bytes:
    if "chunked" in request.headers.get("transfer-encoding", ""):
        return await _chunks(reader)
    return await reader.readexactly(int(request.headers.get("content-length", "0")))


async def read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    """The final answer to a request of that method; interim ones (100 Continue) are read over."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, headers = _parsed(head)
        status = int(first.split(" ", 2)[1])
        if status >= 200:
            break
    if method == "HEAD" or status in _BODILESS:
        return Answer(status=status, raw=head, keeps_open=True)
    if "chunked" in headers.get("transfer-encoding", ""):
        return Answer(status=status, raw=head + await _chunks(reader), keeps_open=True)
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
        return Answer(status=status, raw=head + body, keeps_open=True)
    return Answer(status=status, raw=head + await reader.read(), keeps_open=False)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    raw = bytearray()
    while True:
        size = await reader.readuntil(b"\r\n")
        raw += size
        length = int(size.split(b";")[0], 16)
        if length:
            raw += await reader.readexactly(length + 2)
            continue
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            raw += line  # a trailer
        return bytes(raw + line)


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, value in pairs}
