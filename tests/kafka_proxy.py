"""A proxy before a real broker that breaks the requests which carry records, one by one, as it is told.

Owns: the frames of Kafka's protocol, what becomes of each produce request, the count of what the broker was given and
what it said. Does not own: what is in such a request or its answer (`produce_requests`), the broker, every other
request. Invariants: answers keep their order on a connection; a client that bootstraps here never leaves (addresses of
the broker in answers become this proxy's); what is not told to break passes byte for byte.

    async with KafkaProxy(broker_port) as proxy:
        proxy.fate = lambda request: LOST_ANSWER if request.number % 3 == 0 else PASS
        ...
        proxy.fate = always(HELD)         # from now on, until
        proxy.release()

The classical double: the broker has appended a batch and its answer is lost. A client sends it again, and only the
number that an idempotent producer gives a batch lets the broker know it.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from demo.ports import HOST, free_port
from tests.connections import Connections
from tests.produce_requests import PRODUCE, Produce, read_produce, refusal, refusal_in_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

WITH_ADDRESSES = frozenset({3, 10, 60})  # Metadata, FindCoordinator, DescribeCluster

# Kafka's error codes: https://kafka.apache.org/protocol.html#protocol_error_codes
REQUEST_TIMED_OUT = 7
MESSAGE_TOO_LARGE = 10
NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
TOPIC_AUTHORIZATION_FAILED = 29
INVALID_TIMESTAMP = 32
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
UNKNOWN_PRODUCER_ID = 59
INVALID_RECORD = 87


class Kind(StrEnum):
    """What becomes of a produce request."""

    PASS = "pass"
    CUT = "cut"  # the connection ends when that many bytes of it have passed
    LOST_ANSWER = "lost answer"  # the broker has appended it; the connection ends before the answer
    HELD = "held"  # it waits until `release`, and then passes
    HELD_ANSWER = "held answer"  # the broker has appended it; the answer waits until `release`
    SLOW = "slow"  # the answer comes that many seconds late
    REFUSED = "refused"  # answered with the error; the broker never hears of it
    REFUSED_DONE = "refused, done"  # the broker has appended it; the answer is the error
    REFUSED_IN_PART = "refused in part"  # the same, for its first partition only


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    kind: Kind
    passed_bytes: int = 0
    seconds: float = 0.0
    error: int = 0


PASS = Fate(kind=Kind.PASS)
LOST_ANSWER = Fate(kind=Kind.LOST_ANSWER)
HELD = Fate(kind=Kind.HELD)
HELD_ANSWER = Fate(kind=Kind.HELD_ANSWER)


def always(fate: Fate) -> Callable[[Produce], Fate]:
    """For `KafkaProxy.fate`."""
    return lambda _request: fate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """The next answer of a connection. `canned` = it is ours, the broker was not asked."""

    api: int
    produce: Produce | None = None
    fate: Fate = PASS
    canned: bytes | None = None


class KafkaProxy:
    """Listens on a port of its own. `fate` says what becomes of each produce request; counts are for the test."""

    def __init__(self, broker_port: int) -> None:
        self.port = free_port()
        self.fate: Callable[[Produce], Fate] = always(PASS)
        self.requests: list[tuple[Produce, Fate]] = []
        self.forwarded_records = 0  # given to the broker
        self.acknowledged_records = 0  # of requests whose answer, whatever it was, was passed on
        self._broker_port = broker_port
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections = Connections(self._watched)
        self._bugs: list[BaseException] = []  # of this proxy, not of anybody it talks to

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def struck(self, kind: Kind) -> int:
        """How many requests met that fate."""
        return sum(fate.kind is kind for _, fate in self.requests)

    def release(self) -> None:
        """Let go what is held, and pass from now on."""
        self.fate = always(PASS)
        self._released.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connections.accept, HOST, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._connections.cut()
        if error is None and self._bugs:
            raise self._bugs[0]

    async def _watched(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except Exception as bug:  # noqa: BLE001 -- raised at the end
            self._bugs.append(bug)
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._broker_port)
        except OSError:
            return  # the broker refuses: so do we
        expected: asyncio.Queue[_Expected] = asyncio.Queue()
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as ways:
                tasks = [
                    ways.create_task(self._requests(reader, broker_writer, expected)),
                    ways.create_task(_read(broker_reader, frames)),
                    ways.create_task(self._answers(frames, writer, expected)),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        finally:
            broker_writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, broker: asyncio.StreamWriter, expected: asyncio.Queue[_Expected]
    ) -> None:
        """Until one side has gone, or a request is cut."""
        while frame := await _frame(reader):
            (api,) = struct.unpack_from(">h", frame)
            if api != PRODUCE:
                expected.put_nowait(_Expected(api=api))
                await _send(broker, frame)
                continue
            request = read_produce(len(self.requests), frame)
            fate = self.fate(request)
            self.requests.append((request, fate))
            if fate.kind is Kind.CUT:
                broker.write(_with_length(frame)[: fate.passed_bytes])
                await asyncio.sleep(0.05)  # so that the broker sees what it was given; nothing depends on it
                return
            if fate.kind is Kind.REFUSED:
                expected.put_nowait(_Expected(api=api, canned=refusal(request, fate.error)))
                continue
            if fate.kind is Kind.HELD:
                await self._released.wait()
            expected.put_nowait(_Expected(api=api, produce=request, fate=fate))
            self.forwarded_records += request.records
            await _send(broker, frame)

    async def _answers(
        self, frames: asyncio.Queue[bytes], writer: asyncio.StreamWriter, expected: asyncio.Queue[_Expected]
    ) -> None:
        """Until an answer is lost."""
        while True:
            answer = await expected.get()
            frame = answer.canned or await frames.get()
            if answer.fate.kind is Kind.LOST_ANSWER:
                return
            await self._pass_on(frame, answer, writer)

    async def _pass_on(self, frame: bytes, answer: _Expected, writer: asyncio.StreamWriter) -> None:
        if answer.api in WITH_ADDRESSES:
            frame = frame.replace(_address(self._broker_port), _address(self.port))
        if answer.fate.kind is Kind.HELD_ANSWER:
            await self._released.wait()
        elif answer.fate.kind is Kind.SLOW:
            await asyncio.sleep(answer.fate.seconds)
        if answer.produce is not None:
            if answer.fate.kind is Kind.REFUSED_DONE:
                frame = refusal(answer.produce, answer.fate.error)
            elif answer.fate.kind is Kind.REFUSED_IN_PART:
                frame = refusal_in_part(frame, answer.produce, answer.fate.error)
            self.acknowledged_records += answer.produce.records
        await _send(writer, frame)


async def _read(reader: asyncio.StreamReader, frames: asyncio.Queue[bytes]) -> None:
    """Until the other side has gone."""
    while frame := await _frame(reader):
        frames.put_nowait(frame)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next message without its length; empty when the other side has gone."""
    try:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(size)
    except (OSError, asyncio.IncompleteReadError):
        return b""


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    try:
        writer.write(_with_length(frame))
        await writer.drain()
    except OSError:
        pass  # gone: the next read from there says so


def _with_length(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


def _address(port: int) -> bytes:
    """Host and port as they stand in answers, whatever the version: a string's bytes, then 32 bits."""
    return HOST.encode() + struct.pack(">i", port)
