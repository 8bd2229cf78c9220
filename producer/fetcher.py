"""Gets one body from the API within a tick's budget.

Owns: the HTTP client, the deadline of an attempt, the one retry layer. Does not own: what an answer means (`answer`),
the body's coding (`inflater`) and contents (`parser`), the rule of the rate limit (`pacing`), when the next tick is
(`poller`).

Invariants: no request outlives its attempt's deadline, no attempt the tick's budget; none is sent before the rate limit
allows it; redirects are never followed, so no header reaches another host; no text it raises holds a secret; never more
than the cap is decoded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from producer import pacing
from producer.answer import Use, Verdict, judge, validators
from producer.inflater import Inflater
from producer.parser import ApiError, BodyError
from shared import logs
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from producer.endpoint import Endpoint
    from producer.pacing import RateLimit
    from producer.plan import Plan
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
    """May go away: worth another attempt within the tick. `cut_short`, by the tick's budget, it tells nothing new."""

    def __init__(self, outcome: str, reason: str, *, cut_short: bool = False) -> None:
        super().__init__(outcome, reason)
        self.cut_short = cut_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request: to whom, with which validators (request headers) of an earlier answer, for how many bytes at most.

    `taken_bytes` of the cap are in use already, by the pages before this one.
    """

    endpoint: Endpoint
    validators: Mapping[str, str] = field(default_factory=dict)
    taken_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A body and when its last byte arrived, on both clocks (seconds). No body at all came with a 204 or a 304.

    `unchanged`: it was a 304; `validators`: for asking for this answer's successor only.
    """

    body: bytearray | None
    arrived_wall: float
    arrived_monotonic: float
    unchanged: bool = False
    validators: Mapping[str, str] = field(default_factory=dict)


def open_client(endpoints: int) -> httpx.AsyncClient:
    """The process's one HTTP client, with the proxy and CA variables of the environment; to be closed by the caller.

    Raises SettingsError when these variables cannot be used.
    """
    try:
        return httpx.AsyncClient(
            follow_redirects=False,
            timeout=None,  # noqa: S113 -- each attempt has a deadline for the whole of it
            limits=httpx.Limits(max_connections=2 * endpoints, max_keepalive_connections=endpoints),
        )
    except (ValueError, OSError, ImportError, httpx.InvalidURL):
        fault = (
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR: one of these cannot be used, "
            "values not shown; allowed: proxies as http://HOST:PORT, certificate files that can be read"
        )
        raise SettingsError([fault]) from None  # the cause would quote a proxy's credentials


def proxy_secrets() -> tuple[str, ...]:
    """User names and passwords of the environment's proxies, which may quote them in their answers."""
    found: list[str] = []
    for proxy in getproxies().values():
        try:
            parts = urlsplit(proxy)
        except ValueError:
            continue  # `open_client` refuses it
        user_info = parts.netloc.rpartition("@")[0]
        found += [unquote(part) for part in (user_info, *user_info.split(":", 1)) if part]
    return tuple(found)


class Fetcher:
    """Asks one endpoint, one request at a time."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        limit: RateLimit | None,
        redactor: Redactor,
        surroundings: Surroundings,
        plan: Plan,
    ) -> None:
        self._client = client
        self._limit = limit
        self._redactor = redactor
        self._surroundings = surroundings
        self._plan = plan
        self._timeout_seconds = plan.timeout_seconds

    async def fetch(self, ask: Ask, end: float) -> Fetched:
        """The answer, after as many attempts as fit in before `end` on the monotonic clock.

        Raises FetchError with the last failure's reason, but for an attempt that the budget cut short.
        """
        earlier: list[FetchError] = []

        async def attempt() -> Fetched:
            try:
                return await self._attempt(ask, end)
            except _RetryableError as error:
                if error.cut_short and earlier:
                    raise earlier[-1] from error
                earlier.append(error)
                raise

        def wait(state: RetryCallState) -> float:
            return max(pacing.backoff(state.attempt_number, self._surroundings.uniform()), self._turn_seconds())

        def stop(state: RetryCallState) -> bool:
            return self._surroundings.monotonic() + state.upcoming_sleep + self._least_seconds >= end

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_RetryableError),
            wait=wait,
            stop=stop,
            sleep=self._surroundings.sleep,
            before_sleep=_log_retry,
            reraise=True,
        )
        fetched: Fetched = await retrying(attempt)
        return fetched

    async def fetch_once(self, ask: Ask) -> Fetched:
        """One attempt, for `check`. Raises FetchError."""
        return await self._attempt(ask, self._surroundings.monotonic() + self._timeout_seconds)

    def unusable(self, error: BodyError) -> FetchError:
        """A body's fault as the tick's, with the masked beginning of what the API sent."""
        outcome = "api_error" if isinstance(error, ApiError) else "unusable"
        excerpt = self._redactor.excerpt(error.quoted)
        return FetchError(outcome, self._redactor.mask(error.reason) + (f"; it sent: {excerpt}" if excerpt else ""))

    @property
    def _least_seconds(self) -> float:
        """An attempt cut shorter by the budget would fail as "no answer" and hide why the one before it failed."""
        return min(_LEAST_ATTEMPT_SECONDS, self._timeout_seconds / 4)

    def _turn_seconds(self) -> float:
        return 0.0 if self._limit is None else self._limit.wait_seconds(self._surroundings.monotonic())

    async def _wait_for_turn(self, end: float) -> None:
        """Until the rate limit allows a request. FetchError, at once, when it would leave no time for one."""
        while (seconds := self._turn_seconds()) > 0:
            if self._surroundings.monotonic() + seconds + self._least_seconds >= end:
                longer = f"{self._plan.setting('interval_seconds')} or {self._plan.setting('timeout_seconds')}"
                reason = (
                    f"the rate limit allows the next request in {seconds:.0f} s, which is beyond this poll's time; "
                    f"if this lasts, give it more by {longer}"
                )
                raise FetchError("throttled", reason)
            await self._surroundings.sleep(seconds)

    async def _attempt(self, ask: Ask, end: float) -> Fetched:
        await self._wait_for_turn(end)
        seconds = min(self._timeout_seconds, end - self._surroundings.monotonic())
        if seconds <= 0:  # taking the page before apart took the rest
            raise FetchError("unreachable", "no time is left within this poll")
        if self._limit is not None:
            self._limit.started(self._surroundings.monotonic())
        try:
            async with asyncio.timeout(seconds):
                return await self._request(ask, self._surroundings.monotonic() + seconds)
        except TimeoutError as error:
            reason = f"no complete answer within {seconds:.3g} s"
            raise _RetryableError("unreachable", reason, cut_short=seconds < self._timeout_seconds) from error
        except (httpx.InvalidURL, UnicodeError) as error:  # a host name that no resolver takes
            reason = f"it cannot be asked; set {self._plan.setting('url')} to the address of the API"
            raise FetchError("refused", reason) from error
        except (httpx.TransportError, OSError) as error:  # a TLS error behind the handshake comes as it is
            raise _RetryableError("unreachable", self._say(error)) from error
        except BodyError as error:
            raise self.unusable(error) from error
        finally:
            self._settled()

    def _settled(self) -> None:
        """From now on the request cannot arrive any more: it has, or it has failed."""
        self._client.cookies.clear()  # we have no sessions; a jar that a server fills has no bound
        if self._limit is not None:
            self._limit.settled(self._surroundings.monotonic())

    async def _request(self, ask: Ask, end: float) -> Fetched:
        headers = {**ask.endpoint.headers, **ask.validators}
        async with self._client.stream("GET", ask.endpoint.url, headers=headers) as response:
            self._settled()
            wall = self._surroundings.wall()
            verdict = judge(
                response.status_code, response.headers, wall, validated=bool(ask.validators), called=self._plan.called
            )
            if verdict.use not in {Use.READ, Use.EMPTY, Use.UNCHANGED}:
                raise self._failure(verdict, await self._beginning(response, end))
            body = await self._body(response, ask.taken_bytes) if verdict.use is Use.READ else None
        return Fetched(
            body=body,
            arrived_wall=self._surroundings.wall(),
            arrived_monotonic=self._surroundings.monotonic(),
            unchanged=verdict.use is Use.UNCHANGED,
            validators=validators(response.headers),
        )

    async def _body(self, response: httpx.Response, taken_bytes: int) -> bytearray:
        coding, plan = response.headers.get("content-encoding", ""), self._plan
        inflater = Inflater(coding, plan.max_body_bytes, taken_bytes, plan.setting("max_body_bytes"))
        async for chunk in response.aiter_raw():
            inflater.feed(chunk)
        return inflater.finish()

    async def _beginning(self, response: httpx.Response, end: float) -> bytes:
        """How an error's body begins, for the message. It ends before the attempt does and whatever goes wrong here
        is dropped: the status has been read and must not be lost (a 429 that drips would be asked again).
        """
        seconds = min(_BEGINNING_SECONDS, end - self._surroundings.monotonic() - _BEGINNING_SECONDS / 2)
        try:
            inflater = Inflater(response.headers.get("content-encoding", ""), _BEGINNING_BYTES)
            async with asyncio.timeout(seconds):
                async for chunk in response.aiter_raw():
                    return inflater.beginning(chunk)
        except (httpx.TransportError, OSError, BodyError):
            pass  # it is only quoted
        return b""

    def _failure(self, verdict: Verdict, beginning: bytes) -> FetchError:
        excerpt = self._redactor.excerpt(beginning)
        reason = self._redactor.mask(verdict.reason) + (f"; it sent: {excerpt}" if excerpt else "")
        if verdict.use is Use.RETRY:
            return _RetryableError("unreachable", reason)
        if verdict.use is Use.WAIT:
            return FetchError("throttled", reason, verdict.wait_seconds)
        return FetchError("refused", reason)

    def _say(self, error: Exception) -> str:
        # What is no HTTP, h11 quotes whole and escaped: 90 kB of it, or a key in a spelling that no mask knows.
        said = str(error).partition("bytearray(")[0]
        text = self._redactor.excerpt(f"{type(error).__name__}: {said}".rstrip(": ").encode())
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return f"{text}; its certificate is not trusted: name the authority's in SSL_CERT_FILE"
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return f"{text}; is it up? check {self._plan.setting('url')} and HTTP_PROXY, HTTPS_PROXY, NO_PROXY"
        return text


def _log_retry(state: RetryCallState) -> None:
    outcome = state.outcome
    reason = str(outcome.exception()) if outcome is not None else ""
    log.debug("Request retried", attempt=state.attempt_number, seconds=round(state.upcoming_sleep, 3), reason=reason)
