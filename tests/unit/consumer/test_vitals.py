"""Whether S3 answers: failing all along counts, an answer in between or a pause does not."""

from __future__ import annotations

import pytest

from consumer.ports import StoreError, Upload
from consumer.vitals import PAUSE_SECONDS, WatchedStore
from tests.fakes.store import Asked, Call, Fail, FakeStore
from tests.virtual_time import virtual_time

UPLOAD = Upload(key="k", body=b"", crc32=0, content_type="text/plain", metadata={})


class Watched:
    def __init__(self) -> None:
        self.now = 100.0
        self.fake = FakeStore(page_size=1)
        self.store = WatchedStore(self.fake, clock=lambda: self.now, give_up_seconds=900.0)

    async def fail(self, *, after: float = 0.0) -> bool:
        self.now += after
        self.fake.script(Call.HEAD, Fail(reason="reset"))
        with pytest.raises(StoreError):
            await self.store.head("k")
        return self.store.exhausted


@virtual_time
async def test_only_failing_all_along_exhausts() -> None:
    watched = Watched()
    assert not await watched.fail()
    assert watched.store.failing_since == 100.0
    for _ in range(29):
        assert not await watched.fail(after=30)
    assert await watched.fail(after=30)
    assert watched.store.last_reason == "reset"


class Vague(Fail):
    """A HEAD's error: a status without a code."""

    def error(self, asked: Asked) -> StoreError:
        return StoreError(self.failure, f"{asked.call} without a code", vague=True)


@virtual_time
async def test_a_reason_with_a_code_outlives_those_without() -> None:
    watched = Watched()
    for fault, told in (
        (Vague(), "head without a code"),
        (Fail(reason="ExpiredToken"), "ExpiredToken"),
        (Vague(), "ExpiredToken"),
        (Fail(reason="AccessDenied"), "AccessDenied"),
    ):
        watched.fake.script(Call.HEAD, fault)
        with pytest.raises(StoreError):
            await watched.store.head("k")
        assert watched.store.last_reason == told
    await watched.store.head("k")
    watched.fake.script(Call.HEAD, Vague())
    with pytest.raises(StoreError):
        await watched.store.head("k")
    assert watched.store.last_reason == "head without a code", "of an older time"


@pytest.mark.parametrize("answer", ["404", "200", "created", "412", "a listed key", "a folder", "a piece"])
@virtual_time
async def test_any_answer_begins_anew(answer: str) -> None:
    watched = Watched()
    for _ in range(29):
        await watched.fail(after=30)
    if answer in ("200", "412", "a listed key", "a folder", "a piece"):
        watched.fake.place("k", b"body")
        watched.fake.place("l/m", b"body")
    store = watched.store
    match answer:
        case "404" | "200":
            await store.head("k")
        case "created" | "412":
            await store.put_if_absent(UPLOAD)
        case "a listed key":  # of a listing that fails later
            watched.fake.plan = lambda asked: Fail() if len(watched.fake.asked(Call.LIST)) > 1 else None
            with pytest.raises(StoreError):
                _ = [key async for key in store.list_keys("")]
        case "a folder":
            _ = [folder async for folder in store.list_folders("")]
        case _:
            _ = [piece async for piece in store.read("k")]
    watched.fake.plan = lambda _: None
    for _ in range(10):
        assert not await watched.fail(after=30)


@virtual_time
async def test_a_process_with_nothing_to_ask_does_not_fail_meanwhile() -> None:
    watched = Watched()
    await watched.fail()
    assert not await watched.fail(after=5000)
    for _ in range(20):
        assert not await watched.fail(after=30)
    assert not await watched.fail(after=PAUSE_SECONDS)


@virtual_time
async def test_requests_that_last_longer_than_the_pause_still_count() -> None:
    watched = Watched()

    async def last(_: object) -> None:
        watched.now += 5 * PAUSE_SECONDS

    watched.fake.before = last
    assert [await watched.fail() for _ in range(4)] == [False, False, False, True]
