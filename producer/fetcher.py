"""Gets one body from the API within a tick's budget.

Owns: the HTTP client, the deadline of an attempt, the one retry layer. Does not own: what an answer means (`answer`),
the body's coding (`inflater`) and contents (`parser`), when the next tick is (`poller`).

Invariants: no request outlives its attempt's deadline, no attempt the tick's budget; redirects are never followed, so
no header reaches another host; no text it raises holds a secret; never more than the cap is decoded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from producer import pacing
from producer.answer import Use, Verdict, judge
from producer.inflater import Inflater
from producer.parser import ApiError, BodyError
from shared import logs
from shared.settings import SettingsError

if TYPE_CHECKING:
    from types import TracebackType

    from producer.endpoint import Endpoint
    from producer.redactor import Redactor
    from producer.surroundings import Surroundings

log = logs.get_logger(__name__)

_LEAST_ATTEMPT_SECONDS = 0.5
_BEGINNING_BYTES = 4096
_BEGINNING_SECONDS = 0.2


class FetchError(Exception):
    """The tick has failed. `outcome` is its metric's label; `wait_seconds`: no request before they are over."""

    def __init__(self, outcome: str, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.wait_seconds = wait_seconds


class _RetryableError(FetchError):
    """May go away: worth another attempt within the tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A body and when its last byte arrived, on both clocks (seconds). No body at all came with a 204."""

    body: bytearray | None
    arrived_wall: float
    arrived_monotonic: float


class Fetcher:
    """Asks one endpoint. To be used as an async context manager: it holds the connections."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        redactor: Redactor,
        surroundings: Surroundings,
        timeout_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self._endpoint = endpoint
        self._redactor = redactor
        self._surroundings = surroundings
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._client = _client(timeout_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(self, budget_seconds: float) -> Fetched:
        """The body, after as many attempts as the budget allows. Raises FetchError with the last failure's reason."""
        end = self._surroundings.monotonic() + budget_seconds

        def wait(state: RetryCallState) -> float:
            return pacing.backoff(state.attempt_number, self._surroundings.uniform())

        def stop(state: RetryCallState) -> bool:
            # An attempt cut short by the budget would fail as "no answer" and hide why the one before it failed.
            least = min(_LEAST_ATTEMPT_SECONDS, self._timeout_seconds / 4)
            return self._surroundings.monotonic() + state.upcoming_sleep + least >= end

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_RetryableError),
            wait=wait,
            stop=stop,
            sleep=self._surroundings.sleep,
            before_sleep=_log_retry,
            reraise=True,
        )
        fetched: Fetched = await retrying(self._attempt, end)
        return fetched

    async def fetch_once(self) -> Fetched:
        """One attempt, for `check`. Raises FetchError."""
        return await self._attempt(self._surroundings.monotonic() + self._timeout_seconds)

    def unusable(self, error: BodyError) -> FetchError:
        """A body's fault as the tick's, with the masked beginning of what the API sent."""
        outcome = "api_error" if isinstance(error, ApiError) else "unusable"
        excerpt = self._redactor.excerpt(error.quoted)
        return FetchError(outcome, f"{error.reason}; it sent: {excerpt}" if excerpt else error.reason)

    async def _attempt(self, end: float) -> Fetched:
        seconds = min(self._timeout_seconds, end - self._surroundings.monotonic())
        try:
            async with asyncio.timeout(seconds):
                return await self._request(self._surroundings.monotonic() + seconds)
        except TimeoutError as error:
            reason = f"no complete answer within {max(seconds, 0.0):.3g} s"
            raise _RetryableError("unreachable", reason) from error
        except httpx.InvalidURL as error:  # a host name that no resolver takes
            reason = "API_URL cannot be asked; set it to the address of the API"
            raise FetchError("refused", reason) from error
        except httpx.TransportError as error:
            raise _RetryableError("unreachable", self._say(error)) from error
        except BodyError as error:
            raise self.unusable(error) from error

    async def _request(self, end: float) -> Fetched:
        async with self._client.stream("GET", self._endpoint.url, headers=dict(self._endpoint.headers)) as response:
            verdict = judge(response.status_code, response.headers, self._surroundings.wall())
            if verdict.use not in {Use.READ, Use.EMPTY}:
                raise self._failure(verdict, await self._beginning(response, end))
            body = None if verdict.use is Use.EMPTY else await self._body(response)
        return Fetched(
            body=body,
            arrived_wall=self._surroundings.wall(),
            arrived_monotonic=self._surroundings.monotonic(),
        )

    async def _body(self, response: httpx.Response) -> bytearray:
        inflater = Inflater(response.headers.get("content-encoding", ""), self._max_body_bytes)
        async for chunk in response.aiter_raw():
            inflater.feed(chunk)
        return inflater.finish()

    async def _beginning(self, response: httpx.Response, end: float) -> bytearray:
        """How an error's body begins, for the message. It ends before the attempt does and whatever goes wrong here
        is dropped: the status has been read and must not be lost (a 429 that drips would be asked again).
        """
        seconds = min(_BEGINNING_SECONDS, end - self._surroundings.monotonic() - _BEGINNING_SECONDS / 2)
        try:
            inflater = Inflater(response.headers.get("content-encoding", ""), _BEGINNING_BYTES)
            async with asyncio.timeout(seconds):
                async for chunk in response.aiter_raw():
                    inflater.feed(chunk[:_BEGINNING_BYTES])
                    break
            return inflater.beginning()
        except (TimeoutError, httpx.TransportError, BodyError):
            return bytearray()

    def _failure(self, verdict: Verdict, beginning: bytearray) -> FetchError:
        excerpt = self._redactor.excerpt(beginning)
        reason = self._redactor.mask(verdict.reason) + (f"; it sent: {excerpt}" if excerpt else "")
        if verdict.use is Use.RETRY:
            return _RetryableError("unreachable", reason)
        if verdict.use is Use.WAIT:
            return FetchError("throttled", reason, verdict.wait_seconds)
        return FetchError("refused", reason)

    def _say(self, error: Exception) -> str:
        return self._redactor.mask(f"{type(error).__name__}: {error}".rstrip(": "))


def _client(timeout_seconds: float) -> httpx.AsyncClient:
    """The client, with the proxy and CA variables of the environment. SettingsError when these cannot be used."""
    try:
        return httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_seconds),
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
        )
    except (ValueError, OSError, ImportError):
        fault = (
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR: one of these cannot be used, "
            "values not shown; allowed: proxies as http://HOST:PORT, certificate files that can be read"
        )
        raise SettingsError([fault]) from None  # the cause would quote a proxy's credentials


def _log_retry(state: RetryCallState) -> None:
    outcome = state.outcome
    reason = str(outcome.exception()) if outcome is not None else ""
    log.info("Request retried", attempt=state.attempt_number, seconds=round(state.upcoming_sleep, 3), reason=reason)
