"""Every error S3 and its client are known to give, and the class each is sorted into."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from consumer.bucket_name import bucket_fault
from consumer.diagnosis import MESSAGE_LIMIT, ErrorAnswer, Place, diagnose, shorten
from consumer.ports import Failure, StoreError
from consumer.s3_client import CLIENT_ERRORS, Clients, S3Client, classify
from consumer.store import S3Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

PLACE = Place(bucket="b", key="dt=2026-01-01/k", region="eu-west-1")
PUT, HEAD, GET, LIST = "PutObject", "HeadObject", "GetObject", "ListObjectsV2"

BY_CODE = [
    (409, "ConditionalRequestConflict", Failure.CONFLICT),
    (409, "OperationAborted", Failure.CONFLICT),
    (409, "ObjectParentIsFile", Failure.REFUSED),
    (409, "ExistingObjectIsDirectory", Failure.REFUSED),
    (500, "InternalError", Failure.UNAVAILABLE),
    (503, "SlowDown", Failure.UNAVAILABLE),
    (503, "ServiceUnavailable", Failure.UNAVAILABLE),
    (599, "WhateverTheySay", Failure.UNAVAILABLE),
    (400, "RequestTimeout", Failure.UNAVAILABLE),
    (400, "ThrottlingException", Failure.UNAVAILABLE),
    (400, "KMS.ThrottlingException", Failure.UNAVAILABLE),
    (400, "EC2ThrottledException", Failure.UNAVAILABLE),
    (429, "TooManyRequests", Failure.UNAVAILABLE),
    (429, "NeverHeardOf", Failure.UNAVAILABLE),
    (408, "NeverHeardOf", Failure.UNAVAILABLE),
    (400, "BadDigest", Failure.UNAVAILABLE),
    (400, "IncompleteBody", Failure.UNAVAILABLE),
    (400, "XAmzContentSHA256Mismatch", Failure.UNAVAILABLE),
    (400, "ExpiredToken", Failure.CREDENTIALS),
    (400, "ExpiredTokenException", Failure.CREDENTIALS),
    (400, "TokenRefreshRequired", Failure.CREDENTIALS),
    (400, "InvalidToken", Failure.CREDENTIALS),
    (403, "RequestExpired", Failure.CREDENTIALS),
    (403, "RequestTimeTooSkewed", Failure.CREDENTIALS),
    (403, "AccessDenied", Failure.REFUSED),
    (403, "AllAccessDisabled", Failure.REFUSED),
    (403, "SignatureDoesNotMatch", Failure.REFUSED),
    (403, "InvalidAccessKeyId", Failure.REFUSED),
    (404, "XAdminUserNotFound", Failure.REFUSED),
    (404, "NoSuchBucket", Failure.REFUSED),
    (404, "NoSuchKey", Failure.REFUSED),
    (400, "AccessControlListNotSupported", Failure.REFUSED),
    (400, "InvalidRequest", Failure.REFUSED),
    (400, "InvalidStorageClass", Failure.REFUSED),
    (400, "KMS.DisabledException", Failure.REFUSED),
    (400, "AuthorizationHeaderMalformed", Failure.REFUSED),
    (301, "PermanentRedirect", Failure.REFUSED),
    (412, "PreconditionFailed", Failure.REFUSED),  # a put's is no error: the store answers EXISTS
    (405, "MethodNotAllowed", Failure.REFUSED),
    (501, "NotImplemented", Failure.REFUSED),
    (501, "SomethingElse", Failure.REFUSED),
]

BARE = [
    (HEAD, 403, Failure.REFUSED),
    (HEAD, 400, Failure.CREDENTIALS),
    (HEAD, 500, Failure.UNAVAILABLE),
    (HEAD, 503, Failure.UNAVAILABLE),
    (HEAD, 301, Failure.REFUSED),
    (PUT, 400, Failure.REFUSED),
    (PUT, 403, Failure.REFUSED),
    (PUT, 404, Failure.REFUSED),
    (PUT, 409, Failure.CONFLICT),
    (PUT, 429, Failure.UNAVAILABLE),
    (PUT, 501, Failure.REFUSED),
    (PUT, 502, Failure.UNAVAILABLE),
    (PUT, 504, Failure.UNAVAILABLE),
]

URL = "https://s3.example/b"
EXCEPTIONS: list[tuple[Exception, Failure]] = [
    (boto.NoCredentialsError(), Failure.CREDENTIALS),
    (boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), Failure.CREDENTIALS),
    (boto.CredentialRetrievalError(provider="process", error_msg="exit 1"), Failure.CREDENTIALS),
    (boto.MetadataRetrievalError(error_msg="no answer"), Failure.CREDENTIALS),
    (boto.TokenRetrievalError(provider="sso", error_msg="expired"), Failure.CREDENTIALS),
    (boto.UnauthorizedSSOTokenError(), Failure.CREDENTIALS),
    (boto.SSOTokenLoadError(error_msg="none"), Failure.CREDENTIALS),
    (boto.NoAuthTokenError(), Failure.CREDENTIALS),
    (boto.EndpointConnectionError(endpoint_url=URL, error="refused"), Failure.UNAVAILABLE),
    (boto.ConnectTimeoutError(endpoint_url=URL), Failure.UNAVAILABLE),
    (boto.ReadTimeoutError(endpoint_url=URL), Failure.UNAVAILABLE),
    (boto.ConnectionClosedError(endpoint_url=URL), Failure.UNAVAILABLE),
    (boto.HTTPClientError(error="odd"), Failure.UNAVAILABLE),
    (boto.ProxyConnectionError(proxy_url="http://proxy", error="no"), Failure.UNAVAILABLE),
    (boto.ResponseStreamingError(error="broke"), Failure.UNAVAILABLE),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), Failure.UNAVAILABLE),
    (aiohttp.ClientPayloadError("broke off"), Failure.UNAVAILABLE),
    (aiohttp.ServerDisconnectedError(), Failure.UNAVAILABLE),
    (ConnectionResetError(104, "Connection reset by peer"), Failure.UNAVAILABLE),
    (TimeoutError(), Failure.UNAVAILABLE),
    (boto.SSLError(endpoint_url=URL, error=ssl.SSLCertVerificationError("self-signed")), Failure.REFUSED),
    (boto.ParamValidationError(report="Bucket"), Failure.REFUSED),
    (boto.ProfileNotFound(profile="p"), Failure.REFUSED),
    (ResponseParserError("no XML"), Failure.REFUSED),
]


@pytest.mark.parametrize(("status", "code", "failure"), BY_CODE)
def test_the_code_decides_and_the_reason_names_code_message_and_place(status: int, code: str, failure: Failure) -> None:
    sorted_error = diagnose(ErrorAnswer(operation=PUT, status=status, code=code, message="what S3 says"), PLACE)
    assert sorted_error.failure is failure
    for part in (PUT, str(status), code, "what S3 says", "s3://b/dt=2026-01-01/k"):
        assert part in sorted_error.reason
    assert not sorted_error.reason.endswith("; ")


@pytest.mark.parametrize(("operation", "status", "failure"), BARE)
def test_without_a_body_the_status_decides(operation: str, status: int, failure: Failure) -> None:
    for code in (str(status), ""):
        answer = ErrorAnswer(operation=operation, status=status, code=code, message="Forbidden")
        assert diagnose(answer, PLACE).failure is failure


def test_heads_403_says_which_of_two_things_to_do() -> None:
    reason = diagnose(ErrorAnswer(operation=HEAD, status=403, code="403", message=""), PLACE).reason
    assert "grant s3:ListBucket" in reason
    assert "renew the credentials" in reason


@pytest.mark.parametrize(
    ("operation", "permission"),
    [(PUT, "s3:PutObject"), (GET, "s3:GetObject"), (LIST, "s3:ListBucket")],
)
def test_access_denied_names_the_permission(operation: str, permission: str) -> None:
    answer = ErrorAnswer(operation=operation, status=403, code="AccessDenied", message="Access Denied")
    assert permission in diagnose(answer, PLACE).reason


def test_a_wrong_region_names_both() -> None:
    answer = ErrorAnswer(
        operation=PUT, status=400, code="AuthorizationHeaderMalformed", message="", server_region="us-east-2"
    )
    reason = diagnose(answer, PLACE).reason
    assert "us-east-2" in reason
    assert "eu-west-1" in reason


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredTokenException", "InvalidIdentityToken", "Throttling"])
def test_an_error_of_the_credential_chain_is_about_credentials_whatever_its_code(code: str) -> None:
    answer = ErrorAnswer(operation="AssumeRoleWithWebIdentity", status=403, code=code, message="no")
    assert diagnose(answer, PLACE).failure is Failure.CREDENTIALS


@pytest.mark.parametrize(("error", "failure"), EXCEPTIONS, ids=lambda value: type(value).__name__)
def test_exceptions_without_an_answer_are_sorted_and_caught(error: Exception, failure: Failure) -> None:
    assert isinstance(error, CLIENT_ERRORS)
    sorted_error = classify(error, PUT, PLACE)
    assert sorted_error.failure is failure
    assert sorted_error.reason.startswith("PutObject s3://b/dt=2026-01-01/k: ")


def test_an_error_answer_is_taken_out_of_the_clients_exception() -> None:
    response = {
        "Error": {"Code": "PermanentRedirect", "Message": "elsewhere"},
        "ResponseMetadata": {"HTTPStatusCode": 301, "HTTPHeaders": {"x-amz-bucket-region": "ap-south-1"}},
    }
    sorted_error = classify(boto.ClientError(response, PUT), PUT, PLACE)
    assert sorted_error.failure is Failure.REFUSED
    assert "ap-south-1" in sorted_error.reason


def test_the_wrapped_error_speaks_rather_than_the_sdk() -> None:
    inner = ConnectionResetError(104, "Connection reset by peer")
    reason = classify(boto.EndpointConnectionError(endpoint_url=URL, error=inner), PUT, PLACE).reason
    assert "reset by peer" in reason
    assert "Could not connect" not in reason


@given(st.text(max_size=1000))
def test_a_message_becomes_one_short_line(message: str) -> None:
    line = shorten(message)
    assert len(line) <= MESSAGE_LIMIT
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize("name", ["abc", "my.bucket-1", "0a0", "a" * 63, "x-s3alias"])
def test_a_bucket_name_passes(name: str) -> None:
    assert bucket_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        "a..b",
        "10.0.0.1",
        "abc\n",
        "b/prefix",
        "s3://bucket",
        "arn:aws:s3:::bucket",
        "b--use1-az4--x-s3",
        "alias.mrap",
    ],
)
def test_a_name_that_is_no_bucket_of_ours_does_not(name: str) -> None:
    assert bucket_fault(name)


class _Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class _Opener:
    """Stands in for the SDK: counts what is opened and closed."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[S3Client]:
        self.opened += 1
        try:
            yield _Client()
        finally:
            self.closed += 1


class _Client:
    async def put_object(self, **parameters: object) -> dict[str, object]:
        return {}

    head_object = get_object = list_objects_v2 = put_object


async def test_one_client_serves_all_requests_until_its_credentials_fail() -> None:
    clock, opener = _Clock(), _Opener()
    clients = Clients(open=opener, now=clock)
    async with clients.client() as first, clients.client() as second:
        assert first is second
    clock.seconds += 30
    await clients.renew()
    async with clients.client() as third:
        assert third is not first
    await clients.close()
    assert (opener.opened, opener.closed) == (2, 2)


async def test_a_replaced_client_stays_open_for_the_requests_it_serves() -> None:
    clock, opener = _Clock(), _Opener()
    clients = Clients(open=opener, now=clock)
    async with clients.client():
        clock.seconds += 31
        await clients.renew()
        async with clients.client():
            assert (opener.opened, opener.closed) == (2, 0)
    assert opener.closed == 1
    await clients.close()
    assert opener.closed == 2


async def test_a_fresh_client_is_not_replaced_again() -> None:
    clock, opener = _Clock(), _Opener()
    clients = Clients(open=opener, now=clock)
    async with clients.client():
        clock.seconds += 29
        await clients.renew()
    async with clients.client():
        assert opener.opened == 1
    await clients.close()


async def test_requests_at_once_open_one_client() -> None:
    opener = _Opener()
    clients = Clients(open=opener, now=_Clock())

    async def use() -> None:
        async with clients.client():
            await asyncio.sleep(0)

    await asyncio.gather(*(use() for _ in range(10)))
    await clients.close()
    assert (opener.opened, opener.closed) == (1, 1)


@asynccontextmanager
async def _without_credentials() -> AsyncIterator[S3Client]:
    raise boto.CredentialRetrievalError(provider="sso", error_msg="session expired")
    yield _Client()


@asynccontextmanager
async def _never() -> AsyncIterator[S3Client]:
    await asyncio.sleep(60)
    yield _Client()


async def _read(store: S3Store) -> list[bytes]:
    return [piece async for piece in store.read("k")]


@pytest.mark.parametrize(
    ("opener", "failure"), [(_without_credentials, Failure.CREDENTIALS), (_never, Failure.UNAVAILABLE)]
)
@pytest.mark.parametrize("ask", [_read, lambda store: store.get("k"), lambda store: store.head("k")])
async def test_a_client_that_cannot_be_opened_is_a_store_error_within_the_deadline_of_every_call(
    opener: Callable[[], AbstractAsyncContextManager[S3Client]],
    failure: Failure,
    ask: Callable[[S3Store], Awaitable[object]],
) -> None:
    store = S3Store(
        Clients(open=opener),
        bucket="bucket",
        region=None,
        timeout_seconds=0.05,
        page_size=10,
        on_every_call={},
        on_put={},
    )
    with pytest.raises(StoreError) as caught:
        await ask(store)
    assert caught.value.failure is failure
