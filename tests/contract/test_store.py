"""What the consumer relies on in a store, asked of the fake, of the fault server without faults, and of real servers.

With TEST_S3=versitygw it is asked of versitygw too, which alone checks signatures.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from consumer.ports import Failure, Found, PutAnswer, Store, StoreError, Upload
from consumer.store import open_store
from tests.fakes.store import FakeStore
from tests.fault_server import FaultServer
from tests.servers import S3, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

RACERS = 20
PAGE_SIZE = 7
METADATA = {"chain-id": "0f3a", "start-offset": "17", "writer": "w-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An S3 endpoint with an empty bucket; its credentials are in the environment."""

    name: str
    endpoint_url: str
    region: str
    bucket: str


@pytest.fixture
async def lookalike(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """The fault server without faults."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    async with FaultServer(buckets=["bucket"]) as server:
        yield Server(name="lookalike", endpoint_url=server.url, region="us-east-1", bucket="bucket")


@pytest.fixture
async def real(any_s3: S3, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each real server of this session in turn."""
    for name, value in any_s3.environ().items():
        monkeypatch.setenv(name, value)
    bucket = await any_s3.create_bucket(unique("bucket"))
    return Server(
        name=type(any_s3.server).__name__,
        endpoint_url=any_s3.access.endpoint_url,
        region=any_s3.access.region,
        bucket=bucket,
    )


class StoreContract:
    """The suite. Subclasses provide the fixture `store`: an empty one, with pages of PAGE_SIZE."""

    async def test_a_put_creates_once_and_never_overwrites(self, store: Store) -> None:
        assert await store.put_if_absent(upload("a/k", b"first")) is PutAnswer.CREATED
        assert await store.put_if_absent(upload("a/k", b"second")) is PutAnswer.EXISTS
        assert await store.put_if_absent(upload("a/k", b"first")) is PutAnswer.EXISTS
        assert await store.get("a/k") == b"first"

    async def test_of_many_concurrent_puts_one_wins_and_every_loser_can_see_whose_object_it_is(
        self, store: Store
    ) -> None:
        answers = await asyncio.gather(*(race(store, number) for number in range(RACERS)))
        winners = [number for number, answer in enumerate(answers) if answer is PutAnswer.CREATED]
        found = await store.head("race/k")
        assert found is not None
        winner = int(found.metadata["writer"])
        # A server may close the connection on its winner too, or aiohttp send twice: then nobody was told CREATED.
        assert winners in ([winner], [])
        if all(isinstance(answer, PutAnswer) for answer in answers):
            assert len(winners) == 1 or answers[winner] is PutAnswer.EXISTS
        assert await store.get("race/k") == contestant(winner).body
        assert found.size == len(contestant(winner).body)

    async def test_metadata_come_back_by_head_in_lower_case(self, store: Store) -> None:
        await store.put_if_absent(upload("k", b"body"))
        assert await store.head("k") == Found(key="k", size=4, metadata=METADATA)

    async def test_an_empty_body_is_an_object(self, store: Store) -> None:
        assert await store.put_if_absent(upload("empty", b"")) is PutAnswer.CREATED
        found = await store.head("empty")
        assert found is not None
        assert found.size == 0
        assert await store.get("empty") == b""
        assert [piece async for piece in store.read("empty")] == []

    async def test_an_absent_key_is_none(self, store: Store) -> None:
        await store.put_if_absent(upload("here/k", b"x"))
        assert await store.head("here/k2") is None
        assert await store.head("here") is None
        assert await store.get("absent") is None

    async def test_reading_an_absent_key_is_an_error(self, store: Store) -> None:
        with pytest.raises(StoreError, match="NoSuchKey") as caught:
            [piece async for piece in store.read("absent")]
        assert caught.value.failure is Failure.REFUSED

    async def test_a_body_that_does_not_match_its_checksum_is_refused_and_creates_nothing(self, store: Store) -> None:
        damaged = Upload(key="k", body=b"body", crc32=zlib.crc32(b"other"), content_type="a/b", metadata={})
        try:
            await store.put_if_absent(damaged)
        except StoreError as error:
            assert error.failure is Failure.UNAVAILABLE  # noqa: PT017 -- a server may not check: see below
        else:
            pytest.skip("THIS SERVER DOES NOT CHECK x-amz-checksum-crc32: a damaged body would be stored")
        assert await store.head("k") is None

    async def test_keys_with_any_character_of_a_template_go_round(self, store: Store) -> None:
        keys = sorted(["dt=2026-01-01/hour=09/00001-00000000000000000017.jsonl.gz", "a b+c/ü%25&'()/x", "t:1/~_.json"])
        for key in keys:
            assert await store.put_if_absent(upload(key, key.encode())) is PutAnswer.CREATED
        assert [key async for key in store.list_keys("")] == sorted(keys)
        assert [await store.get(key) for key in keys] == [key.encode() for key in keys]

    async def test_a_listing_has_every_key_below_its_prefix_in_order_over_many_pages(self, store: Store) -> None:
        keys = [f"p/{number:03d}" for number in range(3 * PAGE_SIZE + 1)]
        for key in (*reversed(keys), "p-before", "q/after"):
            await store.put_if_absent(upload(key, b"x"))
        assert [key async for key in store.list_keys("p/")] == keys
        assert [key async for key in store.list_keys("p/00")] == keys[:10]
        assert [key async for key in store.list_keys("nothing/")] == []

    async def test_a_listing_of_exactly_a_page_ends(self, store: Store) -> None:
        keys = [f"p/{number}" for number in range(PAGE_SIZE)]
        for key in keys:
            await store.put_if_absent(upload(key, b"x"))
        assert [key async for key in store.list_keys("p/")] == keys

    async def test_folders_are_the_next_level_only_each_once(self, store: Store) -> None:
        folders = [f"p/dt={number:02d}/" for number in range(2 * PAGE_SIZE + 1)]
        for folder in folders:
            for name in ("hour=01/k", "hour=02/k"):
                await store.put_if_absent(upload(folder + name, b"x"))
        await store.put_if_absent(upload("p/file", b"x"))
        assert [folder async for folder in store.list_folders("p/")] == folders
        assert [folder async for folder in store.list_folders("p/dt=00/")] == ["p/dt=00/hour=01/", "p/dt=00/hour=02/"]

    async def test_a_large_body_is_read_in_pieces_and_whole(self, store: Store) -> None:
        body = os.urandom(1 << 20) * 3
        await store.put_if_absent(upload("large", body))
        pieces = [piece async for piece in store.read("large")]
        assert len(pieces) > 1
        assert b"".join(pieces) == body
        assert await store.get("large") == body


class TestFakeStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return FakeStore(page_size=PAGE_SIZE)


class TestS3StoreOnLookalike(StoreContract):
    @pytest.fixture
    async def store(self, lookalike: Server) -> AsyncIterator[Store]:
        async with open_on(lookalike) as store:
            yield store


class TestS3StoreOnRealServers(StoreContract):
    @pytest.fixture
    async def store(self, real: Server) -> AsyncIterator[Store]:
        async with open_on(real) as store:
            yield store

    async def test_a_missing_bucket_is_named_but_by_head(self, real: Server) -> None:
        missing = Server(name=real.name, endpoint_url=real.endpoint_url, region=real.region, bucket=unique("missing"))
        async with open_on(missing) as store:
            for answer in (
                store.put_if_absent(upload("k", b"x")),
                store.get("k"),
                anext(aiter(store.list_keys(""))),
                anext(aiter(store.list_folders(""))),
                anext(aiter(store.read("k"))),
            ):
                with pytest.raises(StoreError, match="NoSuchBucket") as caught:
                    await answer
                assert caught.value.failure is Failure.REFUSED
                assert missing.bucket in caught.value.reason
            # HEAD has no body, so it cannot tell; every key of a missing bucket is absent.
            assert await store.head("k") is None


class TestSignatures:
    """Asked of versitygw alone: MiniStack takes any key."""

    @pytest.mark.parametrize(
        ("variable", "code"),
        [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "access key")],
    )
    async def test_wrong_credentials_are_refused_and_not_told(
        self, versitygw: S3, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
    ) -> None:
        for name, value in versitygw.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(variable, "wrong-and-secret")
        bucket = await versitygw.create_bucket()
        url, region = versitygw.access.endpoint_url, versitygw.access.region
        async with open_store(bucket=bucket, endpoint_url=url, region=region) as store:
            with pytest.raises(StoreError, match=code) as caught:
                await store.put_if_absent(upload("k", b"x"))
            assert caught.value.failure is Failure.REFUSED
            assert "wrong-and-secret" not in caught.value.reason
            with pytest.raises(StoreError, match=code) as caught:
                await store.get("k")  # not head: versitygw answers an unknown access key with a 404
            assert caught.value.failure is Failure.REFUSED


def open_on(server: Server) -> AbstractAsyncContextManager[Store]:
    """The store under test, with small pages."""
    return open_store(bucket=server.bucket, endpoint_url=server.endpoint_url, region=server.region, page_size=PAGE_SIZE)


def upload(key: str, body: bytes) -> Upload:
    """An object to put."""
    return Upload(key=key, body=body, crc32=zlib.crc32(body), content_type="application/gzip", metadata=METADATA)


def contestant(number: int) -> Upload:
    """The object of one racer; bodies differ in length too."""
    body = f"racer {number};".encode() * (1000 + number)
    return Upload(key="race/k", body=body, crc32=zlib.crc32(body), content_type="a/b", metadata={"writer": str(number)})


async def race(store: Store, number: int) -> PutAnswer | StoreError:
    """One racer; a StoreError is an answer too: some servers close the connection on a loser."""
    try:
        return await store.put_if_absent(contestant(number))
    except StoreError as error:
        assert error.failure in (Failure.UNAVAILABLE, Failure.CONFLICT)  # noqa: PT017 -- nothing need be raised
        return error
