"""The consumers of one scenario: real processes, started, stopped, killed, counted.

Owns: what must hold when one ends (exit code, time), what their log lines tell together, the scenario's figures. Does
not own: what they work on (`arena`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.chaos import figures
from tests.processes import ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from pathlib import Path

SPREAD_SECONDS = 60.0
SAME_REBALANCE_SECONDS = 0.5
SIGKILLED = -9


class Replicas:
    """Those that run and those that ran. `settings` are every one's; `partitions` of the topic, at the start."""

    def __init__(self, settings: dict[str, str], *, folder: Path, partitions: int) -> None:
        self.settings = settings
        self.folder = folder
        self.partitions = partitions
        self.consumers: list[ServiceProcess] = []
        self._killed: list[ServiceProcess] = []
        self.figures: dict[str, object] = {}

    def consumer(self, **settings: str) -> ServiceProcess:
        """Start one; `settings` beside the arena's. It is not waited for: `await it.logged("Partitions assigned")`."""
        process = ServiceProcess(["consumer"], {**self.settings, **settings}, self.folder)
        self.consumers.append(process)
        return process

    async def assigned(self, *consumers: ServiceProcess, count: int = 1) -> None:
        """Wait until each has been assigned partitions (perhaps none) that many times."""
        for consumer in consumers:
            await consumer.logged("Partitions assigned", count=count)

    async def stop(self, *consumers: ServiceProcess) -> float:
        """SIGTERM to all of them at once: exit code 0 within SHUTDOWN_TIMEOUT_SECONDS each. The longest, in seconds."""
        began = time.monotonic()
        longest = 0.0
        for consumer in consumers:
            consumer.process.terminate()
        budget = float(self.settings["SHUTDOWN_TIMEOUT_SECONDS"])
        for consumer in consumers:
            code = await consumer.ended(budget + 10)
            longest = max(longest, time.monotonic() - began)
            assert code == 0, f"{consumer.log_file.name} ended with {code} on SIGTERM, 0 is expected"
            assert longest < budget, f"{consumer.log_file.name} took {longest:.1f} s to stop, {budget:g} s are allowed"
        self.note_longest("stop_seconds", longest)
        return longest

    def kill(self, *consumers: ServiceProcess) -> None:
        """SIGKILL, at once; the exit code says so."""
        self._killed += consumers
        for consumer in consumers:
            consumer.kill()
            code = consumer.process.returncode
            assert code == SIGKILLED, f"{consumer.log_file.name} had ended with {code} before it was killed"

    def running(self) -> list[ServiceProcess]:
        return [consumer for consumer in self.consumers if consumer.process.poll() is None]

    def crashed(self) -> list[str]:
        """Who ended otherwise than with 0, though nobody killed it nor awaited its end; with exit code and log file."""
        return [
            f"{consumer.log_file.name} ended with {consumer.process.returncode} by itself: see {consumer.log_file}"
            for consumer in self.consumers
            if consumer.process.poll() not in (None, 0) and consumer not in self._killed and not consumer.end_awaited
        ]

    def peak_memory_bytes(self) -> int:
        """The largest resident memory any consumer of this scenario ever had."""
        return max((consumer.peak_memory_bytes() for consumer in self.consumers), default=0)

    async def counted(self) -> tuple[int, int, int]:
        """Objects, records in them, rebalances so far (as the log lines of all consumers tell)."""
        uploaded = [line for consumer in self.consumers for line in consumer.lines("Uploaded")]
        records = sum(int(str(line["records"])) for line in uploaded)
        return len(uploaded), records, len(self.rebalances())

    def rebalances(self) -> list[float]:
        """When each one was: assignments less than half a second apart are one rebalance. Wrong clocks tell nothing."""
        found: list[float] = []
        right = [consumer for consumer in self.consumers if not consumer.wrong_clock]
        lines = [line for consumer in right for line in consumer.lines("Partitions assigned")]
        for at in sorted(figures.moment(line) for line in lines):
            if not found or at - found[-1] > SAME_REBALANCE_SECONDS:
                found.append(at)
        return found

    async def spread(self, *consumers: ServiceProcess) -> None:
        """Wait until these, and only these, have all partitions among them by their latest assignment."""

        def held() -> bool:
            numbers: list[object] = []
            for consumer in consumers:
                lines = consumer.lines("Partitions assigned")
                latest = lines[-1]["partitions"] if lines else []
                numbers += latest if isinstance(latest, list) else []
            return sorted(map(str, numbers)) == sorted(map(str, range(self.partitions)))

        await eventually(held, "the partitions spread over these consumers", SPREAD_SECONDS)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def note(self, name: str, value: object) -> None:
        """A figure for the report; the unit is part of the name (`_seconds`, `_bytes`, plain counts)."""
        self.figures[name] = round(value, 3) if isinstance(value, float) else value

    def note_longest(self, name: str, seconds: float) -> None:
        before = self.figures.get(name, 0.0)
        self.note(name, max(seconds, before if isinstance(before, float) else 0.0))
