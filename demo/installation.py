"""What the demo and the tests bring for themselves, under `.local/`.

Owns: how a set-up step is run (in the shell's environment as it was, one at a time) and the way to `bootstrap.py`,
which owns the Python environments. Does not own: what is brought (`kafka_server`, `s3_server`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".local"
# The shell as it was before the tests took the dangerous variables away: set-up may need its proxies.
SHELL: Mapping[str, str] = dict(os.environ)
STEP_SECONDS = 1200.0


class InstallationError(Exception):
    """A set-up step failed. The message carries the end of what it printed."""


def ensure(name: str) -> Path:
    """The interpreter of the environment `requirements/NAME.txt`, made first when it is missing or out of date."""
    printed = run([sys.executable, "bootstrap.py", name], f"setting up the Python environment {name}")
    return Path(printed.splitlines()[-1])


def run(command: Sequence[str], what: str) -> str:
    """Run one set-up step; what it printed. Its errors go to ours as they come. Raises InstallationError."""
    try:
        done = subprocess.run(
            command,
            env=dict(SHELL),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"{what} failed: {error}") from error
    if done.returncode:
        raise InstallationError(f"{what} failed with exit code {done.returncode} (the reason is above)\n{done.stdout}")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One set-up of `path` at a time, over all processes of this machine; the second one waits and finds it done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
