"""How requests to S3 and Kafka are repeated: tenacity is the one owner of retries and their delays.

Owns: the delay by class of failure, and repeating a request until it answers. Does not own: whether a chunk is put
again (`chain` says so, this module says when).

A retry ends by an answer or by the cancellation of its task (on revoke, stall and shutdown); never by a count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_fixed,
    wait_random,
    wait_random_exponential,
)

from consumer.ports import Failure, SourceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REFUSED_SECONDS: Final = 30.0  # a person has to change something first
MAX_BACKOFF_SECONDS: Final = 20.0

_REFUSED = wait_fixed(REFUSED_SECONDS) + wait_random(0, 1)
# Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
_PASSING = wait_random_exponential(multiplier=0.2, max=MAX_BACKOFF_SECONDS)

T = TypeVar("T")


def delay_seconds(failure: Failure, attempt: int) -> float:
    """How long to wait before attempt number `attempt` (from 1) after a failure of that class."""
    state = RetryCallState(_NO_RETRYING, None, (), {})
    state.attempt_number = max(1, attempt)
    return _wait(failure, state)


async def until_answered(
    ask: Callable[[], Awaitable[T]], *, on_failure: Callable[[StoreError | SourceError], None]
) -> T:
    """Ask until there is an answer, however long it takes. `on_failure` hears of each failure before the wait."""

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreError | SourceError):
            on_failure(error)

    async def asking() -> T:  # tenacity awaits only what it sees to be a coroutine function
        return await ask()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type((StoreError, SourceError)), wait=wait_by_class, before_sleep=tell, reraise=True
    )
    return await retrying(asking)


def wait_by_class(state: RetryCallState) -> float:
    """The `wait` of tenacity: the delay after the failure that `state` ended with. Kafka's all pass."""
    error = state.outcome.exception() if state.outcome else None
    return _wait(error.failure if isinstance(error, StoreError) else Failure.UNAVAILABLE, state)


def _wait(failure: Failure, state: RetryCallState) -> float:
    return _REFUSED(state) if failure is Failure.REFUSED else _PASSING(state)


_NO_RETRYING = AsyncRetrying()
