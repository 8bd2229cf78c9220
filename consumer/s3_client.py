"""The S3 client behind the store: how it is configured, opened and renewed, and what its exceptions mean.

Owns: every setting of the SDK, the client's life, the translation of the SDK's exceptions. Does not own: the requests
(`store`), the meaning of S3's error answers (`diagnosis`).
Invariants: the SDK never retries; it is told the region and never guesses the addressing style; a client whose
credentials failed is replaced (at most every RENEWAL_SECONDS), because the SDK reads environment, files and
metadata services once, when a client is made; a replaced client closes when its last request has ended.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from consumer.diagnosis import ErrorAnswer, Place, diagnose, not_s3, shorten
from consumer.ports import Failure, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

USER_AGENT = "ticklake"
CONNECT_TIMEOUT_SECONDS = 10
RENEWAL_SECONDS = 30.0
# Heads, listings and readings go beside the puts.
SPARE_CONNECTIONS = 8
# A body up to this size fits the socket's buffers, so a refusal that comes early is still read. Larger ones ask first
# (Expect: 100-continue): a store that refuses closes the connection, and the reason would be lost with it.
EXPECT_BYTES = 1 << 16

Answer: TypeAlias = "Mapping[str, object]"


class S3Client(Protocol):
    """The few calls of the client that are used here; aiobotocore has no types."""

    async def put_object(self, **parameters: object) -> Answer: ...
    async def head_object(self, **parameters: object) -> Answer: ...
    async def get_object(self, **parameters: object) -> Answer: ...
    async def list_objects_v2(self, **parameters: object) -> Answer: ...


class _Events(Protocol):
    def register(self, name: str, handler: Callable[..., None]) -> None: ...


class _ContextParameter(Protocol):
    @property
    def name(self) -> str: ...


class _OperationModel(Protocol):
    @property
    def context_parameters(self) -> list[_ContextParameter]: ...


class _ServiceModel(Protocol):
    def operation_model(self, operation_name: str) -> _OperationModel: ...


class _Meta(Protocol):
    @property
    def events(self) -> _Events: ...
    @property
    def region_name(self) -> str: ...
    @property
    def service_model(self) -> _ServiceModel: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Where the store is. None = what the SDK finds by itself (profile, AWS_ENDPOINT_URL_S3 excepted: give it)."""

    region: str | None
    endpoint_url: str | None
    concurrency: int
    timeout_seconds: float


# Everything the client is known to raise: its own, aiohttp's where aiobotocore lets it through (a body that breaks
# off while it is read), and our own deadline.
CLIENT_ERRORS = (
    boto.BotoCoreError,
    boto.ClientError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,  # TimeoutError is one
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.RefreshWithMFAUnsupportedError,
    boto.UnknownCredentialError,
)
_BROKEN = (
    boto.HTTPClientError,  # ConnectionClosedError, ReadTimeoutError, ResponseStreamingError
    boto.ConnectionError,  # EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError
    boto.IncompleteReadError,
    boto.ChecksumError,
    aiohttp.ClientError,
    OSError,
)


def error_answer(error: Exception) -> ErrorAnswer | None:
    """The answer in a ClientError; None for any other exception: there was no answer."""
    if not isinstance(error, boto.ClientError):
        return None
    fault = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    return ErrorAnswer(
        operation=str(error.operation_name),
        status=int(metadata.get("HTTPStatusCode", 0)),
        code=str(fault.get("Code", "")),
        message=str(fault.get("Message", "")),
        server_region=fault.get("Region") or headers.get("x-amz-bucket-region"),
    )


def classify(error: Exception, operation: str, place: Place) -> StoreError:
    """The StoreError that says what `error`, met by `operation` at `place`, means. Pure."""
    answer = error_answer(error)
    if answer is not None:
        return diagnose(answer, place)
    if isinstance(error, ResponseParserError):
        return not_s3(operation, place)
    failure, advice = _sort_exception(error)
    return StoreError(failure, f"{operation} {place}: {_what_happened(error)}; {advice}")


def _what_happened(error: Exception) -> str:
    """The SDK says "could not connect" of a broken connection too; the error it wraps is more exact."""
    if type(error) is TimeoutError:
        return "no answer within the deadline of one attempt"
    inner = error.kwargs.get("error") if isinstance(error, boto.BotoCoreError) else None
    return shorten(str(inner or "") or str(error)) or type(inner or error).__name__


def _sort_exception(error: Exception) -> tuple[Failure, str]:
    if isinstance(error, _NO_CREDENTIALS):
        return Failure.CREDENTIALS, "supply or renew the credentials (environment, profile, role)"
    if isinstance(error, boto.SSLError):
        return Failure.REFUSED, "check AWS_ENDPOINT_URL_S3 and AWS_CA_BUNDLE"
    if type(error) is TimeoutError:
        return Failure.UNAVAILABLE, "the store or the way to it is slow (UPLOAD_TIMEOUT_SECONDS)"
    if isinstance(error, _BROKEN):
        return (
            Failure.UNAVAILABLE,
            "the store cannot be reached or the connection broke: check AWS_ENDPOINT_URL_S3 and the network",
        )
    return Failure.REFUSED, "check the S3_ and AWS_ settings"


@asynccontextmanager
async def open_client(options: ClientOptions) -> AsyncIterator[S3Client]:
    """One client with credentials as they are found now. Raises CLIENT_ERRORS."""
    session = aioboto3.Session(region_name=options.region)
    secure = options.endpoint_url is None or options.endpoint_url.lower().startswith("https:")
    placement: dict[str, object] = {"addressing_style": "path"} if options.endpoint_url else {}
    if secure:
        # TLS and the CRC32 guard the body; hashing it for the signature would hold the event loop.
        placement["payload_signing_enabled"] = False
    config = AioConfig(
        signature_version="s3v4",
        s3=placement,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=options.concurrency + SPARE_CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=options.timeout_seconds,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Both for speed: what we send is typed here, and the SDK's own user agent is put together for each request.
        parameter_validation=False,
        user_agent=USER_AGENT,
    )
    async with session.client("s3", endpoint_url=options.endpoint_url, config=config) as client:
        meta = cast("_Meta", client.meta)
        meta.events.register("before-send.s3.PutObject", _expect_only_when_large)
        _resolve_endpoint_once(meta.service_model)
        yield client


def _resolve_endpoint_once(model: _ServiceModel) -> None:
    """Keep the key out of the question where to send a request.

    The SDK remembers answers by all that it is asked with, key included, so it walks its rules for every new key: an
    eighth of a small put. No rule reads the key (tests/contract/test_sdk.py looks at them).
    """
    for operation in ("PutObject", "HeadObject", "GetObject"):
        parameters = model.operation_model(operation).context_parameters
        parameters[:] = [parameter for parameter in parameters if parameter.name != "Key"]


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Keep aiohttp's abandoned body writers out of the log.

    When a connection dies under a body, the task that writes it fails besides the request, and nobody asks for its
    result: asyncio reports "Task exception was never retrieved". Nothing is lost with it: the request itself fails
    or is sent again. Everything else goes to the handler that was there.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if _abandoned_writer(context):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(handler)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


def _abandoned_writer(context: Mapping[str, object]) -> bool:
    task = context.get("future")
    if not isinstance(task, asyncio.Task) or not isinstance(context.get("exception"), (aiohttp.ClientError, OSError)):
        return False
    return getattr(task.get_coro(), "__qualname__", "") == aiohttp.ClientRequest.write_bytes.__qualname__


class _Request(Protocol):
    @property
    def headers(self) -> dict[str, str | bytes]: ...


def _expect_only_when_large(request: _Request, **_: object) -> None:
    """The SDK asks before every body, a round trip each time. `Expect` is not signed, so it may go."""
    if int(request.headers.get("Content-Length", 0)) <= EXPECT_BYTES and "Expect" in request.headers:
        del request.headers["Expect"]


@dataclass(slots=True, kw_only=True)
class _Lease:
    client: S3Client
    stack: AsyncExitStack
    opened: float
    users: int = 0
    retired: bool = False

    async def leave(self) -> None:
        self.users -= 1
        if self.retired and self.users == 0:
            await self.stack.aclose()


@dataclass(slots=True, kw_only=True)
class Clients:
    """The current client: opened at first need, replaced after `renew`. `now` is a monotonic clock in seconds."""

    open: Callable[[], AbstractAsyncContextManager[S3Client]]
    now: Callable[[], float] = time.monotonic
    _lease: _Lease | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[S3Client]:
        """The client for one request, kept open until the request ends."""
        lease = await self._current()
        lease.users += 1
        try:
            yield lease.client
        finally:
            await lease.leave()

    async def renew(self) -> None:
        """The credentials failed: the next request reads them anew. Not more often than every RENEWAL_SECONDS."""
        lease = self._lease
        if lease is not None and self.now() - lease.opened >= RENEWAL_SECONDS:
            await self._retire(lease)

    async def close(self) -> None:
        """No request may be under way."""
        if self._lease is not None:
            await self._retire(self._lease)

    async def _current(self) -> _Lease:
        async with self._lock:
            if self._lease is None:
                stack = AsyncExitStack()
                client = await stack.enter_async_context(self.open())
                self._lease = _Lease(client=client, stack=stack, opened=self.now())
            return self._lease

    async def _retire(self, lease: _Lease) -> None:
        self._lease = None
        lease.retired = True
        lease.users += 1
        await lease.leave()
