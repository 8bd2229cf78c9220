"""A misbehaving API and Kafka in virtual time, around the real poller and fetcher, and what must hold of their clock.

Owns: the faults, drawn from a seed; what was seen at the API, at Kafka and of the ticks; the rules they are held to.
Does not own: the loop whose time is virtual (`tests.virtual_time`), which worlds are run (`test_clock`).

The rules are computed from what was seen, not from the code's own arithmetic.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, Self

import httpx
import structlog

from producer.fetcher import Fetcher, FetchError
from producer.ledger import Delivery, Ledger, Parcel
from producer.metrics import Metrics
from producer.pacing import RateLimit
from producer.pointer import parse_pointer
from producer.poller import Poller
from producer.redactor import Redactor
from producer.surroundings import Surroundings
from tests.unit.producer.plans import plan
from tests.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

URL: Final = "http://api.test/quotes"
WALL_SECONDS: Final = 1_800_000_000.0
HAIR_SECONDS: Final = 1e-5
WEATHERS: Final = ("fair", "slow", "hang", "errors", "resets", "told to wait", "drip")


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request as the API saw it. `told_seconds`: how long it told us to wait, in the answer of `answered`."""

    started: float
    arrived: float | None = None
    answered: float | None = None
    ended: float | None = None
    told_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Tick:
    """`told_until`: no tick may run before, by what the API said in this one."""

    began: float
    ended: float | None = None
    told_until: float = 0.0


class Body(httpx.AsyncByteStream):
    """Comes in two halves, `seconds` in all."""

    def __init__(self, content: bytes, seconds: float, visit: Visit) -> None:
        self._content = content
        self._seconds = seconds
        self._visit = visit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        half = len(self._content) // 2
        for part in (self._content[:half], self._content[half:]):
            await asyncio.sleep(self._seconds / 2)
            yield part

    async def aclose(self) -> None:
        self._visit.ended = asyncio.get_running_loop().time()


class StormyApi(httpx.AsyncBaseTransport):
    """Each weather lasts for some requests. `slowest_seconds`: what an answer takes that still comes."""

    def __init__(self, world: ClockWorld, dice: random.Random, *, slowest_seconds: float, pages: int) -> None:
        self.world = world
        self.dice = dice
        self.slowest_seconds = slowest_seconds
        self.pages = pages
        self.weather = "fair"
        self.visits: list[Visit] = []
        self.seen_weathers: set[str] = set()
        self._numbers = itertools.count()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = asyncio.get_running_loop().time
        visit = Visit(started=now())
        self.visits.append(visit)
        if self.dice.random() < self.world.changeable:
            self.weather = self.dice.choice(self.world.weathers)
        weather = self.weather
        self.seen_weathers.add(weather)
        latency = self.dice.uniform(0, self.slowest_seconds if weather == "slow" else 0.4)
        before = self.dice.choice([0.0, latency, self.dice.uniform(0, latency)])
        try:
            await asyncio.sleep(before)
            visit.arrived = now()
            await asyncio.sleep(1e5 if weather == "hang" else latency - before)
            if weather == "resets":
                raise self.dice.choice([httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError])("reset")
        except BaseException:
            # Cut off before it had arrived: it may have been on its way, and arrived at the last moment.
            visit.arrived = now() if visit.arrived is None else visit.arrived
            visit.ended = now()
            raise
        visit.answered = now()
        status, headers, content = self._answer(weather, request, visit)
        seconds = self.dice.uniform(0, self.slowest_seconds) if weather == "drip" else 0.0
        return httpx.Response(status, headers=headers, stream=Body(content, seconds, visit))

    def _answer(self, weather: str, request: httpx.Request, visit: Visit) -> tuple[int, dict[str, str], bytes]:
        if weather == "errors":
            return self.dice.choice([500, 502, 503, 504, 408]), {}, b"no"
        if weather == "told to wait":
            status = self.dice.choice([429, 503])
            return status, self._wait(status, visit), b"slow down"
        page = int(request.url.params.get("page", "1"))
        body: dict[str, object] = {"results": [{"symbol": f"S{next(self._numbers)}"}]}
        if page < self.pages and self.dice.random() > 1 / self.pages:
            body["next"] = f"{URL}?page={page + 1}"
        return 200, {}, json.dumps(body).encode()

    def _wait(self, status: int, visit: Visit) -> dict[str, str]:
        form = self.dice.choice(["seconds", "date", "none"] if self.world.dates else ["seconds", "none"])
        if form == "none":
            if status == 429:
                visit.told_seconds = 60.0
            return {}
        seconds = self.dice.choice([0, 1, 7, 30, 61])
        if form == "date":
            wall = self.world.wall()
            moment = max(0, int(wall) + seconds)
            visit.told_seconds = max(0.0, moment - wall)
            return {"retry-after": formatdate(moment, usegmt=True)}
        visit.told_seconds = float(seconds)
        return {"retry-after": str(seconds)}


class FlakyKafka:
    """Acknowledges after a moment, and not at all while it is away, which it is now and then."""

    def __init__(self, dice: random.Random, ledger: Ledger, *, away_seconds: float) -> None:
        self.dice = dice
        self.ledger = ledger
        self.away_seconds = away_seconds
        self.back = 0.0
        self.parcels: list[Parcel] = []
        self.waiting_bytes: list[tuple[float, int]] = [(0.0, 0)]  # since when how many
        self.brought_bytes: list[tuple[float, int]] = [(0.0, 0)]  # when, by one poll

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        loop = asyncio.get_running_loop()
        self.parcels.append(parcel)
        self.brought_bytes.append((loop.time(), sum(record.cost_bytes for record in parcel.records)))
        delivery: asyncio.Future[Delivery] = loop.create_future()
        if not parcel.records:
            delivery.set_result(Delivery(acknowledged=0))
            return delivery
        if loop.time() > self.back and self.dice.random() < 0.02:
            self.back = loop.time() + self.dice.uniform(0, self.away_seconds)
        self.ledger.take(parcel, loop.time())
        self._note()
        loop.call_at(max(self.back, loop.time()) + self.dice.uniform(0.001, 0.05), self._acknowledge, parcel, delivery)
        return delivery

    def _acknowledge(self, parcel: Parcel, delivery: asyncio.Future[Delivery]) -> None:
        done = self.ledger.settle(parcel, parcel.records)
        assert done is not None
        delivery.set_result(done)
        self._note()

    def _note(self) -> None:
        self.waiting_bytes.append((asyncio.get_running_loop().time(), self.ledger.unacked_bytes))

    def bytes_at(self, moment: float) -> int:
        return _latest(self.waiting_bytes, moment)

    def last_poll_bytes(self, moment: float) -> int:
        return _latest(self.brought_bytes, moment)


def _latest(noted: list[tuple[float, int]], moment: float) -> int:
    return noted[bisect_right(noted, (moment, 1 << 60)) - 1][1]


class WatchedPoller(Poller):
    """The real one, whose ticks are noted."""

    world: ClockWorld

    async def tick(self) -> asyncio.Future[Delivery]:
        now = self.world.loop.time
        tick = Tick(began=now())
        self.world.ticks.append(tick)
        wait_seconds = 0.0
        try:
            return await super().tick()
        except FetchError as error:
            wait_seconds = error.wait_seconds
            raise
        finally:
            tick.ended = now()
            tick.told_until = tick.ended + wait_seconds


@dataclass(kw_only=True)
class ClockWorld:
    """`changeable`: the chance that the weather changes with a request; `dates`: `Retry-After` comes as a date too;
    `stepping`: the wall clock does, now and then.
    """

    seed: int
    interval_seconds: float = 2.0
    timeout_seconds: float = 10.0
    per_minute: int | None = None
    pages: int = 1
    weathers: Sequence[str] = WEATHERS
    changeable: float = 0.2
    away_seconds: float = 60.0
    dates: bool = True
    stepping: bool = False
    max_unacked_bytes: int = 1000
    ticks: list[Tick] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wall_step_seconds = 0.0

    async def run(self, due_ticks: int) -> Self:
        """Until so many ticks have come due."""
        with structlog.testing.capture_logs() as self.lines:
            async with self.polling() as loop:
                await asyncio.sleep(self.due(due_ticks) - self.plan.period_seconds / 2 - self.loop.time())
                assert not loop.done(), loop
                self.stopped = self.loop.time()
            visits = len(self.api.visits)
            await asyncio.sleep(100.0)
            assert len(self.api.visits) == visits
        return self

    @contextlib.asynccontextmanager
    async def polling(self) -> AsyncIterator[asyncio.Task[None]]:
        """The poller's loop, running; cancelled at the end, as by a stop of the service."""
        self._build()
        async with httpx.AsyncClient(transport=self.api, timeout=None, trust_env=False) as client:
            poller = self._poller(client)
            polling = asyncio.create_task(poller.run())
            tasks = [polling, *([asyncio.create_task(self._step_the_wall())] if self.stepping else [])]
            try:
                await asyncio.sleep(0)
                yield polling
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _build(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.ledger = Ledger()
        self.metrics = Metrics(unacked_bytes=lambda: self.ledger.unacked_bytes)
        self.plan = plan(
            URL,
            records_pointer=parse_pointer("/results"),
            next_pointer=parse_pointer("/next") if self.pages > 1 else None,
            interval_seconds=self.interval_seconds,
            timeout_seconds=self.timeout_seconds,
            rate_limit_per_minute=self.per_minute,
            max_body_bytes=10_000,
        )
        self.api = StormyApi(
            self, random.Random(f"api {self.seed}"), slowest_seconds=3 * self.plan.period_seconds, pages=self.pages
        )
        self.kafka = FlakyKafka(random.Random(f"kafka {self.seed}"), self.ledger, away_seconds=self.away_seconds)
        self.began = loop.time()

    def _poller(self, client: httpx.AsyncClient) -> WatchedPoller:
        dice = random.Random(f"jitter {self.seed}")
        self.phase = dice.random()
        draws = itertools.chain([self.phase], iter(dice.random, None))
        surroundings = Surroundings(
            monotonic=self.loop.time,
            wall=self.wall,
            sleep=asyncio.sleep,
            uniform=lambda: next(draws),
            pick=dice.randrange,
        )
        redactor = Redactor([])
        fetcher = Fetcher(
            client,
            limit=None if self.per_minute is None else RateLimit(self.per_minute),
            redactor=redactor,
            surroundings=surroundings,
            plan=self.plan,
        )
        poller = WatchedPoller(
            self.plan,
            fetcher,
            self.kafka,
            ledger=self.ledger,
            max_unacked_bytes=self.max_unacked_bytes,
            metrics=self.metrics.endpoint("api"),
            redactor=redactor,
            surroundings=surroundings,
        )
        poller.world = self
        return poller

    def wall(self) -> float:
        return WALL_SECONDS + self.loop.time() + self.wall_step_seconds

    async def _step_the_wall(self) -> None:
        dice = random.Random(f"steps {self.seed}")
        while True:
            await asyncio.sleep(dice.uniform(0, 60))
            self.wall_step_seconds = dice.choice([-86_400.0, -1.0, 0.5, 3600.0, -WALL_SECONDS])

    def due(self, tick: int) -> float:
        return self.began + self.phase * min(self.plan.period_seconds, 5.0) + tick * self.plan.period_seconds

    def number(self, moment: float) -> int:
        """Of the tick whose time it is."""
        return int((moment - self.due(0) + HAIR_SECONDS) // self.plan.period_seconds)

    def counted(self, name: str) -> dict[str, float]:
        """By reason or outcome, without zeros."""
        return {
            next(value for label, value in sample.labels.items() if label != "endpoint"): sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == name and sample.value
        }

    # What must hold.

    def check(self) -> None:
        self.check_grid()
        self.check_skips()
        self.check_deadlines()
        self.check_told_to_wait()
        self.check_rate()

    def check_grid(self) -> None:
        """No drift, no overlap, no burst."""
        for tick in self.ticks:
            assert 0 <= tick.began - self.due(self.number(tick.began)) < HAIR_SECONDS
        for earlier, later in itertools.pairwise(self.ticks):
            assert earlier.ended is not None
            assert earlier.ended <= later.began
            assert later.began - earlier.began > self.plan.period_seconds - HAIR_SECONDS
        for visit, following in itertools.pairwise(self.api.visits):
            assert visit.ended is not None
            assert visit.ended <= following.started

    def check_skips(self) -> None:
        """Every tick that came due is a tick that ran or one skip, of the right reason."""
        ran = {self.number(tick.began) for tick in self.ticks}
        last = self.ticks[-1]
        assert last.ended is not None
        under_way = last.ended >= self.stopped
        end = self.number(last.began) if under_way else self.number(self.stopped) + 1
        expected: dict[str, float] = {}
        for number in range(end):
            if number not in ran:
                reason = self._reason(self.due(number))
                expected[reason] = expected.get(reason, 0) + 1
        assert self.counted("ticklake_producer_ticks_skipped_total") == expected
        outcomes = self.counted("ticklake_producer_ticks_total")
        assert sum(outcomes.values()) == len(ran) - under_way
        assert sum(outcomes.values()) + sum(expected.values()) == end

    def _reason(self, due: float) -> str:
        earlier = self.ticks[bisect_right(self.ticks, due, key=lambda tick: tick.began) - 1]
        assert earlier.ended is not None
        if due <= earlier.ended:
            return "overrun"
        if due < earlier.told_until:
            return "throttled"
        waiting = self.kafka.bytes_at(due + HAIR_SECONDS)
        assert waiting, "skipped for no reason"
        assert waiting + self.kafka.last_poll_bytes(due) > self.max_unacked_bytes, "skipped for no reason"
        return "unacked"

    def check_deadlines(self) -> None:
        budget = max(self.plan.period_seconds, self.timeout_seconds)
        for tick in self.ticks:
            assert tick.ended is not None
            assert tick.ended - tick.began <= budget + HAIR_SECONDS
        for visit in self.api.visits:
            assert visit.ended is not None
            assert visit.ended - visit.started <= self.timeout_seconds + HAIR_SECONDS

    def check_told_to_wait(self) -> None:
        for visit, following in itertools.pairwise(self.api.visits):
            if visit.told_seconds is not None:
                assert visit.answered is not None
                assert following.started >= visit.answered + visit.told_seconds - HAIR_SECONDS

    def check_rate(self) -> None:
        if self.per_minute is not None:
            arrivals = list(self.arrivals())
            for first, one_too_many in zip(arrivals, arrivals[self.per_minute :], strict=False):
                assert one_too_many - first > 60.0
            for earlier, later in itertools.pairwise(self.api.visits):
                assert later.started - earlier.started >= 60.0 / self.per_minute - HAIR_SECONDS

    def arrivals(self) -> Iterator[float]:
        for visit in self.api.visits:
            assert visit.arrived is not None
            yield visit.arrived

    def fullest_minute(self) -> int:
        arrivals = list(self.arrivals())
        return max(bisect_right(arrivals, first + 60.0) - place for place, first in enumerate(arrivals))
