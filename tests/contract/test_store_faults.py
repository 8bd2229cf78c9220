"""The store adapter against answers that real servers do not give on demand, from tests.fault_server."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import sys
import zlib
from typing import TYPE_CHECKING, Protocol, cast

import aiohttp
import pytest

from consumer.ports import Failure, PutAnswer, StoreError, Upload
from consumer.s3_client import CLIENT_ERRORS, EXPECT_BYTES, ClientOptions, Clients, open_client
from consumer.store import S3Store, open_store
from tests.fault_server import Fault, FaultServer
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

DEADLINE_SECONDS = 0.5
SECRET = "never-to-be-seen"
LARGE = bytes(3 << 20)

# Fault, class, part of the reason, how many requests the server sees (aiohttp sends twice when a connection drops).
ANSWERS = [
    (Fault.DENIED, Failure.REFUSED, "grant s3:PutObject", 1),
    (Fault.DENIED_BARE, Failure.REFUSED, "403", 1),
    (Fault.EXPIRED, Failure.CREDENTIALS, "ExpiredToken", 1),
    (Fault.BAD_KEY, Failure.REFUSED, "InvalidAccessKeyId", 1),
    (Fault.NO_BUCKET, Failure.REFUSED, "NoSuchBucket", 1),
    (Fault.CONFLICT, Failure.CONFLICT, "ConditionalRequestConflict", 1),
    (Fault.PARENT_IS_FILE, Failure.REFUSED, "ObjectParentIsFile", 1),
    (Fault.INTERNAL, Failure.UNAVAILABLE, "InternalError", 1),
    (Fault.SLOW_DOWN, Failure.UNAVAILABLE, "SlowDown", 1),
    (Fault.UNAVAILABLE_BARE, Failure.UNAVAILABLE, "503", 1),
    (Fault.NOT_IMPLEMENTED, Failure.REFUSED, "If-None-Match", 1),
    (Fault.ACL_OFF, Failure.REFUSED, "S3_ACL", 1),
    (Fault.LOGIN_PAGE, Failure.REFUSED, "not S3's", 1),
    (Fault.REDIRECT, Failure.REFUSED, "not S3's", 2),
    (Fault.GARBAGE, Failure.UNAVAILABLE, "connection broke", 1),
    (Fault.RESET_BEFORE, Failure.UNAVAILABLE, "reset by peer", 2),
    (Fault.HANG, Failure.UNAVAILABLE, "deadline", 1),
]


class Prepared(Protocol):
    """A request as the SDK is about to send it."""

    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, bytes | str]: ...


class Events(Protocol):
    def register(self, name: str, handler: Callable[..., None]) -> None: ...


class Meta(Protocol):
    @property
    def events(self) -> Events: ...


class HasEvents(Protocol):
    @property
    def meta(self) -> Meta: ...


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def store(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    async with open_store(
        bucket="bucket",
        endpoint_url=server.url,
        region="us-east-1",
        timeout_seconds=DEADLINE_SECONDS,
        acl="private",
        storage_class="STANDARD_IA",
        sse="aws:kms",
        sse_kms_key_id="kms-key",
        expected_bucket_owner="123456789012",
    ) as opened:
        # The SDK reads its service model for the first request, which takes longer than the short deadline here.
        while True:
            try:
                await opened.head("warm-up")
            except StoreError:
                continue
            break
        server.requests.clear()
        yield opened


@pytest.mark.parametrize("expected", ANSWERS, ids=lambda expected: expected[0])
@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
async def test_a_put_that_fails_is_sorted_never_retried_and_says_why(
    server: FaultServer, store: S3Store, expected: tuple[Fault, Failure, str, int], body: bytes
) -> None:
    fault, failure, part, requests = expected
    server.script(fault)
    with pytest.raises(StoreError, match=part) as caught:
        await store.put_if_absent(upload("k", body))
    assert caught.value.failure is failure
    assert "bucket/k" in caught.value.reason
    assert SECRET not in caught.value.reason
    assert len(server.requests) == requests
    assert server.buckets["bucket"] == {}


@pytest.mark.parametrize("fault", [Fault.INTERNAL_AFTER, Fault.HANG_AFTER])
async def test_a_put_whose_answer_is_lost_is_unavailable_and_head_shows_the_object(
    server: FaultServer, store: S3Store, fault: Fault
) -> None:
    server.script(fault, method="PUT")
    with pytest.raises(StoreError) as caught:
        await store.put_if_absent(upload("k", b"body"))
    assert caught.value.failure is Failure.UNAVAILABLE
    found = await store.head("k")
    assert found is not None
    assert found.metadata == {"writer": "w-1"}


async def test_a_connection_that_drops_behind_the_effect_makes_ones_own_object_answer_exists(
    server: FaultServer, store: S3Store
) -> None:
    server.script(Fault.RESET_AFTER, method="PUT", times=1)
    assert await store.put_if_absent(upload("k", b"body")) is PutAnswer.EXISTS
    assert [request.method for request in server.requests] == ["PUT", "PUT"]


async def test_a_connection_that_drops_before_the_effect_is_made_good_by_the_second_sending(
    server: FaultServer, store: S3Store
) -> None:
    server.script(Fault.RESET_MID_BODY, method="PUT", times=1)
    assert await store.put_if_absent(upload("k", LARGE)) is PutAnswer.CREATED
    assert server.buckets["bucket"]["k"].body == LARGE


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
async def test_a_refusal_that_comes_before_the_body_was_read_still_gives_its_reason(
    server: FaultServer, store: S3Store, body: bytes
) -> None:
    server.script(Fault.DENIED_EARLY)
    with pytest.raises(StoreError, match="AccessDenied") as caught:
        await store.put_if_absent(upload("k", body))
    assert caught.value.failure is Failure.REFUSED


async def test_only_large_bodies_ask_before_they_are_sent(server: FaultServer, store: S3Store) -> None:
    await store.put_if_absent(upload("small", bytes(EXPECT_BYTES)))
    await store.put_if_absent(upload("large", bytes(EXPECT_BYTES + 1)))
    assert ["expect" in request.headers for request in server.requests] == [False, True]


async def test_every_setting_is_passed_through(server: FaultServer, store: S3Store) -> None:
    await store.put_if_absent(upload("k", b"body"))
    await store.head("k")
    await store.get("k")
    assert [key async for key in store.list_keys("")] == ["k"]
    put = server.requests[0].headers
    assert put["if-none-match"] == "*"
    assert put["content-type"] == "application/gzip"
    assert put["x-amz-meta-writer"] == "w-1"
    assert base64.b64decode(put["x-amz-checksum-crc32"]) == zlib.crc32(b"body").to_bytes(4, "big")
    assert put["x-amz-acl"] == "private"
    assert put["x-amz-storage-class"] == "STANDARD_IA"
    assert put["x-amz-server-side-encryption"] == "aws:kms"
    assert put["x-amz-server-side-encryption-aws-kms-key-id"] == "kms-key"
    assert "content-encoding" not in put
    assert {request.headers["x-amz-expected-bucket-owner"] for request in server.requests} == {"123456789012"}


async def test_a_store_that_ignores_the_condition_says_created_twice(server: FaultServer, store: S3Store) -> None:
    server.script(Fault.IGNORE_CONDITION, method="PUT")
    assert await store.put_if_absent(upload("k", b"body")) is PutAnswer.CREATED
    assert await store.put_if_absent(upload("k", b"body")) is PutAnswer.CREATED


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.DENIED, Failure.REFUSED),  # a HEAD's answer has no body: this is all of it
        (Fault.EXPIRED, Failure.CREDENTIALS),
        (Fault.SLOW_DOWN, Failure.UNAVAILABLE),
        (Fault.RESET_BEFORE, Failure.UNAVAILABLE),
        (Fault.HANG, Failure.UNAVAILABLE),
        (Fault.LOGIN_PAGE, Failure.REFUSED),
        (Fault.WRONG_REGION, Failure.REFUSED),
    ],
)
async def test_a_head_that_fails_is_never_taken_for_absent(
    server: FaultServer, store: S3Store, fault: Fault, failure: Failure
) -> None:
    server.script(fault)
    with pytest.raises(StoreError) as caught:
        await store.head("k")
    assert caught.value.failure is failure


async def test_a_wrong_region_names_ours_and_the_buckets(server: FaultServer, store: S3Store) -> None:
    server.script(Fault.WRONG_REGION)
    with pytest.raises(StoreError, match=r"eu-north-1.*us-east-1") as caught:
        await store.put_if_absent(upload("k", b"body"))
    assert caught.value.failure is Failure.REFUSED


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.STALLED])
async def test_a_body_that_breaks_off_or_stalls_is_unavailable(
    server: FaultServer, store: S3Store, fault: Fault
) -> None:
    await store.put_if_absent(upload("k", LARGE))
    server.script(fault, method="GET")
    with pytest.raises(StoreError) as caught:
        await store.get("k")
    assert caught.value.failure is Failure.UNAVAILABLE
    pieces: list[bytes] = []
    with pytest.raises(StoreError) as caught:
        await collect(store.read("k"), pieces)
    assert caught.value.failure is Failure.UNAVAILABLE
    assert 0 < sum(map(len, pieces)) < len(LARGE)


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.TRUNCATED, Fault.LOGIN_PAGE, Fault.NO_BUCKET])
async def test_a_listing_that_breaks_off_raises_instead_of_ending(
    server: FaultServer, store: S3Store, fault: Fault
) -> None:
    for number in range(5):
        await store.put_if_absent(upload(f"p/{number}", b"x"))
    server.script(fault, method="GET")
    with pytest.raises(StoreError):
        [key async for key in store.list_keys("p/")]
    server.well()
    assert [key async for key in store.list_keys("p/")] == [f"p/{number}" for number in range(5)]


async def test_an_unreachable_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with FaultServer() as gone:
        url = gone.url
    async with open_store(bucket="bucket", endpoint_url=url, region="us-east-1") as store:
        with pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
            await store.head("k")
        assert caught.value.failure is Failure.UNAVAILABLE


async def test_no_credentials_at_all_is_said_so(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    async with open_store(bucket="bucket", endpoint_url=server.url, region="us-east-1") as store:
        with pytest.raises(StoreError, match="credentials") as caught:
            await store.put_if_absent(upload("k", b"x"))
        assert caught.value.failure is Failure.CREDENTIALS
    assert server.requests == []


async def test_after_an_expired_token_the_credentials_are_read_anew(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = ClientOptions(region="us-east-1", endpoint_url=server.url, concurrency=1, timeout_seconds=30)
    now = 0.0
    clients = Clients(open=lambda: open_client(options), now=lambda: now)
    store = S3Store(
        clients, bucket="bucket", region="us-east-1", timeout_seconds=30, page_size=10, on_every_call={}, on_put={}
    )
    assert await store.head("k") is None  # opens the client, with the old key
    server.requests.clear()
    server.script(Fault.EXPIRED, times=1)
    now = 31.0
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new-key")
    with pytest.raises(StoreError, match="ExpiredToken"):
        await store.put_if_absent(upload("k", b"x"))
    assert await store.put_if_absent(upload("k", b"x")) is PutAnswer.CREATED
    await clients.close()
    signed = [request.headers["authorization"] for request in server.requests]
    assert ["new-key" in header for header in signed] == [False, True]


@pytest.mark.parametrize(
    ("scheme", "hashed"), [("https", "UNSIGNED-PAYLOAD"), ("http", hashlib.sha256(b"body").hexdigest())]
)
async def test_over_https_the_body_is_not_hashed_and_over_http_it_is_signed(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, scheme: str, hashed: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = ClientOptions(
        region="us-east-1", endpoint_url=f"{scheme}://127.0.0.1:1", concurrency=1, timeout_seconds=30
    )
    seen: list[bytes | str] = []

    def look(request: Prepared, **_: object) -> None:
        seen.append(request.headers["X-Amz-Content-SHA256"])

    async with open_client(options) as client:
        cast("HasEvents", client).meta.events.register("before-send.s3.PutObject", look)
        with pytest.raises(CLIENT_ERRORS):
            await client.put_object(Bucket="bucket", Key="k", Body=b"body", ChecksumCRC32="26gLsg==")
    assert seen in ([hashed], [hashed.encode()])


@pytest.mark.parametrize(
    ("endpoint_url", "url"),
    [
        ("https://s3.example.org", "https://s3.example.org/bucket/k"),
        (None, "https://bucket.s3.eu-central-1.amazonaws.com/k"),
    ],
)
async def test_the_bucket_stands_in_the_path_of_a_given_endpoint_and_in_the_host_at_aws(
    monkeypatch: pytest.MonkeyPatch, endpoint_url: str | None, url: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def look(request: Prepared, **_: object) -> None:
        raise OSError(request.url)  # instead of sending it

    options = ClientOptions(region="eu-central-1", endpoint_url=endpoint_url, concurrency=1, timeout_seconds=30)
    async with open_client(options) as client:
        cast("HasEvents", client).meta.events.register("before-send.s3.HeadObject", look)
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.head_object(Bucket="bucket", Key="k")
    assert url in str(caught.value)


async def test_a_cancelled_put_ends_at_once_and_the_store_goes_on(server: FaultServer, store: S3Store) -> None:
    server.script(Fault.HANG, method="PUT", times=1)
    put = asyncio.create_task(store.put_if_absent(upload("k", b"body")))
    await eventually(lambda: bool(server.requests), "the put's arrival")
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await store.put_if_absent(upload("k", b"body")) is PutAnswer.CREATED


async def test_a_bad_bucket_name_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="S3_PREFIX"):
        async with open_store(bucket="bucket/prefix"):
            pass


async def test_a_server_that_dies_in_mid_put_leaves_no_task_exception_behind(
    server: FaultServer, store: S3Store, caplog: pytest.LogCaptureFixture
) -> None:
    # The small put leaves a connection to the pool that the server is closing; the large one starts writing on it.
    server.script(Fault.DENIED_EARLY, method="PUT")
    for number in range(10):
        for body in (b"small", LARGE):
            with pytest.raises(StoreError):
                await store.put_if_absent(upload(f"k{number}", body))
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_other_tasks_exceptions_are_still_reported(store: S3Store, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise aiohttp.ClientConnectionError

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    assert "never retrieved" in caplog.text


async def test_as_a_process_the_fault_server_serves_and_takes_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fault_server", "--bucket", "b-1", "--scenario", "slow-down", "--times", "1",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().removeprefix("Listening on ").strip()
        async with open_store(bucket="b-1", endpoint_url=url, region="us-east-1") as store:
            with pytest.raises(StoreError, match="SlowDown"):
                await store.put_if_absent(upload("k", b"x"))
            assert await store.put_if_absent(upload("k", b"x")) is PutAnswer.CREATED
            async with aiohttp.ClientSession() as session:
                await session.post(f"{url}/_fault", params={"scenario": "denied", "method": "PUT"})
                with pytest.raises(StoreError, match="AccessDenied"):
                    await store.put_if_absent(upload("k2", b"x"))
                await session.delete(f"{url}/_fault")
            assert await store.put_if_absent(upload("k2", b"x")) is PutAnswer.CREATED
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


def upload(key: str, body: bytes) -> Upload:
    return Upload(
        key=key, body=body, crc32=zlib.crc32(body), content_type="application/gzip", metadata={"writer": "w-1"}
    )


async def collect(pieces: AsyncIterator[bytes], into: list[bytes]) -> None:
    """What arrived stays in `into` when the iterator raises."""
    async for piece in pieces:
        into.append(piece)  # noqa: PERF401 -- a comprehension would lose what came before the error
