"""How a process lives and ends: the event loop, the stop signals, the budget for stopping, the exit code.

Owns: SIGTERM and SIGINT, deadlines, the last words of a process that cannot go on.
Does not own: what is stopped in which order (each `service` does).

Invariants: the first signal asks, the second kills. A deadline never grows. Exit codes: what `main` returns,
2 = settings that cannot be used, 130 = Ctrl-C before there was anything to stop, 1 = anything else that was raised.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from shared import logs
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

EXIT_STOPPED: Final = 0
EXIT_CRASHED: Final = 1
EXIT_SETTINGS: Final = 2

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals(AbstractContextManager["StopSignals"]):
    """Within it the first SIGTERM or SIGINT sets `event`; a second one then ends the process at once.

    To be entered in a coroutine of the main thread. `received` is the first signal's name. As process 1 of a
    container the second signal has no effect (the kernel drops it): run with an init.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.received: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            self._before[number] = signal.getsignal(number)
            self._loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            if self.received is None:
                signal.signal(number, handler)  # type: ignore[arg-type] # what getsignal gave
            else:
                signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: signal.Signals) -> None:
        self.received = number.name
        for each in _SIGNALS:
            self._loop.remove_signal_handler(each)
            # Not Python's own for SIGINT: KeyboardInterrupt would wait for the tasks that hang.
            signal.signal(each, signal.SIG_DFL)
        self.event.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in time on a monotonic clock (seconds) that several awaits share."""

    at: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(at=clock() + seconds, clock=clock)

    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - self.clock())

    def timeout(self) -> asyncio.Timeout:
        """`async with deadline.timeout():` raises TimeoutError when it passes; at once when it has passed."""
        return asyncio.timeout(self.remaining())


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run `main` to its end on the fastest loop there is and give the exit code; the top of every process."""
    try:
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            return runner.run(_as_coroutine(main))
    except SettingsError as error:
        _tell("".join(f"{fault}\n" for fault in error.faults))
        return EXIT_SETTINGS
    except KeyboardInterrupt:  # before or after StopSignals: nothing to save
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 -- the top of the process
        logs.get_logger(__name__).critical("Crashed", exc_info=True)
        return EXIT_CRASHED
    finally:
        _let_go_of_stdout()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 -- not made for every platform: asyncio's own loop does the same, slower
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _as_coroutine(main: Callable[[], Awaitable[int]]) -> Coroutine[None, None, int]:
    async def awaited() -> int:
        return await main()

    return awaited()


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:  # nobody listens; the exit code says it too
        pass


def _let_go_of_stdout() -> None:
    """Flush; where that fails (closed pipe, full disk) point it at nothing, or the interpreter would exit with 120."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # only log lines are lost, and `logs` has said so on stderr
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # no file behind it: nothing left that could fail
            pass
