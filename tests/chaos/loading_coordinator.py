"""A proxy in front of a real broker that lets the group's coordinator be loading, or elsewhere, at will.

Owns: the frames of Kafka's protocol, and the one lie: the answer to OffsetFetch. Does not own: the broker, every other
answer. Invariants: answers keep their order; a client that bootstraps here never leaves (addresses of the broker in
answers become this proxy's).

A coordinator that loads or has moved answers OffsetFetch with an error above all partitions and names none of them.
aiokafka overlooks that error and sees a group without offsets: https://kafka.apache.org/protocol.html, OffsetFetch v2+.

    async with LoadingCoordinator(broker_port) as front:
        front.error = LOADING         # until it is None again
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Self

from demo.ports import HOST, free_port
from tests.connections import Connections

if TYPE_CHECKING:
    from types import TracebackType

LOADING = 14  # COORDINATOR_LOAD_IN_PROGRESS
NOT_AVAILABLE = 15  # COORDINATOR_NOT_AVAILABLE
MOVED = 16  # NOT_COORDINATOR
OFFSET_FETCH = 9
WITH_ADDRESSES = frozenset({3, 10, 60})  # Metadata, FindCoordinator, DescribeCluster
FORGEABLE = {2: ">ih", 3: ">iih", 4: ">iih", 5: ">iih"}  # from v3 on the throttle time comes first; from v6 on tagged


class LoadingCoordinator:
    """Listens on a port of its own. `answered` counts the lies."""

    def __init__(self, broker_port: int) -> None:
        self.port = free_port()
        self.error: int | None = None
        self.answered = 0
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._connections = Connections(self._serve)

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connections.accept, HOST, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._connections.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._broker_port)
            try:
                asked: dict[int, tuple[int, int]] = {}
                async with asyncio.TaskGroup() as ways:
                    there = ways.create_task(self._requests(reader, broker_writer, asked))
                    back = ways.create_task(self._answers(broker_reader, writer, asked))
                    await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
                    there.cancel()
                    back.cancel()
            finally:
                broker_writer.transport.abort()
        except OSError:
            pass  # the broker refuses: so do we
        finally:
            writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        while frame := await _frame(reader):
            api, version, correlation = struct.unpack_from(">hhi", frame)
            asked[correlation] = api, version
            await _send(writer, frame)

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        while frame := await _frame(reader):
            (correlation,) = struct.unpack_from(">i", frame)
            api, version = asked.pop(correlation)
            if api == OFFSET_FETCH:
                frame = self._offsets(frame, version)
            elif api in WITH_ADDRESSES:
                frame = frame.replace(_address(self._broker_port), _address(self.port))
            await _send(writer, frame)

    def _offsets(self, frame: bytes, version: int) -> bytes:
        if self.error is None:
            return frame
        assert version in FORGEABLE, f"the client asks by OffsetFetch v{version}: teach this proxy how to answer that"
        self.answered += 1
        form = FORGEABLE[version]
        return frame[:4] + struct.pack(form, *[0] * (len(form) - 2), self.error)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next message without its length; empty when the other side has gone."""
    try:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(size)
    except (OSError, asyncio.IncompleteReadError):
        return b""


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    try:
        writer.write(struct.pack(">i", len(frame)) + frame)
        await writer.drain()
    except OSError:
        pass  # gone: the next read from there says so


def _address(port: int) -> bytes:
    """Host and port as they stand in answers, whatever the version: a string's bytes, then 32 bits."""
    return HOST.encode() + struct.pack(">i", port)
