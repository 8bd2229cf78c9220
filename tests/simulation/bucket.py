"""The way from a process to the bucket and back: latency, lost requests, lost answers, refusals, outages.

Owns: what becomes of each request, drawn from the seed; the deadline of an attempt, as the real store has one; puts
that land long after they were given up. Does not own: the bucket itself (`tests.fakes.store`), retries (the consumer).

The bucket's side runs outside all processes: a request on its way arrives though its sender is frozen, cancelled, dead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from consumer.ports import Failure, PutAnswer, StoreError
from tests.fakes.store import Asked, Call, FakeStore
from tests.simulation.processes import context_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from consumer.ports import Found, Upload
    from tests.simulation.auditor import Auditor

T = TypeVar("T")

SLOW: Final = 20  # times the latency of a clear sky


class Sky(StrEnum):
    """What the whole store is like for a while."""

    CLEAR = "clear"
    OUTAGE = "outage"  # requests vanish, or connections are refused
    DENIED = "denied"
    EXPIRED = "expired"  # credentials
    THROTTLED = "throttled"
    STORM = "storm"  # every second request meets a fault
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one request. Seconds there and back; None = it never arrives, its answer never comes.

    `error` is what the caller sees instead of the answer; `twice` = the client sent it twice by itself.
    """

    there: float | None
    back: float | None
    error: Failure | None = None
    twice: bool = False


class Weather:
    """Draws the fate of each request."""

    def __init__(self, random: Random, *, roughness: float, latency_seconds: float, late_seconds: float) -> None:
        self.sky = Sky.CLEAR
        self.roughness = roughness
        self._random = random
        self.latency_seconds = latency_seconds  # one way, on average
        self._late_seconds = late_seconds  # how long after its deadline a request may still arrive
        self._until = 0.0

    def change(self, sky: Sky, until: float) -> None:
        self.sky, self._until = sky, until

    def fate(self, call: Call, now: float, deadline_seconds: float) -> Fate:
        sky = self.sky if now < self._until else Sky.CLEAR
        chance = self._random.random()
        there, back = self._latency(sky), self._latency(sky)
        match sky:
            case Sky.OUTAGE if chance < 0.5:
                return Fate(there=None, back=None)
            case Sky.OUTAGE:
                return Fate(there=None, back=back, error=Failure.UNAVAILABLE)
            case Sky.DENIED:
                return Fate(there=None, back=back, error=Failure.REFUSED)
            case Sky.EXPIRED:
                return Fate(there=None, back=back, error=Failure.CREDENTIALS)
            case Sky.THROTTLED if chance < 0.7:
                return Fate(there=None, back=back, error=Failure.UNAVAILABLE)
        if self._random.random() >= (0.5 if sky is Sky.STORM else self.roughness):
            return Fate(there=there, back=back)
        return self._mishap(call, there, back, deadline_seconds)

    def _mishap(self, call: Call, there: float, back: float, deadline_seconds: float) -> Fate:
        late = deadline_seconds + self._random.uniform(0.0, self._late_seconds)
        fates = [
            Fate(there=None, back=back, error=Failure.UNAVAILABLE),  # 5xx, nothing done; or a broken connection
            Fate(there=there, back=back, error=Failure.UNAVAILABLE),  # done all the same
            Fate(there=there, back=None),  # done, silence
            Fate(there=None, back=None),  # nothing done, silence
            Fate(there=late, back=None),  # given up, and then done
            Fate(there=self._random.uniform(0.5, deadline_seconds), back=self._random.uniform(0.0, deadline_seconds)),
        ]
        if call is Call.PUT:
            fates += [
                Fate(there=None, back=back, error=Failure.CONFLICT),
                Fate(there=there, back=back, error=Failure.CONFLICT),  # its own twin won
                Fate(there=there, back=back, twice=True),
            ]
        return self._random.choice(fates)

    def _latency(self, sky: Sky) -> float:
        return self._random.expovariate(1.0 / (self.latency_seconds * (SLOW if sky is Sky.SLOW else 1)))


class StoreClient:
    """ports.Store for one process, on the bucket that all share."""

    def __init__(
        self, store: FakeStore, *, process: str, weather: Weather, auditor: Auditor, timeout_seconds: float
    ) -> None:
        self.puts: dict[str, int] = {}  # under way, by key: asked for, not answered, or still to land
        self.on_put: Callable[[], None] | None = None  # called when the next put is on its way
        self.next_put_there: float | None = None  # how long that one takes there
        self._store = store
        self._process = process
        self._weather = weather
        self._auditor = auditor
        self._timeout_seconds = timeout_seconds

    # ---- ports.Store -------------------------------------------------------------------------------------------------

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        self._auditor.put_starts(self._process, upload)
        return await self._ask(Call.PUT, upload.key, partial(self._create, upload))

    async def head(self, key: str) -> Found | None:
        return await self._ask(Call.HEAD, key, partial(self._store.find, key))

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        async for entry in self._pages(Asked(call=Call.LIST, key=prefix)):
            yield entry

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        async for entry in self._pages(Asked(call=Call.FOLDERS, key=prefix)):
            yield entry

    async def get(self, key: str) -> bytes | None:
        there = await self._ask(Call.GET, key, partial(self._store.objects.get, key))
        return None if there is None else there.body

    async def read(self, key: str) -> AsyncIterator[bytes]:
        body = await self.get(key)
        if body is None:
            raise StoreError(Failure.REFUSED, f"read {key}: NoSuchKey")
        yield body

    async def _pages(self, asked: Asked) -> AsyncIterator[str]:
        last: str | None = ""
        while last is not None:
            entries, last = await self._ask(asked.call, asked.key, partial(self._store.page, asked, last))
            for entry in entries:
                yield entry

    # ---- there and back ----------------------------------------------------------------------------------------------

    async def _ask(self, call: Call, key: str, serve: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        fate = self._weather.fate(call, loop.time(), self._timeout_seconds)
        if call is Call.PUT and self.next_put_there is not None:
            fate, self.next_put_there = Fate(there=self.next_put_there, back=0.0), None
        answer: asyncio.Future[T] = loop.create_future()
        if fate.there is not None:
            loop.call_later(fate.there, self._arrive, fate, f"{call} {key}", serve, answer, context=context_of())
        elif fate.back is not None:
            loop.call_later(fate.back, self._answer, fate, f"{call} {key}", None, answer, context=context_of())
        if call is Call.PUT:
            self._put_is_on_its_way(key)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await answer
        except TimeoutError:
            self._auditor.seen["store silent"] += 1
            raise StoreError(Failure.UNAVAILABLE, f"{call} {key}: no answer") from None
        finally:
            if call is Call.PUT:
                self._put_is_over(key)

    def _put_is_on_its_way(self, key: str) -> None:
        self.puts[key] = self.puts.get(key, 0) + 1
        if self.on_put is not None:
            then, self.on_put = self.on_put, None
            then()

    def _put_is_over(self, key: str) -> None:
        self.puts[key] -= 1
        if not self.puts[key]:
            del self.puts[key]

    def _create(self, upload: Upload) -> PutAnswer:
        answer = self._store.create(upload)
        self._auditor.put_lands(self._process, upload, answer)
        return answer

    def _arrive(self, fate: Fate, what: str, serve: Callable[[], T], answer: asyncio.Future[T]) -> None:
        result = serve()
        if answer.done():
            self._auditor.seen["landed after it was given up"] += 1
        if fate.twice:
            result = serve()
        if fate.back is None or fate.error is not None:
            self._auditor.seen["answer lost after the effect"] += 1
        if fate.back is not None:
            asyncio.get_running_loop().call_later(fate.back, self._answer, fate, what, result, answer)

    def _answer(self, fate: Fate, what: str, result: T | None, answer: asyncio.Future[T]) -> None:
        if answer.done():
            return
        if fate.error is None:
            answer.set_result(result)  # type: ignore[arg-type]  # without an error there is a result
        else:
            self._auditor.seen[f"store: {fate.error}"] += 1
            answer.set_exception(StoreError(fate.error, f"{what}: {fate.error}"))
