"""Stop signals, deadlines, exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shared import lifecycle
from shared.lifecycle import Deadline, StopSignals
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own signal handlers, before and after each test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_sets_the_event_and_leaves_the_default_for_the_second(number: signal.Signals) -> None:
    with StopSignals() as stop:
        assert not stop.event.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await stop.event.wait()
        assert stop.received == number.name
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(number) == signal.SIG_DFL


async def test_without_a_signal_the_handlers_before_it_are_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) != before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert stop.received is None


STUBBORN = """
import asyncio, sys
from shared.lifecycle import StopSignals, run

async def main():
    with StopSignals() as stop:
        print("up", flush=True)
        await stop.event.wait()
        print("stopping", flush=True)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

sys.exit(run(main))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_that_hangs(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(number)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_never_grows_and_never_goes_below_zero() -> None:
    clock = Clock()
    deadline = Deadline.after(10, clock)
    assert deadline.remaining() == 10
    clock.now = 109
    assert deadline.remaining() == 1
    clock.now = 111
    assert deadline.remaining() == 0


async def test_a_deadline_that_has_passed_stops_the_first_await() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after(-1).timeout():
            await asyncio.Event().wait()


async def test_a_deadline_stops_what_takes_longer() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Deadline.after(0.05).timeout():
            await asyncio.Event().wait()
    assert time.monotonic() - began >= 0.04


def test_the_exit_code_is_what_main_returns() -> None:
    async def main() -> int:
        return 7

    assert lifecycle.run(main) == 7


def test_wrong_settings_exit_with_2_and_their_faults_on_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        raise SettingsError(["A: 'x' is not allowed; allowed: y", "B: not set; allowed: z"])

    assert lifecycle.run(main) == 2
    assert capsys.readouterr() == ("", "A: 'x' is not allowed; allowed: y\nB: not set; allowed: z\n")


def test_a_crash_exits_with_1() -> None:
    async def main() -> int:
        raise ExceptionGroup("tasks", [OSError("gone")])

    assert lifecycle.run(main) == 1


QUIET = """
import sys
from shared import lifecycle, logs

async def main():
    logs.configure("INFO", "json", "test")
    for number in range(1000):
        logs.get_logger("test").info("Line", number=number)
    print("working on", file=sys.stderr)
    return 3

sys.exit(lifecycle.run(main))
"""


# Unbuffered, nothing would be left over for the interpreter to stumble on at its exit.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def quiet(stdout: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", QUIET]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env=BUFFERED
    )


def test_a_process_whose_stdout_is_closed_works_on_and_keeps_its_exit_code() -> None:
    read, write = os.pipe()
    os.close(read)
    done = quiet(write)
    os.close(write)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "ticklake: stdout cannot be written ([Errno 32] Broken pipe); going on without log lines",
        "working on",
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_process_whose_disk_is_full_works_on_and_keeps_its_exit_code() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = quiet(full.fileno())
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 2
