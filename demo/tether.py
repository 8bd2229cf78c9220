"""Start a command so that it cannot outlive whoever started it: `python tether.py PARENT_PID SIGNAL COMMAND…`.

Owns: the tie between the two processes. The kernel sends SIGNAL when the parent is gone, kill -9 included (Linux;
elsewhere the command just runs). The process id stays the same, since the command replaces this script.

It runs under the bare interpreter (`-I -S`), so that it costs some 20 ms. The parent must spawn it from a thread that
lives as long as it does: the kernel watches the thread.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns when all is well; returns when the parent had gone before the tie was made."""
    parent, signal_number, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            return
    os.execvp(command[0], command)  # noqa: S606 - a command given by our own code, no shell wanted


if __name__ == "__main__":
    main(sys.argv[1:])
