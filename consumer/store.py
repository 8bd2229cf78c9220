"""The bucket: conditional put, head, listing and reading, over aioboto3.

Owns: the requests and the deadline of one attempt. Does not own: retries (the caller's), keys and bodies, what an
answer means to the chain, the client's settings, life and exceptions (`s3_client`), the wording of S3's error answers
(`diagnosis`).
Invariants: a put never overwrites; CREATED and EXISTS are said only when S3 said so (a success without an ETag is
somebody else's page); no call outlasts its deadline; every exception of the client leaves as a StoreError.

A HEAD has no body, so its 404 cannot tell a missing bucket (or, on versitygw, an access key that the store does not
know) from a missing key. It counts as absent. That is safe, because nothing follows from absence but a conditional put,
and put, get and listing name the cause and are refused.

aiohttp re-sends a put once by itself when a connection drops, so the answer to one's own first put may be EXISTS.
The caller tells by the metadata whose object it is.
"""

from __future__ import annotations

import base64
import io
from asyncio import timeout
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, cast

from consumer.bucket_name import bucket_fault
from consumer.diagnosis import Place, not_s3
from consumer.ports import Failure, Found, PutAnswer, StoreError, Upload
from consumer.s3_client import (
    CLIENT_ERRORS,
    ClientOptions,
    Clients,
    S3Client,
    classify,
    error_answer,
    open_client,
    quiet_writers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from consumer.diagnosis import ErrorAnswer
    from consumer.s3_client import Answer

PAGE_SIZE = 1000
PIECE_BYTES = 1 << 18


class _Body(Protocol):
    """A body as it arrives; the SDK's own class is untyped."""

    async def read(self, amt: int | None = None) -> bytes: ...
    async def __aenter__(self) -> object: ...
    async def __aexit__(self, *error: object) -> None: ...


class _Sent(io.BytesIO):
    """A body on its way, read piece by piece and never copied as a whole.

    Of bytes the SDK makes a BytesIO, and aiohttp asks that for its buffer, to learn the length: which makes Python copy
    what the BytesIO and the bytes had shared, on the event loop, another 16 MiB for each put under way.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._whole = body

    def getbuffer(self) -> memoryview:
        """The very bytes, read-only: nobody may write into a body."""
        return memoryview(self._whole)


class S3Store:
    """One bucket; implements consumer.ports.Store."""

    def __init__(
        self,
        clients: Clients,
        *,
        bucket: str,
        region: str | None,
        timeout_seconds: float,
        page_size: int,
        on_every_call: Mapping[str, str],
        on_put: Mapping[str, str],
    ) -> None:
        self._clients = clients
        self._bucket = bucket
        self._region = region
        self._timeout_seconds = timeout_seconds
        self._page_size = page_size
        self._on_every_call: Mapping[str, str] = {"Bucket": bucket, **on_every_call}
        self._on_put: Mapping[str, str] = {**self._on_every_call, **on_put}

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        """See consumer.ports.Store."""
        try:
            async with self._attempt("PutObject", upload.key) as client:
                answer = await client.put_object(
                    **self._on_put,
                    Key=upload.key,
                    Body=_Sent(upload.body),
                    IfNoneMatch="*",
                    ChecksumCRC32=base64.b64encode(upload.crc32.to_bytes(4, "big")).decode(),
                    ContentType=upload.content_type,
                    Metadata=dict(upload.metadata),
                )
        except StoreError as error:
            if _has_status(error, HTTPStatus.PRECONDITION_FAILED):
                return PutAnswer.EXISTS
            raise
        self._must_be_s3("PutObject", upload.key, answer)
        return PutAnswer.CREATED

    async def head(self, key: str) -> Found | None:
        """See consumer.ports.Store."""
        try:
            async with self._attempt("HeadObject", key) as client:
                answer = await client.head_object(**self._on_every_call, Key=key)
        except StoreError as error:
            if _has_status(error, HTTPStatus.NOT_FOUND):
                return None
            raise
        self._must_be_s3("HeadObject", key, answer)
        metadata = cast("Mapping[str, str]", answer.get("Metadata", {}))
        return Found(
            key=key,
            size=cast("int", answer.get("ContentLength", 0)),
            metadata={name.lower(): value for name, value in metadata.items()},
        )

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        """See consumer.ports.Store."""
        async for page in self._pages({"Prefix": prefix}):
            for item in cast("list[Mapping[str, str]]", page.get("Contents", [])):
                yield item["Key"]

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        """See consumer.ports.Store."""
        async for page in self._pages({"Prefix": prefix, "Delimiter": "/"}):
            for item in cast("list[Mapping[str, str]]", page.get("CommonPrefixes", [])):
                yield item["Prefix"]

    async def get(self, key: str) -> bytes | None:
        """See consumer.ports.Store."""
        try:
            async with self._attempt("GetObject", key) as client:
                answer = await client.get_object(**self._on_every_call, Key=key)
                async with cast("_Body", answer["Body"]) as _:
                    content = await cast("_Body", answer["Body"]).read()
        except StoreError as error:
            if _absent(error):
                return None
            raise
        self._must_be_s3("GetObject", key, answer)
        return content

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See consumer.ports.Store; each piece, of at most PIECE_BYTES, has the deadline of an attempt."""
        async with AsyncExitStack() as stack:
            async with self._step("GetObject", key):
                client = await stack.enter_async_context(self._clients.client())
                answer = await client.get_object(**self._on_every_call, Key=key)
            self._must_be_s3("GetObject", key, answer)
            body = cast("_Body", answer["Body"])
            await stack.enter_async_context(body)
            while True:
                async with self._step("GetObject", key):
                    piece = await body.read(PIECE_BYTES)
                if not piece:
                    return
                yield piece

    async def _pages(self, parameters: Mapping[str, str]) -> AsyncIterator[Answer]:
        more: dict[str, str] = {}
        while True:
            async with self._attempt("ListObjectsV2", parameters["Prefix"]) as client:
                page = await client.list_objects_v2(
                    **self._on_every_call, **parameters, **more, MaxKeys=self._page_size
                )
            if "IsTruncated" not in page:
                raise not_s3("ListObjectsV2", self._place(parameters["Prefix"]))
            yield page
            if not page["IsTruncated"]:
                return
            token = cast("str", page.get("NextContinuationToken", ""))
            if not token or token == more.get("ContinuationToken"):  # else keys would be missed, or the end never met
                raise not_s3("ListObjectsV2", self._place(parameters["Prefix"]))
            more = {"ContinuationToken": token}

    @asynccontextmanager
    async def _attempt(self, operation: str, key: str) -> AsyncIterator[S3Client]:
        """The client for one request."""
        async with self._step(operation, key), self._clients.client() as client:
            yield client

    @asynccontextmanager
    async def _step(self, operation: str, key: str) -> AsyncIterator[None]:
        """Waiting for the store: one attempt's deadline, exceptions translated, credentials that failed renewed."""
        try:
            async with timeout(self._timeout_seconds):
                yield
        except CLIENT_ERRORS as error:
            fault = classify(error, operation, self._place(key))
            if fault.failure is Failure.CREDENTIALS:
                await self._clients.renew()
            raise fault from error

    def _place(self, key: str) -> Place:
        return Place(bucket=self._bucket, key=key, region=self._region)

    def _must_be_s3(self, operation: str, key: str, answer: Answer) -> None:
        if "ETag" not in answer:
            raise not_s3(operation, self._place(key))


def _answer(error: StoreError) -> ErrorAnswer | None:
    """What S3 said; None when it said nothing."""
    return error_answer(error.__cause__) if isinstance(error.__cause__, Exception) else None


def _has_status(error: StoreError, status: HTTPStatus) -> bool:
    answer = _answer(error)
    return answer is not None and answer.status == status


def _absent(error: StoreError) -> bool:
    """A 404 that is about the key, as far as it says."""
    answer = _answer(error)
    return answer is not None and answer.status == HTTPStatus.NOT_FOUND and (answer.bare or answer.code == "NoSuchKey")


@asynccontextmanager
async def open_store(
    *,
    bucket: str,
    region: str | None = None,
    endpoint_url: str | None = None,
    concurrency: int = 4,
    timeout_seconds: float = 60,
    acl: str | None = None,
    storage_class: str | None = None,
    sse: str | None = None,
    sse_kms_key_id: str | None = None,
    expected_bucket_owner: str | None = None,
    page_size: int = PAGE_SIZE,
) -> AsyncIterator[S3Store]:
    """A store for the bucket; no request is made yet. ValueError for a bucket name that cannot be one."""
    fault = bucket_fault(bucket)
    if fault:
        raise ValueError(f"bucket {bucket!r}: {fault}")
    options = ClientOptions(
        region=region, endpoint_url=endpoint_url, concurrency=concurrency, timeout_seconds=timeout_seconds
    )
    clients = Clients(open=lambda: open_client(options))
    with quiet_writers():
        try:
            yield S3Store(
                clients,
                bucket=bucket,
                region=region,
                timeout_seconds=timeout_seconds,
                page_size=page_size,
                on_every_call=_given(ExpectedBucketOwner=expected_bucket_owner),
                on_put=_given(
                    ACL=acl, StorageClass=storage_class, ServerSideEncryption=sse, SSEKMSKeyId=sse_kms_key_id
                ),
            )
        finally:
            await clients.close()


def _given(**parameters: str | None) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}
