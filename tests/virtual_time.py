"""An event loop whose time is virtual: it jumps to the next timer when nothing is ready, so no test waits.

Owns: the loop's clock, the order and length of work in threads (drawn from the seed), and noticing that a program
waits for something that nobody will do. Does not own: I/O, of which there must be none.

Invariants: the same seed gives the same run, in another interpreter too: tasks are hashed by their number, not by
their address, so that a set of tasks has the same order everywhere. Work given to an executor is done on the loop's own
thread, when its virtual time is over, whether or not somebody still waits for it: as a real thread would.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import random
import selectors
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from concurrent.futures import Executor
    from typing import ParamSpec, TypeVarTuple, Unpack

    P = ParamSpec("P")
    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

START_SECONDS: Final = 1_000.0  # not 0: a clock that begins at 0 hides mistakes with falsy times
THREAD_SECONDS: Final = 0.002  # a piece of work lasts up to this


class NothingScheduledError(RuntimeError):
    """Everything waits, and no timer is set: in reality the program would hang for ever."""


class TooLateError(RuntimeError):
    """Virtual time has passed the limit: the program waits for what does not come."""


class NumberedTask(asyncio.Task[T]):
    """A task whose hash is its number, counted from the loop's beginning."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: VirtualTimeLoop, **options: Any) -> None:
        self.number = next(loop.task_numbers)  # first: the base class puts the task into a set
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class _JumpingSelector(selectors.BaseSelector):
    """Never waits: it moves the loop's clock instead."""

    def __init__(self) -> None:
        self.loop: VirtualTimeLoop | None = None
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready and self.loop is not None:
            self.loop.on_idle()
        return ready

    def register(self, fileobj: object, events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)  # type: ignore[arg-type]

    def unregister(self, fileobj: object) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)  # type: ignore[arg-type]

    def get_map(self) -> Mapping[object, selectors.SelectorKey]:  # type: ignore[override]
        return self._real.get_map()  # type: ignore[return-value]

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`random` is the run's only chance; tests may draw from it."""

    def __init__(self, *, seed: int = 0, limit_seconds: float = 1e6) -> None:
        self.random = random.Random(seed)
        self.task_numbers = itertools.count()
        self._now = START_SECONDS
        self._latest = START_SECONDS + limit_seconds
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self._clock_resolution = 0.0
        self.set_task_factory(_numbered_task)

    def time(self) -> float:
        return self._now

    def on_idle(self) -> None:
        """No I/O: when no callback is ready either, jump to the next timer."""
        if self._ready or self._stopping:  # type: ignore[attr-defined]
            return
        if not self._scheduled:  # type: ignore[attr-defined]
            msg = "nothing is ready and no timer is set: " + _waiting(self)
            raise NothingScheduledError(msg)
        # A hair beyond: asyncio calls what is due before now, and no timer may ring early where time stands still.
        self._now = max(self._now, math.nextafter(self._scheduled[0].when(), math.inf))  # type: ignore[attr-defined]
        if self._now > self._latest:
            self._latest = float("inf")  # the clean-up may take its time
            msg = f"virtual time is {self._now:.0f} s: " + _waiting(self)
            raise TooLateError(msg)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 -- handed to whoever waits
                if not future.done():
                    future.set_exception(error)
                return
            if not future.done():
                future.set_result(result)

        self.call_later(self.random.uniform(0, THREAD_SECONDS), work)
        return future


def _numbered_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
    assert isinstance(loop, VirtualTimeLoop)
    return NumberedTask(coro, loop=loop, **options)


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    return "; ".join(sorted(f"{task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks(loop)))


def run(
    main: Coroutine[object, object, T],
    *,
    seed: int = 0,
    limit_seconds: float = 1e6,
    loop_class: type[VirtualTimeLoop] = VirtualTimeLoop,
) -> T:
    """Run to the end in virtual time. `random`'s module functions (jitter) follow the seed too."""
    state = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(loop_factory=lambda: loop_class(seed=seed, limit_seconds=limit_seconds)) as runner:
            return runner.run(main)
    finally:
        random.setstate(state)


def virtual_time(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Decorator: an async test that runs in virtual time."""

    @functools.wraps(test)
    def synchronous(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return synchronous


async def until(condition: Callable[[], object], *, seconds: float = 600.0, what: str = "") -> None:
    """Let time pass until the condition holds; AssertionError when it does not within `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, f"not within {seconds:g} s: {what or condition}"
        await asyncio.sleep(0.01)


async def never(condition: Callable[[], object], *, seconds: float) -> None:
    """Let `seconds` pass, during which the condition must not hold."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        assert not condition()
        await asyncio.sleep(0.05)


async def hang(*_: object) -> None:
    """An answer that does not come."""
    await asyncio.sleep(1e5)


def after(seconds: float) -> Callable[..., Awaitable[None]]:
    """A latency, for the fakes."""

    async def wait(*_: object) -> None:
        await asyncio.sleep(seconds)

    return wait
