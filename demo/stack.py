"""One run of the demo, top down: set up, servers, services, progress, stop in order, verify.

Owns: the order and the exit code. Invariants: whatever happens, nothing that was started is running when `run` returns;
the producer stops first, the consumers then flush what they hold, the servers go last. A second Ctrl-C ends everything
at once; nothing is lost by it, since what is not in a bucket is still in Kafka.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from demo import installation
from demo.foreground import Foreground
from demo.installation import InstallationError
from demo.local_servers import LocalServers, install
from demo.progress import Progress, ProgressReader
from demo.server_process import ServerError, told_end
from demo.services import services
from demo.signposts import signposts
from demo.supervisor import Child, Supervisor, Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.options import Options
    from demo.services import Service, Services

PROGRESS_SECONDS = 3.0
TURN_SECONDS = 0.25
SERVICE_STOP_SECONDS = 40.0  # their own budget is 25 s
DRAIN_SECONDS = 60.0
DRAINED_TURNS = 4
VERIFY_SECONDS = 300.0


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


async def run(options: Options) -> int:
    """The exit code: 0 = it ran and stopped as asked and, after DEMO_SECONDS, the bucket was verified."""
    terminal = Terminal()
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        with (options.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                terminal.say(f"Another demo is running on {options.folder}; stop it first, or set DEMO_STATE=folder.")
                return 1
            with Foreground() as foreground:
                return await _Run(options, terminal, foreground).run()
    except (DemoError, InstallationError, ServerError) as error:
        terminal.say(f"The demo ended: {error}")
    except OSError as error:
        terminal.say(f"The demo ended: {error}. Its state lies in {options.folder}: can it be written, is there room?")
    return 1


class _Run:
    def __init__(self, options: Options, terminal: Terminal, foreground: Foreground) -> None:
        self._options = options
        self._terminal = terminal
        self._foreground = foreground
        self._stop = asyncio.Event()
        self._supervisor = Supervisor(terminal)
        self._servers: LocalServers | None = None
        self._started = time.monotonic()

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._asked_to_stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, self._foreground.suspend)
        self._terminal.say("Setting up what is missing (the first time takes a minute or two) …")
        try:
            installed = await asyncio.to_thread(install, self._options)
        except InstallationError:
            if self._stop.is_set():
                return 0
            raise
        self._lap("set up")
        if self._stop.is_set():
            return 0
        self._servers = LocalServers(self._options, installed)
        try:
            await self._servers.start()
            self._lap("Kafka and S3 are up")
            if self._stop.is_set():
                return 0
            planned = services(
                self._options, installed.producer, installed.consumer, self._servers.kafka, self._servers.s3
            )
            return await self._serve(planned, self._servers)
        finally:
            # Also on the way out of a failure: nothing stays behind.
            await self._stop_all(self._supervisor.running())
            await self._servers.stop()

    async def _serve(self, planned: Services, servers: LocalServers) -> int:
        market = await self._start(planned.market)
        producer = await self._start(planned.producer)
        consumers = [await self._start(service) for service in planned.consumers]
        places = signposts(self._options, planned, servers.kafka, servers.s3.endpoint_url, servers.bucket_folder)
        for line in places:
            self._terminal.say(line)
        reader = ProgressReader([planned.producer.url, *(service.url for service in planned.consumers)])
        await self._watch(reader, self._options.seconds)
        timed = not self._stop.is_set()
        self._terminal.say("Stopping: the producer first, then the consumers put what they hold, then the servers.")
        codes = await self._stop_all([producer])
        drained = await self._drain(reader) if timed else True
        codes += await self._stop_all(consumers)
        await self._stop_all([market])
        failed = any(codes) or not drained
        if timed and not self._stop.is_set():
            failed = bool(await self._verify(planned.verify)) or failed
        return int(failed)

    async def _start(self, service: Service) -> Child:
        return await self._supervisor.start(service.name, service.command, service.environ)

    async def _watch(self, reader: ProgressReader, seconds: float | None) -> None:
        """Until stopped or the time is over. Raises DemoError when something died."""
        now = time.monotonic()
        end, next_line = (now + seconds if seconds else None), now + PROGRESS_SECONDS
        stored = False
        while not self._stop.is_set() and (end is None or time.monotonic() < end):
            self._check_alive()
            if time.monotonic() >= next_line:
                next_line += PROGRESS_SECONDS
                progress = await reader.read()
                self._terminal.say(f"=== {progress}")
                if progress.objects and not stored:
                    stored = True
                    self._lap("first object stored")
            await self._turn()

    async def _drain(self, reader: ProgressReader) -> bool:
        """Wait until the consumers have stored all there is, so that `verify` sees a whole chain; False = in vain."""
        end = time.monotonic() + DRAIN_SECONDS
        idle_turns = 0
        progress = Progress()
        while not self._stop.is_set() and time.monotonic() < end and idle_turns < DRAINED_TURNS:
            self._check_alive(but="producer")
            progress = await reader.read()
            # More than once: the consumers learn where the log ends when they fetch.
            idle_turns = idle_turns + 1 if progress.lag == 0 and progress.stored >= progress.published else 0
            await self._turn()
        # The producer is gone, and what it published in its last moment was never asked for: no word of it here.
        self._terminal.say(f"=== {progress.stored:,} records stored in {progress.objects:,} objects")
        if idle_turns < DRAINED_TURNS and not self._stop.is_set():
            self._terminal.say(f"The consumers have not stored everything within {DRAIN_SECONDS:.0f} s.")
            return False
        return True

    async def _turn(self) -> None:
        self._foreground.take()
        try:
            await asyncio.wait_for(self._stop.wait(), TURN_SECONDS)
        except TimeoutError:
            return  # the turn is over

    async def _stop_all(self, children: Sequence[Child]) -> list[int]:
        """Exit codes; what did not end well is said. Ended by our SIGTERM before it could handle one is well too."""
        ended = await asyncio.gather(*(child.stop(SERVICE_STOP_SECONDS) for child in children))
        codes = [0 if code == -signal.SIGTERM else code for code in ended]
        for child, code in zip(children, codes, strict=True):
            if code:
                self._terminal.say(f"{child.name} {told_end(code)}")
        return codes

    async def _verify(self, service: Service) -> int:
        self._terminal.say("Verifying the bucket against the topic: python -m consumer verify")
        child = await self._supervisor.start(service.name, service.command, service.environ, plain=True)
        try:
            code = await asyncio.wait_for(asyncio.shield(child.ended), VERIFY_SECONDS)
        except TimeoutError:
            raise DemoError(f"verify did not end within {VERIFY_SECONDS:.0f} s") from None
        self._terminal.say("Verified: all is well." if code == 0 else f"verify ended with exit code {code}")
        return code

    def _check_alive(self, but: str = "") -> None:
        for child in self._supervisor.ended():
            if child.name != but:
                self._fail(child.name, child.exit_code, "\n".join(child.last_lines))
        if self._servers is None:
            return
        if shortage := self._servers.short_of_disk():
            raise DemoError(f"{shortage}: make room and start again, it goes on where it was")
        for server in self._servers.ended():
            self._fail(server.name, server.exit_code, f"{server.tail()}\nMore in {server.log_path}")

    def _fail(self, name: str, exit_code: int | None, last_lines: str) -> NoReturn:
        what = f"{name} {told_end(exit_code)}"
        # Said at once, and again at the end: stopping the others takes a while and prints much.
        self._terminal.say(f"{what}: stopping the others.")
        hint = f"\nIf what an earlier run left is in its way, delete {self._options.folder} and start again."
        by_itself = exit_code is not None and exit_code >= 0
        raise DemoError(f"{what}. Its last lines:\n{last_lines}{hint if by_itself else ''}")

    def _asked_to_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._terminal.say("Stopping; once more ends everything at once.")
            installation.abandon()
            return
        self._terminal.say("Ending everything at once; what is not in the bucket is still in Kafka.")
        self._supervisor.kill_all()
        if self._servers is not None:
            self._servers.kill()
        sys.stdout.flush()
        os._exit(130)

    def _lap(self, what: str) -> None:
        self._terminal.say(f"[{time.monotonic() - self._started:.1f} s] {what}")
