"""One server of the local stack as a process: start, wait until it answers, stop, and the faults tests need.

Owns: the process, its log file. Does not own: what is started and what counts as an answer (`kafka_server`,
`s3_server`). Invariants: at most one process at a time; whoever calls `stop` finds it gone afterwards; it cannot
outlive the process that spawned it (`tether`). Plain blocking calls: they serve sync fixtures and, through threads,
the demo. `spawn` alone must be called from the main thread (`tether` says why).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TETHER = Path(__file__).with_name("tether.py")
READY_SECONDS = 180.0  # generous: a loaded machine starts a Java server slowly
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
TAIL_LINES = 30


class ServerError(Exception):
    """A server did not start or died. The message carries the tail of its log."""


def told_end(exit_code: int | None) -> str:
    """How a process ended, in words; negative = the signal that ended it."""
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal: they have no names
        return f"was ended by signal {-exit_code}"


def tethered(command: Sequence[str], signal_number: int = signal.SIGKILL) -> list[str]:
    """The command line that runs `command` so that it ends by the signal when this process is gone."""
    return [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), str(int(signal_number)), *command]


class ServerProcess:
    """The process of one server, now or later, with its log file."""

    def __init__(self, name: str, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative = the signal that ended it."""
        return self._running().poll()

    def spawn(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        """Start the command in a session of its own: Ctrl-C in the terminal is for the demo, not for its servers.

        The log of the run before is kept beside the new one, with `.1` at its end.
        """
        if self.alive:
            message = f"{self.name} is already running as process {self.pid}"
            raise ServerError(message)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".1"))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                tethered(command),
                env=dict(environ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, missing: Callable[[], str | None], seconds: float = READY_SECONDS) -> None:
        """Ask until nothing is missing. Raises ServerError when the process dies or the time is over."""
        deadline = time.monotonic() + seconds
        while (reason := missing()) is not None:
            if not self.alive:
                message = f"{self.name} {told_end(self.exit_code)} before it answered"
                raise ServerError(self._with_tail(message))
            if time.monotonic() >= deadline:
                message = f"{self.name} was not ready after {seconds:.0f} s: {reason}"
                raise ServerError(self._with_tail(message))
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL when that did not end it in time. Nothing happens when it is not running."""
        if not self.alive:
            return
        process = self._running()
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a suspended one would never see the SIGTERM
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what a lost machine looks like."""
        process = self._running()
        process.kill()
        process.wait()

    def suspend(self) -> None:
        """SIGSTOP: what a hung machine looks like. Connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log; empty before the first start."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = f"{self.name} was never started"
            raise ServerError(message)
        return self._process

    def _with_tail(self, message: str) -> str:
        return f"{message}. The end of {self.log_path}:\n{self.tail()}"


class Server:
    """What ends or holds up any server of the stack; how it starts is its own."""

    process: ServerProcess

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        self.process.stop(seconds)

    def kill(self) -> None:
        self.process.kill()

    def suspend(self) -> None:
        self.process.suspend()

    def resume(self) -> None:
        self.process.resume()
