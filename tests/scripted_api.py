"""An HTTP API that misbehaves as told, for the producer's tests: raw bytes over asyncio, one request a connection.

Owns: the socket, the record of what was asked. Does not own: what is answered: a script of answers, one a request, the
last of which is repeated.
"""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    target: str
    headers: dict[str, str]


@dataclass(slots=True, kw_only=True)
class ScriptedApi:
    answers: list[bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]]
    port: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/quotes"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.requests.append(Request(target=first.split(" ")[1], headers=headers))
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client gave up, as many of these tests want it to
        finally:
            writer.close()


@asynccontextmanager
async def scripted_api(
    *answers: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[ScriptedApi]:
    """A server on a free port of 127.0.0.1 that gives these answers in turn."""
    api = ScriptedApi(answers=list(answers))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(api.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http(
    body: bytes = b"[]", *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None
) -> bytes:
    """A whole answer; `length` is a Content-Length that lies."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def gzipped(body: bytes, *, status: str = "200 OK") -> bytes:
    return http(gzip.compress(body), status=status, headers=["Content-Encoding: gzip"])


def drip(body: bytes, *, every_seconds: float) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """An answer that comes byte by byte."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for byte in http(body):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every_seconds)

    return send


async def hang(_writer: asyncio.StreamWriter) -> None:
    """No answer at all, the connection stays open."""
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    """The connection breaks."""
    writer.transport.abort()
