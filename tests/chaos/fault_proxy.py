"""A proxy between consumers and an S3 server that breaks requests on purpose, by script or by seeded chance.

Owns: connections, doing faults, the journal of what it did. Does not own: which faults there are (`faults`), how
messages are read (`wire`), the server behind it. Invariants: a request without a fault is forwarded byte for byte (Host
too, so signatures hold); what the journal calls done was answered by the server; one request is forwarded at most once.

    async with FaultProxy(port_of_server, seed=7) as proxy:
        proxy.inject(faults.LOST_ANSWER, method="PUT", share=0.1)    # until proxy.heal()
        with proxy.injecting(faults.DENIED):                         # for a while
            ...
        async with proxy.away():                                     # connections refused, open ones cut
            ...
        proxy.inject(faults.HELD, method="PUT", times=1)             # waits in proxy.held …
        proxy.release()                                              # … until now
        await proxy.settled()                                        # late effects have happened
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from demo.ports import HOST, free_port
from tests.chaos import wire
from tests.chaos.faults import Effect, Fault, Rule, Sees
from tests.connections import Connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

UPSTREAM_SECONDS = 60.0
SETTLED_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """One fault as it was done. `status` is what the server answered when it was asked; None = not asked, no answer."""

    at: float
    fault: str
    method: str
    key: str
    status: int | None


class FaultProxy:
    """Listens on a port of its own; `url` is the endpoint for the consumers."""

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        self.port = free_port()
        self.journal: list[Struck] = []
        self.held: list[wire.Request] = []  # what waits for `release`
        self._upstream_port = upstream_port
        self._dice = random.Random(seed)
        self._rules: list[Rule] = []
        self._connections = Connections(self._serve)
        self._late: set[asyncio.Task[wire.Answer | None]] = set()
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def counts(self) -> Counter[str]:
        """How often each fault was done, by "fault METHOD"."""
        return Counter(f"{struck.fault} {struck.method}" for struck in self.journal)

    # ---- what a scenario asks for -----------------------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        *,
        share: float = 1.0,
        method: str | None = None,
        key_part: str = "",
        times: int | None = None,
        after: int = 0,
        where: Callable[[wire.Request], bool] = lambda _: True,
    ) -> Rule:
        """Add a rule; the first one that strikes decides. `share` is drawn from the proxy's seed."""
        rule = Rule(fault=fault, share=share, method=method, key_part=key_part, times=times, after=after, where=where)
        self._rules.append(rule)
        return rule

    def heal(self, rule: Rule | None = None) -> None:
        """Take away one rule, or all. Rules, not outages: see `away`."""
        self._rules = [] if rule is None else [kept for kept in self._rules if kept is not rule]

    @contextlib.contextmanager
    def injecting(self, fault: Fault, **options: object) -> Iterator[Rule]:
        """`inject` for the time of the block."""
        rule = self.inject(fault, **options)  # type: ignore[arg-type]  # as `inject` takes them
        try:
            yield rule
        finally:
            self.heal(rule)

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """An outage: what is open is cut, new connections are refused; requests under way may have had their effect."""
        self._stop_listening()
        await self._connections.cut()
        try:
            yield
        finally:
            await self._listen()

    def release(self) -> None:
        """Carry out what is held, whether its client still waits or not."""
        self._released.set()
        self._released = asyncio.Event()
        self.held = []

    async def settled(self) -> None:
        """Wait until every late effect has happened. What is held has to be released before."""
        if self._late:
            await asyncio.wait(set(self._late), timeout=SETTLED_SECONDS)
        assert not self._late, f"{len(self._late)} late effects did not happen within {SETTLED_SECONDS:.0f} s"

    # ---- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._connections.cut()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connections.accept, HOST, self.port, limit=wire.HEAD_LIMIT)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._turn(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone: its business
        finally:
            writer.transport.abort()

    # ---- one request ------------------------------------------------------------------------------------------------

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False ends the connection."""
        head = await wire.read_request_head(reader)
        fault = next((rule.fault for rule in self._rules if rule.strikes(head, self._dice)), None)
        if fault is not None and fault.sees is Sees.RESET_MID_BODY:
            self._note(fault, head, None)
            _reset(writer)
            return False
        if head.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await wire.read_request_body(reader, head)
        request = wire.Request(
            method=head.method, bucket=head.bucket, key=head.key, headers=head.headers, head=head.head, body=body
        )
        if fault is None:
            return await self._hand_over(await self._forward(request), writer)
        return await self._strike(fault, request, reader, writer)

    async def _hand_over(self, answer: wire.Answer | None, writer: asyncio.StreamWriter) -> bool:
        """The server's answer as it came; where it gave none, the connection ends as if it were the server's."""
        if answer is None:
            _reset(writer)
            return False
        writer.write(answer.raw)
        await writer.drain()
        if not answer.keeps_open:
            writer.close()  # in order: the client knows the answer's end by it
            await writer.wait_closed()
        return answer.keeps_open

    async def _strike(
        self, fault: Fault, request: wire.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if fault.effect is Effect.DONE:
            answer = await self._forward(request)
            self._note(fault, request, answer.status if answer else None)
        elif fault.effect is Effect.LATE:
            self._later(self._forward_after(asyncio.sleep(fault.late_seconds), fault, request))
        elif fault.effect is Effect.HELD:
            self.held.append(request)
            held = self._later(self._forward_after(self._released.wait(), fault, request))
            return await self._hand_over(await asyncio.shield(held), writer)
        else:
            self._note(fault, request, None)
        if fault.sees is Sees.REFUSAL:
            writer.write(fault.refusal(request.method))
            await writer.drain()
            return True
        if fault.sees is Sees.STALL:
            await reader.read()  # until the client gives up
        elif fault.sees is Sees.RESET:
            _reset(writer)
        else:
            writer.close()
            await writer.wait_closed()
        return False

    def _later(self, work: Coroutine[None, None, wire.Answer | None]) -> asyncio.Task[wire.Answer | None]:
        """In a task of its own: the effect does not hang on the client's connection."""
        task = asyncio.create_task(work, name="fault-proxy-late")
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task

    async def _forward_after(
        self, moment: Awaitable[object], fault: Fault, request: wire.Request
    ) -> wire.Answer | None:
        await moment
        answer = await self._forward(request)
        self._note(fault, request, answer.status if answer else None)
        return answer

    async def _forward(self, request: wire.Request) -> wire.Answer | None:
        """The server's answer on a connection of its own; None when it gave none."""
        try:
            async with asyncio.timeout(UPSTREAM_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self._upstream_port, limit=wire.HEAD_LIMIT)
                try:
                    writer.write(request.raw)
                    return await wire.read_answer(reader, request.method)
                finally:
                    writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            return None

    def _note(self, fault: Fault, request: wire.Request, status: int | None) -> None:
        self.journal.append(
            Struck(at=time.time(), fault=fault.name, method=request.method, key=request.key, status=status)
        )


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: nothing that was sent before is sure to arrive."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
