"""The services as real processes, started as a user would, with an environment of their own.

Owns: starting, signals, reading their log lines and side-port. Does not own: the servers they talk to (`servers`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from demo.environment import for_service
from tests.servers import PATIENCE_SECONDS, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent


class ServiceProcess:
    """`python -m producer` or `python -m consumer`; output as JSON lines in a file. Use it as a context manager."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.log_file = folder / f"{command[0]}-{len(list(folder.glob('*.log')))}.log"
        self._output = self.log_file.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=for_service(os.environ, {"LOG_FORMAT": "json", "HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0", **environ}),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

        self.end_awaited = False  # somebody asked for the exit code, so it is theirs to judge
        self.wrong_clock = False  # to be set by who gives it one: its log lines' times are not to be compared
        self._peak_memory_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._output.close()
        if error[0] is not None:
            sys.stderr.write(f"---- {self.log_file.name} (exit {self.process.returncode})\n{self.output()[-6000:]}\n")

    def output(self) -> str:
        return self.log_file.read_text(errors="replace")

    def lines(self, event: str | None = None) -> list[dict[str, object]]:
        """Its log lines so far, all or those of one event."""
        found = []
        for line in self.output().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # not a log line, or one that is still being written
            if isinstance(entry, dict) and (event is None or entry.get("event") == event):
                found.append(entry)
        return found

    async def logged(self, event: str, *, count: int = 1, seconds: float = PATIENCE_SECONDS) -> list[dict[str, object]]:
        """Wait until the event was logged `count` times."""

        def enough() -> bool:
            return len(self.lines(event)) >= count or self.process.poll() is not None

        await eventually(enough, f"{count} times {event!r} in the log", seconds)
        found = self.lines(event)
        assert len(found) >= count, f"ended with {self.process.returncode} before {event!r}:\n{self.output()[-4000:]}"
        return found

    async def ended(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has ended: to be judged by who asks."""
        self.end_awaited = True
        await eventually(lambda: self.process.poll() is not None, "the process's end", seconds)
        return self.process.returncode

    async def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(seconds)

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait()

    def peak_memory_bytes(self) -> int:
        """The most resident memory it ever had (VmHWM), as far as the kernel still tells; 0 where it never does."""
        self._peak_memory_bytes = max(self._peak_memory_bytes, peak_memory_bytes(self.process.pid))
        return self._peak_memory_bytes

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of its side-port."""
        port = (await self.logged("Listening"))[0]["port"]

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(ask)

    async def is_ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def ready_reason(self, part: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until /readyz is red with a reason that holds `part`; the reasons."""
        text = ""

        async def told() -> bool:
            nonlocal text
            status, text = await self.get("/readyz")
            return status == 503 and part in text

        await eventually(told, f"readiness red because of {part!r}", seconds, every_seconds=0.2)
        return text


def peak_memory_bytes(pid: int) -> int:
    """The high-water mark of a process's resident memory (VmHWM); 0 when it has ended, or where this is no Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) << 10 if found else 0


def failing_seconds(reasons: str, who: str) -> int:
    """For how long `who` (S3, Kafka) has failed, as readiness says it."""
    found = re.search(rf"{who} fails for (\d+) s", reasons)
    assert found is not None, reasons
    return int(found[1])
