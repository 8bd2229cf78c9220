"""A broker's answers, received into one buffer that stays, instead of through aiokafka's stream reader.

Owns: cutting what a connection brings into frames, and handing them to aiokafka's decoding. Does not own: connecting,
login, requests, and what follows from a broken connection (aiokafka, whose own protocol hears of all but the data).

asyncio's stream reader copies every byte three times on its way to aiokafka's decoder, through buffers that grow and go
with each answer. Here the kernel writes where the decoder reads, which halves the CPU time of a fetch.

Invariants: a frame is decoded, and what is kept of it copied out, before the next byte is received; so no answer is
kept alive by a part of it. A connection's buffer is as large as its largest answer yet, KEPT_BYTES at most.
"""

# ruff: noqa: SLF001 # aiokafka's connection has no other way in; held by the pin and tests/contract/test_seams.py

from __future__ import annotations

import asyncio
import struct
import weakref
from types import SimpleNamespace
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn

from shared.rebinding import rebound

KEPT_BYTES: Final = 5 << 20  # a full fetch answer; larger ones, of a batch larger than that, come and go

_SIZE: Final = struct.Struct(">i")  # of the frame that follows
_SMALLEST_FRAME: Final = 4  # a correlation id
_FIRST_BUFFER: Final = 1 << 16


class Frame:
    """A frame, as aiokafka's decoders read one: what `io.BytesIO` is to them elsewhere."""

    __slots__ = ("_position", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def read(self, count: int) -> bytes:
        """A copy of the next `count` bytes, or of what there is."""
        start = self._position
        self._position = start + count
        return bytes(self._view[start : self._position])


_handle_frame = rebound(AIOKafkaConnection._handle_frame, io=SimpleNamespace(BytesIO=Frame))


class FrameProtocol(asyncio.BufferedProtocol):
    """Takes the place of the protocol of a connection that is logged in, and tells that one of all but the data."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 -- aiokafka has no types
        self._connection = weakref.ref(connection)
        self._stock: asyncio.StreamReaderProtocol = connection._protocol
        self._reader: asyncio.StreamReader = connection._reader
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._expect_size()

    def _expect_size(self) -> None:
        self._expected, self._filled, self._is_body = _SIZE.size, 0, False

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's signature
        return self._buffer[self._filled : self._expected]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < self._expected:
            return
        try:
            if self._is_body:
                self._hand_over()
            else:
                self._expect_body()
        except Exception as error:  # noqa: BLE001 -- aiokafka's reading task ends with it, and the connection with that
            self._reader.set_exception(error)
            self._expect_size()  # for what comes before it is closed: it is in vain

    def _expect_body(self) -> None:
        (size,) = _SIZE.unpack_from(self._buffer)
        if size < _SMALLEST_FRAME:
            raise ConnectionError(f"a frame of {size} bytes")
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._expected, self._filled, self._is_body = size, 0, True

    def _hand_over(self) -> None:
        frame = self._buffer[: self._expected]
        self._expect_size()
        if len(self._buffer) > KEPT_BYTES:
            self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        connection = self._connection()
        if connection is not None:
            _handle_frame(connection, frame)

    def eof_received(self) -> bool | None:
        return self._stock.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stock.connection_lost(exc)

    def pause_writing(self) -> None:
        self._stock.pause_writing()

    def resume_writing(self) -> None:
        self._stock.resume_writing()


async def _create_conn(*address: object, **options: object) -> object:
    """A connection of aiokafka's, logged in and with no request under way; its data come by a FrameProtocol now."""
    connection = await create_conn(*address, **options)
    connection._writer.transport.set_protocol(FrameProtocol(connection))
    return connection


# To be bound to a client, in place of its own.
get_conn = rebound(AIOKafkaClient._get_conn, create_conn=_create_conn)
