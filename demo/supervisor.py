"""The demo's services as child processes whose output shows, prefixed, in one terminal.

Owns: starting, their output, noticing that one ended, stopping. Does not own: which services there are (`services`).
Invariants: every line of a child appears once, whole, behind its name; a child that ends is noticed at once; a child
cannot outlive the demo (`server_process.tethered`), which ends it by SIGTERM so that it can finish what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING

from demo.installation import ROOT
from demo.server_process import tethered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAST_LINES = 20
CHUNK_BYTES = 65_536
COLORS = (36, 35, 32, 33, 34)
NAME_WIDTH = 10


class Terminal:
    """Where all lines go. Colors only where a person looks at them."""

    def __init__(self) -> None:
        self._colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        """The demo's own voice."""
        self._print(f"\033[1m{text}\033[0m" if self._colored else text)

    def line(self, name: str, number: int | None, text: str) -> None:
        """One line of a child; `number` chooses the color of its name, None = no name."""
        if number is None:
            self._print(text)
            return
        prefix = f"{name:<{NAME_WIDTH}} | "
        if self._colored:
            prefix = f"\033[{COLORS[number % len(COLORS)]}m{prefix}\033[0m"
        self._print(prefix + text)

    @staticmethod
    def _print(text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:
            return  # the terminal is gone, and with it the reader; stopping in order matters more


class Child:
    """A running service. `last_lines`: the end of what it printed."""

    def __init__(self, name: str, number: int | None, process: asyncio.subprocess.Process, terminal: Terminal) -> None:
        self.name = name
        self._number = number
        self._process = process
        self._terminal = terminal
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.ended = asyncio.create_task(self._follow(), name=f"follow {name}")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative = the signal that ended it."""
        return self._process.returncode

    async def stop(self, seconds: float) -> int:
        """SIGTERM, after `seconds` SIGKILL; the exit code. What it printed meanwhile has been shown."""
        with contextlib.suppress(ProcessLookupError):  # ended already: nothing to stop
            self._process.terminate()
        try:
            return await asyncio.wait_for(asyncio.shield(self.ended), seconds)
        except TimeoutError:
            self._terminal.say(f"{self.name} did not stop within {seconds:.0f} s: killed")
            self.kill()
            return await self.ended

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # ended already
            self._process.kill()

    async def _follow(self) -> int:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - it was started with a pipe
        rest = b""
        while chunk := await output.read(CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._show(line)
        if rest:
            self._show(rest)
        return await self._process.wait()

    def _show(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self.last_lines.append(text)
        self._terminal.line(self.name, self._number, text)


class Supervisor:
    """All services, in the order they were started."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._children: list[Child] = []

    async def start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], *, plain: bool = False
    ) -> Child:
        """Start one in a session of its own: Ctrl-C in the terminal reaches the demo alone, which stops it in order.

        `plain`: its output shows without a prefix.
        """
        process = await asyncio.create_subprocess_exec(
            *tethered(command, signal.SIGTERM),
            env=dict(environ),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        child = Child(name, None if plain else len(self._children), process, self._terminal)
        self._children.append(child)
        return child

    def ended(self) -> list[Child]:
        """Those that no longer run."""
        return [child for child in self._children if child.ended.done()]

    def running(self) -> list[Child]:
        return [child for child in self._children if not child.ended.done()]

    def kill_all(self) -> None:
        for child in self._children:
            child.kill()
