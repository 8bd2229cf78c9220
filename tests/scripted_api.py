"""An HTTP API that misbehaves as told, for the producer's tests: raw bytes over asyncio, one request a connection.

Owns: the socket, the record of what was asked and for how long, the ways of misbehaving on the wire. Does not own: what
is answered: a script of answers, one a request, the last of which is repeated, or one answer for a path.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.connections import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for no seconds: what is unsent is dropped, the peer sees a reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that is over: it was answered, or the client gave up."""

    path: str
    seconds: float


@dataclass(slots=True, kw_only=True)
class ScriptedApi:
    """`by_path` goes before `answers`. `most_open`: how many requests of a path were ever open at the same time."""

    answers: list[Answer]
    by_path: dict[str, Answer] = field(default_factory=dict)
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    most_open: Counter[str] = field(default_factory=Counter)
    _open: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/quotes"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            request = Request(target=first.split(" ")[1], headers=headers)
            self.requests.append(request)
            await self._exchange(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client gave up, as many of these tests want it to
        finally:
            writer.close()

    async def _exchange(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.by_path.get(request.path)
        if answer is None:
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        self._open[request.path] += 1
        self.most_open[request.path] = max(self.most_open[request.path], self._open[request.path])
        began = time.monotonic()
        answering = asyncio.ensure_future(_give(answer, writer))
        leaving = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.exchanges.append(Exchange(path=request.path, seconds=time.monotonic() - began))
            self._open[request.path] -= 1
            for task in (answering, leaving):
                task.cancel()
            failures = await asyncio.gather(answering, leaving, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, Exception):  # of a script that is wrong itself, if no broken connection
                raise failure


async def _give(answer: Answer, writer: asyncio.StreamWriter) -> None:
    if isinstance(answer, bytes):
        writer.write(answer)
        await writer.drain()
    else:
        await answer(writer)


@asynccontextmanager
async def scripted_api(*answers: Answer) -> AsyncIterator[ScriptedApi]:
    """A server on a free port of 127.0.0.1 that gives these answers in turn."""
    api = ScriptedApi(answers=list(answers))
    connections = Connections(api.serve)
    server = await asyncio.start_server(connections.accept, "127.0.0.1", 0)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        await connections.cut()


def http(
    body: bytes = b"[]", *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None
) -> bytes:
    """A whole answer; `length` is a Content-Length that lies."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def gzipped(body: bytes, *, status: str = "200 OK") -> bytes:
    return http(gzip.compress(body), status=status, headers=["Content-Encoding: gzip"])


def drip(body: bytes, *, every_seconds: float) -> Answer:
    """An answer that comes byte by byte."""
    return dripped(http(body), every_seconds=every_seconds)


def dripped(answer: bytes, *, every_seconds: float, after: int = 0) -> Answer:
    """These bytes, one by one but for the first `after` of them, which come at once."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer[:after])
        for byte in answer[after:]:
            await writer.drain()
            await asyncio.sleep(every_seconds)
            writer.write(bytes([byte]))
        await writer.drain()

    return send


def late(answer: bytes, *, seconds: float) -> Answer:
    """An answer that is all there, after a while."""

    async def send(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(answer)
        await writer.drain()

    return send


def streamed(pieces: Callable[[], Iterable[bytes]]) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """An answer too large to be kept: made piece by piece for each request, as fast as it is taken."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces():
            writer.write(piece)
            await writer.drain()

    return send


def broken_off(beginning: bytes) -> Answer:
    """These bytes, and then the connection is reset (RST, not FIN)."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await writer.drain()
        await asyncio.sleep(0.05)  # a reset overtakes what the other side has not read yet
        await reset(writer)

    return send


async def hang(_writer: asyncio.StreamWriter) -> None:
    """No answer at all, the connection stays open."""
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    """The connection breaks."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
