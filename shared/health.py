"""The side-port: liveness, readiness, metrics and the status page of a service; and how long its loop is blocked.

Owns: the HTTP server and its answers. Does not own: the answers' contents (a Probe and a metrics registry give them).

Invariants: answering waits for nothing outside the process. A reason is always one line of text.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared import logs
from shared.page import Status, Table, render
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LoopMonitor", "Probe", "SidePort", "Status", "Table"]

STOP_TIMEOUT_SECONDS: Final = 2.0
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}

log = logs.get_logger(__name__)


class Probe(Protocol):
    """What a service tells of itself. Called on the loop; must return at once."""

    def not_alive(self) -> str | None:
        """Why the process should be restarted; None = it lives."""
        ...

    def not_ready(self) -> Sequence[str]:
        """Why no progress can be made, one reason each; empty = ready."""
        ...

    def status(self) -> Status:
        """For the page."""
        ...


class SidePort:
    """HTTP server for /healthz, /readyz, /metrics and the page at /."""

    def __init__(self, host: str, port: int, service: str, probe: Probe, registry: CollectorRegistry) -> None:
        self._host = host
        self._port = port
        self._service = service
        self._probe = probe
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; gives (and logs) the port, which the system chose if it was 0. SettingsError if it cannot be had."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_TIMEOUT_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.stop()
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror  # the loop's own text is a paragraph
            fault = (
                f"HTTP_PORT: cannot listen on {self._host}:{self._port} ({reason}); "
                "allowed: a free port of an address of this machine (HTTP_HOST), or 0 for any free port"
            )
            raise SettingsError([fault]) from error
        port = int(self._runner.addresses[0][1])
        log.info("Listening", host=self._host, port=port)
        return port

    async def stop(self, seconds: float = 2 * STOP_TIMEOUT_SECONDS) -> None:
        """Stop listening, within these seconds; requests under way get STOP_TIMEOUT_SECONDS. Again is nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            # What is left after the time-out are connections of a client that does not read; the process ends anyway.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        reason = self._probe.not_alive()
        return _text("alive" if reason is None else reason, ok=reason is None)

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._probe.not_ready()
        return _text("\n".join(reasons) or "ready", ok=not reasons)

    async def _metrics(self, _request: web.Request) -> web.Response:
        headers = {**_HEADERS, "Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(self._registry), headers=headers)

    async def _page(self, _request: web.Request) -> web.Response:
        html = render(self._service, self._probe.status(), self._probe.not_alive(), self._probe.not_ready())
        return web.Response(text=html, content_type="text/html", charset="utf-8", headers=_HEADERS)


def _text(text: str, *, ok: bool) -> web.Response:
    return web.Response(text=f"{text}\n", status=200 if ok else 503, headers=_HEADERS)


class LoopMonitor:
    """Measures how long the event loop is blocked: how late a short sleep ends.

    A block shows up to one sleep too short, never too long: BUSY_SECONDS while the loop has been late within the last
    CALM_SECONDS, else IDLE_SECONDS. An idle process is not woken for what it cannot have. `clock` is monotonic, and the
    system's rather than the loop's, which counts milliseconds.
    """

    IDLE_SECONDS: Final = 0.02
    BUSY_SECONDS: Final = 0.005
    CALM_SECONDS: Final = 1.0
    LATE_SECONDS: Final = 0.005  # what the system alone can do to a process that does nothing

    def __init__(self, observe: Callable[[float], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled: tell `observe` the seconds of every turn's delay."""
        busy_until = began = self._clock()
        while True:
            seconds = self.BUSY_SECONDS if began < busy_until else self.IDLE_SECONDS
            await asyncio.sleep(seconds)
            ended = self._clock()
            late = max(0.0, ended - began - seconds)
            self._observe(late)
            if late >= self.LATE_SECONDS:
                busy_until = ended + self.CALM_SECONDS
            began = ended
