"""What the demo and the tests bring for themselves, under `.local/`.

Owns: how a set-up step is run (in the shell's environment as it was) and ended early, and the way to `bootstrap.py`,
which owns the Python environments. Does not own: what is brought (`kafka_server`, `s3_server`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"
# The shell as it was before the tests took the dangerous variables away: set-up may need its proxies.
SHELL: Mapping[str, str] = dict(os.environ)
STEP_SECONDS = 1200.0
END_SECONDS = 10.0
_steps: set[subprocess.Popen[str]] = set()
_abandoned = threading.Event()
_starting = threading.Lock()  # so that no step begins unseen while the others are ended


class InstallationError(Exception):
    """A set-up step failed. The message carries the end of what it printed."""


def ensure(name: str) -> Path:
    """The interpreter of the environment `requirements/NAME.txt`, made first when it is missing or out of date."""
    printed = run([sys.executable, "bootstrap.py", name], f"setting up the Python environment {name}")
    return Path(printed.splitlines()[-1])


def run(command: Sequence[str], what: str) -> str:
    """Run one set-up step; what it printed. Its errors go to ours as they come. Raises InstallationError."""
    try:
        process = _start(command, what)
    except OSError as error:
        raise InstallationError(f"{what} failed: {error}") from error
    try:
        printed, _ = process.communicate(timeout=STEP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"{what} failed: {error}") from error
    finally:
        _end(process)
    if process.returncode:
        raise InstallationError(f"{what} failed with exit code {process.returncode} (the reason is above)\n{printed}")
    return printed


def abandon() -> None:
    """End the running steps, from any thread, and begin none any more: `run` raises InstallationError."""
    with _starting:
        _abandoned.set()
        for process in list(_steps):
            process.terminate()


def _start(command: Sequence[str], what: str) -> subprocess.Popen[str]:
    """In a session of its own: Ctrl-C in the terminal reaches the demo, not a tool that answers with a traceback."""
    with _starting:
        if _abandoned.is_set():
            raise InstallationError(f"{what}: not begun, for the set-up was stopped")
        process = subprocess.Popen(
            command,
            env=dict(SHELL),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        _steps.add(process)
        return process


def _end(process: subprocess.Popen[str]) -> None:
    """Nothing of a step stays behind, when we are interrupted either."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _steps.discard(process)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One set-up of `path` at a time, over all processes of this machine; the second one waits and finds it done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
