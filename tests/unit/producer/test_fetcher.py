"""The fetcher against a server that misbehaves; real time, small deadlines."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Self

import pytest
import trustme

from producer.endpoint import build_endpoint, parse_auth, split_url
from producer.fetcher import Ask, Fetched, Fetcher, FetchError, open_client, proxy_secrets
from producer.pacing import RateLimit
from producer.redactor import Redactor
from producer.surroundings import Surroundings
from shared.settings import SettingsError
from tests.scripted_api import ScriptedApi, drip, gzipped, hang, http, reset, scripted_api
from tests.unit.producer.plans import plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx

    from producer.endpoint import Endpoint

KEY = "CANARY-Key/77"
LIMIT = 100_000


def surroundings(sleep: Callable[[float], Awaitable[None]] | None = None) -> Surroundings:
    """Real clocks; waits between attempts are as short as the jitter may make them."""
    return Surroundings(
        monotonic=time.monotonic,
        wall=time.time,
        sleep=asyncio.sleep if sleep is None else sleep,
        uniform=lambda: 0.0,
        pick=lambda _: 0,
    )


class Asker:
    """A fetcher with what it asks, and the client it asks with."""

    def __init__(self, fetcher: Fetcher, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        self.fetcher = fetcher
        self._client = client
        self._endpoint = endpoint

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def fetch(self, budget_seconds: float, **ask: Any) -> Fetched:
        return await self.fetcher.fetch(Ask(endpoint=self._endpoint, **ask), time.monotonic() + budget_seconds)

    async def fetch_once(self) -> Fetched:
        return await self.fetcher.fetch_once(Ask(endpoint=self._endpoint))


def fetcher(
    api: ScriptedApi,
    *,
    auth: str = "bearer",
    timeout_seconds: float = 5.0,
    world: Surroundings | None = None,
    limit: int = LIMIT,
    url: str | None = None,
    rate: RateLimit | None = None,
) -> Asker:
    endpoint = build_endpoint(split_url(url or api.url), parse_auth(auth), KEY)
    client = open_client(1)
    source = Fetcher(
        client,
        limit=rate,
        redactor=Redactor(endpoint.secrets),
        surroundings=world or surroundings(),
        plan=plan(
            timeout_seconds=timeout_seconds, max_body_bytes=limit, called={"max_body_bytes": "API_MAX_BODY_BYTES"}
        ),
    )
    return Asker(source, client, endpoint)


async def failure(api: ScriptedApi, budget_seconds: float = 5.0, **options: Any) -> FetchError:
    async with fetcher(api, **options) as source:
        with pytest.raises(FetchError) as caught:
            await source.fetch(budget_seconds)
    assert KEY not in str(caught.value)
    return caught.value


async def test_a_body_comes_as_it_is_plain_or_gzipped() -> None:
    async with scripted_api(http(b'[{"a":1}]'), gzipped(b'[{"a":2}]')) as api, fetcher(api) as source:
        first, second = await source.fetch(5), await source.fetch(5)
    assert (bytes(first.body or b""), bytes(second.body or b"")) == (b'[{"a":1}]', b'[{"a":2}]')
    assert api.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [("bearer", "authorization", f"Bearer {KEY}"), ("header:X-Api-Key", "x-api-key", KEY)],
)
async def test_the_key_goes_where_it_is_wanted(auth: str, name: str, value: str) -> None:
    async with scripted_api(http()) as api, fetcher(api, auth=auth) as source:
        await source.fetch(5)
    assert api.requests[0].headers[name] == value
    assert api.requests[0].target == "/quotes"


async def test_a_key_in_the_query_is_encoded_and_leaves_no_trace_elsewhere() -> None:
    async with scripted_api(http()) as api, fetcher(api, auth="query:apiKey") as source:
        await source.fetch(5)
    assert api.requests[0].target == "/quotes?apiKey=CANARY-Key%2F77"
    assert not any("CANARY" in value for value in api.requests[0].headers.values())


@pytest.mark.parametrize("fault", [http(status="500 Oops"), http(status="408 Slow"), http(status="425 Early"), reset])
async def test_a_fault_that_passes_is_retried_within_the_tick(
    fault: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with scripted_api(fault, fault, http(b"[1]")) as api, fetcher(api) as source:
        assert bytes((await source.fetch(5)).body or b"") == b"[1]"
    assert len(api.requests) == 3


async def test_a_body_cut_short_is_retried() -> None:
    async with scripted_api(http(b"[1", length=50), http(b"[1]")) as api, fetcher(api) as source:
        assert bytes((await source.fetch(5)).body or b"") == b"[1]"
    assert len(api.requests) == 2


async def test_a_fault_that_lasts_ends_with_the_budget_and_says_the_last_one() -> None:
    async with scripted_api(http(b"broken", status="502 Bad Gateway")) as api:
        world = Surroundings(
            monotonic=time.monotonic, wall=time.time, sleep=asyncio.sleep, uniform=lambda: 0.2, pick=lambda _: 0
        )
        began = time.monotonic()
        error = await failure(api, budget_seconds=0.7, world=world)
    assert time.monotonic() - began < 0.8
    assert len(api.requests) >= 2
    assert (error.outcome, error.reason) == ("unreachable", "HTTP 502; it sent: broken")


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 No", "404 Gone", "410 Gone"])
async def test_other_client_errors_are_not_retried(status: str) -> None:
    async with scripted_api(http(b'{"error":"bad key CANARY-Key/77"}', status=status)) as api:
        error = await failure(api)
    assert len(api.requests) == 1
    assert error.outcome == "refused"
    assert error.reason.startswith(f"HTTP {status[:3]}")
    assert "bad key ***" in error.reason


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        ("429 Too Many", "Retry-After: 7", 7.0),
        ("429 Too Many", "X: y", 60.0),
        ("429 Too Many", "Retry-After: 99999999", 900.0),
        ("503 Unavailable", "Retry-After: 7", 7.0),
        ("503 Unavailable", "date", 30.0),
    ],
)
async def test_told_to_wait_it_does_not_ask_again(status: str, header: str, expected: float) -> None:
    if header == "date":
        header = f"Retry-After: {formatdate(time.time() + 30, usegmt=True)}"
    async with scripted_api(http(b"slow down", status=status, headers=[header])) as api:
        error = await failure(api)
    assert len(api.requests) == 1
    assert error.outcome == "throttled"
    assert expected - 2 <= error.wait_seconds <= expected


async def test_a_long_error_page_is_quoted_by_its_beginning_gzipped_or_not() -> None:
    page = b"<html>You are not entitled to this data." + b"<br>" * 5000
    async with scripted_api(gzipped(page, status="403 Forbidden"), http(page, status="403 Forbidden")) as api:
        for _ in range(2):
            async with fetcher(api) as source:
                with pytest.raises(FetchError, match=r"it sent: <html>You are not entitled to this data.<br>"):
                    await source.fetch(5)


async def test_a_429_whose_body_never_ends_is_still_a_429() -> None:
    async def dangle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Too Many\r\nRetry-After: 9\r\nContent-Length: 10\r\n\r\n")
        await writer.drain()
        await hang(writer)

    async with scripted_api(dangle) as api:
        error = await failure(api, timeout_seconds=0.5)
    assert (error.outcome, error.wait_seconds) == ("throttled", 9.0)


async def test_a_redirect_is_not_followed_and_names_the_other_host() -> None:
    location = "Location: https://evil.example/x?apiKey=CANARY-Key%2F77"
    async with scripted_api(http(status="302 Found", headers=[location])) as api:
        error = await failure(api)
    assert len(api.requests) == 1
    assert "evil.example" in error.reason
    assert "apiKey" not in error.reason


@pytest.mark.parametrize("bomb", [bytes(64 << 20), b"[" + b"{}," * 5_000_000 + b"{}]", gzip.compress(bytes(1 << 20))])
async def test_a_bomb_is_refused_at_the_cap(bomb: bytes) -> None:
    wire = http(gzip.compress(bomb, 1), headers=["Content-Encoding: gzip"])
    async with scripted_api(wire) as api:
        error = await failure(api, limit=1000)
    assert error.outcome == "unusable"
    assert "API_MAX_BODY_BYTES (1000)" in error.reason
    assert len(api.requests) == 1


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
async def test_a_coding_that_was_not_offered_is_refused(coding: str) -> None:
    async with scripted_api(http(b"x", headers=[f"Content-Encoding: {coding}"])) as api:
        error = await failure(api)
    assert "only gzip is" in error.reason
    assert coding in error.reason


async def test_a_drip_ends_with_the_attempts_deadline() -> None:
    async with scripted_api(drip(b"[1,2,3]", every_seconds=0.05)) as api:
        began = time.monotonic()
        error = await failure(api, budget_seconds=0.4, timeout_seconds=0.3)
    assert time.monotonic() - began < 2.0  # the whole drip takes more than three
    assert error.outcome == "unreachable"
    assert "no complete answer within" in error.reason


async def test_a_server_that_hangs_costs_one_attempt_and_the_next_works() -> None:
    async with scripted_api(hang, http(b"[]")) as api, fetcher(api, timeout_seconds=0.2) as source:
        assert bytes((await source.fetch(5)).body or b"") == b"[]"


async def test_an_attempt_that_the_budget_cuts_short_does_not_hide_why_the_one_before_failed() -> None:
    async with scripted_api(http(b"broken", status="502 Bad Gateway"), hang) as api:
        error = await failure(api, budget_seconds=1.0)
    assert (error.outcome, error.reason) == ("unreachable", "HTTP 502; it sent: broken")
    assert len(api.requests) == 2


async def test_a_broken_tls_record_in_mid_body_is_a_fault_that_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(b"[1]", length=100 if served == 1 else None))
        await writer.drain()
        if served == 1:
            beneath = writer.transport._ssl_protocol._transport  # type: ignore[attr-defined]
            beneath.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server, scripted_api() as api:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/quotes"
        async with fetcher(api, url=url) as source:
            assert bytes((await source.fetch(5)).body or b"") == b"[1]"
    assert served == 2


async def test_nobody_listening_is_said() -> None:
    async with scripted_api(http()) as api:
        pass
    error = await failure(api, budget_seconds=0.2)
    assert error.outcome == "unreachable"
    assert "ConnectError" in error.reason
    assert error.reason.endswith("; is it up? check url and HTTP_PROXY, HTTPS_PROXY, NO_PROXY")


async def test_a_host_name_that_no_resolver_takes_is_said() -> None:
    async with scripted_api(http()) as api:
        error = await failure(api, url="http://xn--a/quotes")
    assert (error.outcome, error.reason) == ("refused", "it cannot be asked; set url to the address of the API")


async def test_a_certificate_that_is_not_trusted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server, scripted_api() as api:
        error = await failure(api, 0.4, url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert error.reason.endswith("; its certificate is not trusted: name the authority's in SSL_CERT_FILE")


async def test_no_content_is_no_body() -> None:
    answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    async with scripted_api(answer) as api, fetcher(api) as source:
        assert (await source.fetch(5)).body is None


async def test_cancelling_ends_a_backoff_at_once() -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with scripted_api(http(status="500 Oops")) as api, fetcher(api, world=surroundings(sleep)) as source:
        task = asyncio.create_task(source.fetch(60))
        await asyncio.wait_for(waiting.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)


async def test_check_asks_once_only() -> None:
    async with scripted_api(http(status="500 Oops")) as api, fetcher(api) as source:
        with pytest.raises(FetchError):
            await source.fetch_once()
    assert len(api.requests) == 1


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_api(http(b'[{"a":1}]')) as proxy:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with fetcher(proxy, url="http://api.invalid/quotes") as source:
            fetched = await source.fetch(5)
    assert bytes(fetched.body or b"") == b'[{"a":1}]'
    assert proxy.requests[0].target == "http://api.invalid/quotes"


@pytest.mark.parametrize(
    ("name", "value"), [("HTTPS_PROXY", "ftp://u:CANARY@proxy:1"), ("SSL_CERT_FILE", "/CANARY/there.pem")]
)
async def test_a_proxy_or_ca_variable_that_cannot_be_used_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        open_client(1)
    assert name in str(caught.value)
    assert "; allowed: " in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_the_proxies_credentials_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me%21:pass-word@proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "http://[broken")
    assert set(proxy_secrets()) == {"me!:pass-word", "me!", "pass-word"}


async def test_validators_are_sent_and_a_304_is_nothing_new() -> None:
    answer = http(b"[]", headers=['ETag: "v1"', "Last-Modified: Wed, 25 Nov 2026 10:00:00 GMT"])
    unchanged = b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"
    async with scripted_api(answer, unchanged) as api, fetcher(api) as source:
        first = await source.fetch(5)
        second = await source.fetch(5, validators=first.validators)
    assert (first.unchanged, second.unchanged, second.body) == (False, True, None)
    assert "if-none-match" not in api.requests[0].headers
    assert api.requests[1].headers["if-none-match"] == '"v1"'
    assert api.requests[1].headers["if-modified-since"] == "Wed, 25 Nov 2026 10:00:00 GMT"


async def test_a_304_that_nobody_asked_for_is_refused() -> None:
    async with scripted_api(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n") as api:
        error = await failure(api)
    assert (error.outcome, error.reason) == ("refused", "HTTP 304: not modified, which nobody asked")
    assert len(api.requests) == 1


async def test_the_pages_of_a_poll_share_the_cap() -> None:
    async with scripted_api(http(b'["0123456789"]')) as api, fetcher(api, limit=20) as source:
        assert len((await source.fetch(5, taken_bytes=6)).body or b"") == 14
        with pytest.raises(FetchError, match=r"larger than API_MAX_BODY_BYTES \(20\)"):
            await source.fetch(5, taken_bytes=7)


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.surroundings = Surroundings(
            monotonic=lambda: self.now, wall=time.time, sleep=self.sleep, uniform=lambda: 0.0, pick=lambda _: 0
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_retries_and_pages_wait_for_their_turn_under_the_rate_limit() -> None:
    clock = Clock()
    async with (
        scripted_api(http(status="500 Oops"), http(b"[1]")) as api,
        fetcher(api, world=clock.surroundings, rate=RateLimit(6)) as source,
    ):
        ask = Ask(endpoint=source._endpoint)
        await source.fetcher.fetch(ask, clock.now + 60)
        assert sum(clock.slept) >= 10.0
        await source.fetcher.fetch(ask, clock.now + 60)
    assert len(api.requests) == 3
    assert sum(clock.slept) >= 20.0


async def test_a_poll_whose_time_the_rate_limit_does_not_leave_fails_without_asking() -> None:
    clock = Clock()
    async with (
        scripted_api(http(b"[1]")) as api,
        fetcher(api, world=clock.surroundings, rate=RateLimit(1)) as source,
    ):
        ask = Ask(endpoint=source._endpoint)
        await source.fetcher.fetch(ask, clock.now + 5)
        with pytest.raises(
            FetchError, match=r"the rate limit allows the next request in 6[01] s.*give it more by interval_seconds"
        ) as caught:
            await source.fetcher.fetch(ask, clock.now + 5)
    assert caught.value.outcome == "throttled"
    assert len(api.requests) == 1


async def test_a_poll_without_time_left_asks_nothing() -> None:
    async with scripted_api(http()) as api, fetcher(api) as source:
        with pytest.raises(FetchError, match=r"^no time is left within this poll$"):
            await source.fetch(-0.1)
    assert api.requests == []


async def test_what_is_to_be_checked_is_called_as_the_user_does() -> None:
    async with scripted_api(http(status="401 No")) as api, fetcher(api) as source:
        called = {"key_variable": "key_variable of endpoint 'a'", "auth": "auth of endpoint 'a'"}
        source.fetcher._plan = replace(source.fetcher._plan, called=called)
        with pytest.raises(
            FetchError, match=r"check key_variable of endpoint 'a', auth of endpoint 'a' and what the plan"
        ):
            await source.fetch(5)


async def test_no_cookie_of_a_server_is_kept() -> None:
    cookie = ["Set-Cookie: session=abc"]
    async with (
        scripted_api(http(b"[1]", headers=cookie), http(status="404 No", headers=cookie), http()) as api,
        fetcher(api) as source,
    ):
        await source.fetch(5)
        with pytest.raises(FetchError):
            await source.fetch(5)
        await source.fetch(5)
    assert [request.headers.get("cookie") for request in api.requests] == [None, None, None]
