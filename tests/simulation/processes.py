"""Several processes on one loop of virtual time, each of which can be stopped as SIGSTOP and SIGKILL stop one.

Owns: which process a callback belongs to, and holding back the callbacks of one that is frozen: ready ones, timers,
answers that arrive, work in threads. Does not own: time (`virtual_time`), what the processes do.

A process is a name in the context; whatever is scheduled inherits it, as contexts are copied. Invariants: nothing of a
frozen process runs; time goes on for everybody, also on its clock; when it wakes, answers that came meanwhile are seen
before the timers that have run out, as by a loop that asks the selector first. A killed process never wakes; its
callbacks are only let go by `release`, when the simulated world is over and its tasks have to be cleared away.
"""

from __future__ import annotations

import asyncio
import heapq
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from tests.virtual_time import NumberedTask, VirtualTimeLoop

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

_NO_PROCESS = ""
_PROCESS: ContextVar[str] = ContextVar("process", default=_NO_PROCESS)


class _Task(NumberedTask[Any]):
    """A task that knows its process."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: ProcessLoop, context: Context | None = None, **options: Any
    ) -> None:
        self.process = (context or copy_context()).get(_PROCESS, _NO_PROCESS)
        super().__init__(coro, loop=loop, context=context, **options)


class ProcessLoop(VirtualTimeLoop):
    """A loop of virtual time that knows processes. Whatever has no process always runs."""

    def __init__(self, *, seed: int = 0, limit_seconds: float = 1e6) -> None:
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self._frozen_since: dict[str, float] = {}
        self._asleep_seconds: dict[str, float] = {}
        super().__init__(seed=seed, limit_seconds=limit_seconds)
        self.set_task_factory(_task)

    # ---- what happens to a process -----------------------------------------------------------------------------------

    def freeze(self, process: str) -> None:
        """SIGSTOP, or SIGKILL when it is never thawed."""
        self._frozen[process] = []
        self._frozen_since[process] = self.time()

    def thaw(self, process: str) -> None:
        """SIGCONT: what came, then what ran out, in order."""
        held_back = self._frozen.pop(process)
        since = self._frozen_since.pop(process)
        self._asleep_seconds[process] = self._asleep_seconds.get(process, 0.0) + self.time() - since
        held_back.sort(key=lambda handle: handle.when() if isinstance(handle, asyncio.TimerHandle) else 0.0)
        self._ready.extend(held_back)  # type: ignore[attr-defined]  # the base class's queue

    def release(self) -> None:
        """Let everything run again that is held back."""
        for process in list(self._frozen):
            self.thaw(process)

    def is_frozen(self, process: str) -> bool:
        return process in self._frozen

    def awake_seconds(self, process: str) -> float:
        """A clock that stands still while the process is frozen: what its deadlines are measured by."""
        now = self._frozen_since.get(process, self.time())
        return now - self._asleep_seconds.get(process, 0.0)

    def tasks_of(self, process: str) -> list[asyncio.Task[Any]]:
        """What it has begun and not ended, in order."""
        everybodys = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task)]
        everybodys.sort(key=lambda task: task.number)
        return [task for task in everybodys if task.process == process]

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """As asyncio does it, without I/O, and without what belongs to a frozen process."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # the base class's
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]  # as above
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]  # as above
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]  # as above
        self.on_idle()
        now = self.time()
        while scheduled and scheduled[0]._when < now:  # type: ignore[attr-defined]  # as above
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]  # as above
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled and not (self._frozen and self._holds_back(handle)):
                handle._run()

    def _holds_back(self, handle: asyncio.Handle) -> bool:
        """Whether the handle is not to run now; it is kept then."""
        waiting = self._frozen.get(handle._context.get(_PROCESS, _NO_PROCESS))  # type: ignore[attr-defined]
        if waiting is None:
            return False
        waiting.append(handle)
        return True


def _task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
    assert isinstance(loop, ProcessLoop)
    return _Task(coro, loop=loop, **options)


def context_of(process: str = _NO_PROCESS) -> Context:
    """A context to schedule work of that process in; without a name, of the world outside all of them."""
    context = copy_context()
    context.run(_PROCESS.set, process)
    return context


def current_process() -> str:
    """The process that is running, empty when none is."""
    return _PROCESS.get()
