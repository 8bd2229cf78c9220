"""A measured process, seen from outside.

Owns: starting it as a user would, its lines with the time each arrived, its CPU and memory as the kernel counts them.
Does not own: what the lines mean (`producer_runs`). Linux only.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from demo.environment import for_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120.0
_CPUCLOCK_SCHED = 2


class BenchError(Exception):
    """The figures cannot be had, or would be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One JSON line of a process, when it was read (monotonic clock), and the CPU time it had taken until then.

    `loop_seconds`: that of its first thread, on which an event loop runs.
    """

    at: float
    cpu_seconds: float
    fields: Mapping[str, object]
    loop_seconds: float = 0.0


class MeasuredProcess:
    """`python -m MODULE` with an environment of its own. Use it as a context manager.

    `inbox` gets every line as (who, line); processes of one run share it, so that their lines come in one order.
    """

    def __init__(
        self,
        who: str,
        command: Sequence[str],
        settings: Mapping[str, str],
        inbox: queue.SimpleQueue[tuple[str, Line]],
    ) -> None:
        self.started_at = time.monotonic()
        self._who = who
        self._inbox = inbox
        self._said: list[str] = []
        self._process = subprocess.Popen(  # noqa: S603 -- this interpreter and modules of ours
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=for_service(os.environ, settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, name=f"lines of {who}", daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reading.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        return cpu_seconds(self._process.pid)

    def loop_seconds(self) -> float:
        """User and system time of its first thread so far (proc_pid_schedstat: in nanoseconds)."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/schedstat")
        return int(path.read_text().split()[0]) / 1e9

    def peak_memory_bytes(self) -> int:
        """The most resident memory it ever had (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        if found is None:
            message = f"the kernel tells no VmHWM of {self._who}"
            raise BenchError(message)
        return int(found[1]) << 10

    def check_childless(self) -> None:
        """Raises BenchError when it has started processes: their CPU time would be missing."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if children:
            message = f"{self._who} has processes of its own ({', '.join(children)}): their CPU time would be missing"
            raise BenchError(message)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def check_alive(self) -> None:
        """Raises BenchError with its last words when it has ended."""
        if self._process.poll() is not None:
            self._reading.join()
            said = "\n".join(self._said[-20:])
            message = f"{self._who} ended with exit code {self._process.returncode}:\n{said}"
            raise BenchError(message)

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        used, loop = 0.0, 0.0
        for text in self._process.stdout:
            at = time.monotonic()
            try:
                used, loop = self.cpu_seconds(), self.loop_seconds()
            except OSError:
                pass  # its last lines may be read after its end: what it had taken before stands
            self._said = [*self._said[-50:], text.rstrip()]
            try:
                fields = json.loads(text)
            except ValueError:
                continue  # said by something that does not log in JSON; shown if the process ends
            if isinstance(fields, dict):
                self._inbox.put((self._who, Line(at=at, cpu_seconds=used, loop_seconds=loop, fields=fields)))


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far, in nanosecond steps (clock_getcpuclockid of glibc)."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def lines(
    inbox: queue.SimpleQueue[tuple[str, Line]], processes: Sequence[MeasuredProcess]
) -> Iterator[tuple[str, Line]]:
    """The lines as they come. Raises BenchError when a process ends, or none comes for PATIENCE_SECONDS."""
    heard = time.monotonic()
    while True:
        try:
            found = inbox.get(timeout=0.5)
        except queue.Empty:
            for process in processes:
                process.check_alive()
            if time.monotonic() - heard > PATIENCE_SECONDS:
                message = f"no process said anything for {PATIENCE_SECONDS:.0f} s"
                raise BenchError(message) from None
            continue
        heard = time.monotonic()
        yield found
