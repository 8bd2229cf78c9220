"""The terminal's foreground process group: who gets Ctrl-C and Ctrl-Z.

Owns: taking the foreground for the demo alone and giving it back. A terminal sends SIGINT to every process of the
foreground group; under `make demo` that is make too, which ends by the signal and reports 130 however well the demo
stopped. So the demo makes a group of its own and takes the foreground, as a shell does for its jobs.

Invariants: the foreground is taken only from the group the demo was started in, never from a shell or another job;
nothing happens without a terminal, or when the demo leads its group already (then a shell started it directly).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


class Foreground:
    """Use it as a context manager, in the main thread."""

    def __init__(self) -> None:
        self._home = os.getpgrp()
        self._terminal: int | None = None

    def __enter__(self) -> Self:
        if self._home != os.getpid():
            with contextlib.suppress(OSError):  # no terminal: nobody presses Ctrl-C
                self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def take(self) -> None:
        """Take the foreground if the group we come from has it. Cheap: `fg` after `bg` shows in no other way."""
        if self._terminal is None or self._holder() != self._home:
            return
        with contextlib.suppress(OSError), _unstopped():  # the terminal was closed this moment
            os.setpgid(0, 0)
            os.tcsetpgrp(self._terminal, os.getpid())

    def suspend(self) -> None:
        """Do what Ctrl-Z would have done, to the group we come from as well; returns when it goes on."""
        shared = self._give_back()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if shared:  # the shell waits for the whole group to stop, and `fg` wakes the whole group
            os.killpg(self._home, signal.SIGTSTP)
        else:
            os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self.take()

    def _give_back(self) -> bool:
        """Back into the group we come from, with the foreground; whether we had left it."""
        if self._terminal is None or os.getpgrp() == self._home:
            return False
        with contextlib.suppress(OSError), _unstopped():  # the group, or the terminal, is gone: nobody to give it to
            if self._holder() == os.getpgrp():
                os.tcsetpgrp(self._terminal, self._home)
            os.setpgid(0, self._home)
        return os.getpgrp() == self._home

    def _holder(self) -> int:
        """The foreground group; 0 = there is none any more."""
        try:
            return os.tcgetpgrp(self._terminal) if self._terminal is not None else 0
        except OSError:
            return 0  # the terminal was closed


@contextlib.contextmanager
def _unstopped() -> Iterator[None]:
    """A background process that calls tcsetpgrp is stopped by SIGTTOU, unless it blocks the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
