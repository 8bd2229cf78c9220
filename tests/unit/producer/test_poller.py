"""The poll loop in virtual time, with an API and a Kafka of the test's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from producer.fetcher import Ask, Fetched, FetchError
from producer.ledger import Delivery, Ledger, Parcel, Record
from producer.metrics import Metrics
from producer.parser import ApiError, BodyError
from producer.poller import Poller
from producer.redactor import Redactor
from producer.selection import Select
from producer.surroundings import Surroundings
from tests.unit.producer.plans import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class World:
    """Virtual time: sleeping moves the clock; the loop stops when the script of the API is at its end."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.surroundings = Surroundings(
            monotonic=lambda: self.now,
            wall=lambda: self.now + 1_800_000_000,
            sleep=self.sleep,
            uniform=lambda: 0.0,
            pick=lambda _: 0,
        )

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        await asyncio.sleep(0)


class EndOfScript(Exception):  # noqa: N818 -- it is no error
    pass


class ScriptedSource:
    """Each answer: seconds it takes and the body, or the error."""

    def __init__(self, world: World, answers: Sequence[tuple[float, bytes | FetchError | None]]) -> None:
        self.world = world
        self.answers = list(answers)
        self.asked: list[float] = []
        self.asks: list[Ask] = []

    async def fetch(self, ask: Ask, end: float) -> Fetched:
        if not self.answers:
            raise EndOfScript
        self.asked.append(self.world.now)
        self.asks.append(ask)
        seconds, answer = self.answers.pop(0)
        self.world.now += seconds
        if isinstance(answer, FetchError):
            raise answer
        body = None if answer is None else bytearray(answer)
        return Fetched(
            body=body,
            arrived_wall=1_800_000_000.5,
            arrived_monotonic=self.world.now,
            validators={"if-none-match": f'"{len(self.asks)}"'},
        )

    def unusable(self, error: BodyError) -> FetchError:
        return FetchError("api_error" if isinstance(error, ApiError) else "unusable", error.reason)


class Outlet:
    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.deliveries: list[asyncio.Future[Delivery]] = []

    def submit(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        self.parcels.append(parcel)
        self.deliveries.append(asyncio.get_running_loop().create_future())
        return self.deliveries[-1]


class Rig:
    def __init__(
        self,
        *answers: tuple[float, bytes | FetchError | None],
        select: Select = Select.ALL,
        named: bool = False,
    ) -> None:
        self.world = World()
        self.source = ScriptedSource(self.world, answers)
        self.outlet = Outlet()
        self.ledger = Ledger()
        self.metrics = Metrics(unacked_bytes=lambda: self.ledger.unacked_bytes)
        self.poller = Poller(
            plan(select=select),
            self.source,
            self.outlet,
            ledger=self.ledger,
            max_unacked_bytes=1000,
            metrics=self.metrics.endpoint("api"),
            redactor=Redactor(["CANARY"]),
            surroundings=self.world.surroundings,
            named=named,
        )

    async def run(self) -> None:
        with pytest.raises(EndOfScript):
            await self.poller.run()

    def count(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(name, {"endpoint": "api", **labels})
        assert value is not None
        return value


GOOD = b'[{"symbol":"A"},{"symbol":"B"}]'


async def test_ten_thousand_polls_stay_on_the_grid() -> None:
    rig = Rig(*[(0.5, b"[]")] * 10_000)
    await rig.run()
    assert rig.source.asked == [1000.0 + 2.0 * tick for tick in range(10_000)]
    assert rig.count("ticklake_producer_ticks_total", outcome="ok") == 10_000


async def test_ticks_that_come_due_during_a_slow_one_are_skipped_and_counted() -> None:
    rig = Rig((5.0, GOOD), (0.1, GOOD))
    await rig.run()
    assert rig.source.asked == [1000.0, 1006.0]
    assert rig.count("ticklake_producer_ticks_skipped_total", reason="overrun") == 2


async def test_told_to_wait_ticks_are_skipped_as_throttled() -> None:
    rig = Rig((0.0, FetchError("throttled", "HTTP 429", 7.0)), (0.0, GOOD))
    await rig.run()
    assert rig.source.asked == [1000.0, 1008.0]
    assert rig.count("ticklake_producer_ticks_skipped_total", reason="throttled") == 3
    assert rig.count("ticklake_producer_ticks_total", outcome="throttled") == 1


async def test_ticks_are_skipped_before_fetching_while_too_much_waits_for_kafka() -> None:
    rig = Rig((0.0, GOOD))
    waiting = Parcel(source="s", time="t", topic="task", records=[Record(key=None, value=b"x" * 1000)])
    rig.ledger.take(waiting, 0.0)
    sleeps = 0

    async def sleep(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps == 3:
            rig.ledger.settle(waiting, waiting.records)
        rig.world.now += seconds
        await asyncio.sleep(0)

    world = Surroundings(
        monotonic=lambda: rig.world.now, wall=lambda: 0.0, sleep=sleep, uniform=lambda: 0.0, pick=lambda _: 0
    )
    rig.poller._surroundings = world
    await rig.run()
    assert rig.source.asked == [1006.0]
    assert rig.count("ticklake_producer_ticks_skipped_total", reason="unacked") == 3


async def test_a_failure_that_lasts_is_logged_when_it_is_new_and_once_a_minute() -> None:
    rig = Rig(*[(0.0, FetchError("refused", "HTTP 404"))] * 45, (0.0, FetchError("unreachable", "gone")))
    with structlog.testing.capture_logs() as lines:
        await rig.run()
    assert [line["reason"] for line in lines] == ["HTTP 404", "HTTP 404", "gone"]
    assert rig.count("ticklake_producer_ticks_total", outcome="refused") == 45


async def test_a_failure_after_a_success_is_new() -> None:
    gone = FetchError("unreachable", "gone")
    rig = Rig((0.0, gone), (0.0, GOOD), (0.0, gone))
    with structlog.testing.capture_logs() as lines:
        await rig.run()
    assert [line["reason"] for line in lines] == ["gone", "gone"]


async def test_a_failed_tick_is_the_reason_until_one_succeeds() -> None:
    rig = Rig((0.0, FetchError("refused", "HTTP 404")))
    assert rig.poller.failure == "no poll has succeeded yet"
    await rig.run()
    assert rig.poller.failure == "HTTP 404"
    assert rig.poller.last_success is None
    rig.source.answers = [(0.0, b"[]")]
    await rig.run()
    assert rig.poller.failure is None
    assert rig.poller.last_success is not None


@pytest.mark.parametrize(("body", "outcome"), [(b"[{]", "unusable"), (b'{"error":"no"}', "api_error")])
async def test_a_body_that_cannot_be_used_fails_the_tick_alone(body: bytes, outcome: str) -> None:
    rig = Rig((0.0, body), (0.0, GOOD))
    await rig.run()
    assert rig.count("ticklake_producer_ticks_total", outcome=outcome) == 1
    assert len(rig.outlet.parcels) == 1


async def test_the_parcel_has_the_records_bytes_keys_source_and_time_of_arrival() -> None:
    rig = Rig((0.0, b'[{"symbol":"A", "p":1.0},{"p":2}]'))
    _ = await rig.poller.tick()
    (parcel,) = rig.outlet.parcels
    assert parcel.records == [Record(key=b"A", value=b'{"symbol":"A", "p":1.0}'), Record(key=None, value=b'{"p":2}')]
    assert (parcel.source, parcel.time, parcel.topic) == ("http://h/x", "2027-01-15T08:00:00.500Z", "task")


async def logged(rig: Rig, act: Callable[[], object]) -> list[dict[str, object]]:
    with structlog.testing.capture_logs() as lines:
        _ = await rig.poller.tick()
        act()
        await asyncio.sleep(0)
    return [dict(line) for line in lines]


async def test_message_sent_is_said_after_the_acknowledgement_only() -> None:
    assert not await logged(Rig((0.0, GOOD)), lambda: None)
    rig = Rig((0.0, GOOD))
    (line,) = await logged(rig, lambda: rig.outlet.deliveries[0].set_result(Delivery(acknowledged=2)))
    assert (line["event"], line["records"], line["seconds"]) == ("Message sent", 2, 0.0)


async def test_what_was_set_aside_as_too_large_is_not_said_to_be_sent() -> None:
    rig = Rig((0.0, GOOD))
    (line,) = await logged(rig, lambda: rig.outlet.deliveries[0].set_result(Delivery(acknowledged=1)))
    assert line["records"] == 1
    rig = Rig((0.0, GOOD))
    assert not await logged(rig, lambda: rig.outlet.deliveries[0].set_result(Delivery(acknowledged=0)))


async def test_in_random_mode_message_sent_shows_the_record_and_its_key() -> None:
    rig = Rig((0.0, b'[{"symbol":"A","k":"CANARY"}]'), select=Select.RANDOM)
    (line,) = await logged(rig, lambda: rig.outlet.deliveries[0].set_result(Delivery(acknowledged=2)))
    assert (line["event"], line["record"], line["key"]) == ("Message sent", '{"symbol":"A","k":"***"}', "A")


async def test_records_set_aside_are_one_line_with_the_first_few() -> None:
    rig = Rig((0.0, b'[1,2,3,4,"CANARY",{"symbol":"A"}]'))
    (line,) = await logged(rig, lambda: None)
    assert line["event"] == "Records set aside"
    assert line["records"] == 5
    assert line["first"] == [{"index": n, "reason": "not_an_object", "begins": str(n + 1)} for n in range(3)]
    assert rig.metrics.registry.get_sample_value("ticklake_producer_set_aside_total", {"reason": "not_an_object"}) == 5


@pytest.mark.parametrize(
    ("body", "event"), [(b'[{"ticker":"A"}]', "No record has a key"), (b"null", "Nothing at the records pointer")]
)
async def test_an_oddity_is_told_when_it_begins_and_not_at_every_poll(body: bytes, event: str) -> None:
    rig = Rig((0.0, body), (0.0, body), (0.0, GOOD), (0.0, body))
    with structlog.testing.capture_logs() as lines:
        await rig.run()
    assert [line["event"] for line in lines] == [event, event]


async def test_a_record_without_key_is_no_oddity_while_its_siblings_have_one() -> None:
    rig = Rig((0.0, b'[{"a":1},{"symbol":"B"}]'), select=Select.RANDOM)
    with structlog.testing.capture_logs() as lines:
        await rig.run()
    assert rig.outlet.parcels[0].records == [Record(key=None, value=b'{"a":1}')]
    assert lines == []


async def test_no_content_is_a_success_without_records() -> None:
    rig = Rig((0.0, None))
    await rig.run()
    assert rig.poller.failure is None
    assert list(rig.outlet.parcels[0].records) == []


async def test_alive_is_turning_and_waiting_on_purpose_is_turning() -> None:
    rig = Rig((0.0, GOOD))
    await rig.run()
    rig.world.now = rig.poller._expected + 30.0
    assert rig.poller.overdue_seconds() == 0.0
    rig.world.now += 5.0
    assert rig.poller.overdue_seconds() == 5.0


async def test_in_changed_mode_what_was_handed_over_is_not_new_and_what_was_set_aside_is() -> None:
    rig = Rig((0.0, GOOD), (0.0, GOOD), (0.0, GOOD), select=Select.CHANGED)
    _ = await rig.poller.tick()
    _ = await rig.poller.tick()
    first, second = rig.outlet.parcels
    assert [record.key for record in first.records] == [b"A", b"B"]
    assert list(second.records) == []
    assert [ask.validators for ask in rig.source.asks] == [{}, {"if-none-match": '"1"'}]
    rig.outlet.deliveries[0].set_result(Delivery(acknowledged=1, set_aside=(first.records[1],)))
    await asyncio.sleep(0)
    _ = await rig.poller.tick()
    assert [record.key for record in rig.outlet.parcels[2].records] == [b"B"]
    assert rig.source.asks[2].validators == {}  # else a 304 would hide it


async def test_what_is_set_aside_while_the_next_poll_is_under_way_is_not_hidden_by_its_validators() -> None:
    rig = Rig((0.0, GOOD), (0.0, GOOD), (0.0, GOOD), select=Select.CHANGED)
    _ = await rig.poller.tick()
    (first,) = rig.outlet.parcels
    fetch = rig.source.fetch

    async def answered_late(ask: Ask, end: float) -> Fetched:
        rig.outlet.deliveries[0].set_result(Delivery(acknowledged=1, set_aside=(first.records[1],)))
        await asyncio.sleep(0)
        return replace(await fetch(ask, end), body=None, unchanged=True)

    rig.source.fetch = answered_late  # type: ignore[method-assign]
    _ = await rig.poller.tick()
    rig.source.fetch = fetch  # type: ignore[method-assign]
    _ = await rig.poller.tick()
    assert [ask.validators for ask in rig.source.asks] == [{}, {"if-none-match": '"1"'}, {}]
    assert [record.key for record in rig.outlet.parcels[2].records] == [b"B"]


async def test_in_changed_mode_a_poll_that_fails_is_not_remembered() -> None:
    rig = Rig((0.0, b"[{]"), (0.0, GOOD), select=Select.CHANGED)
    await rig.run()
    assert len(rig.outlet.parcels[0].records) == 2
    assert [ask.validators for ask in rig.source.asks] == [{}, {}]


async def test_beside_others_its_lines_tell_the_endpoints_name() -> None:
    rig = Rig((0.0, FetchError("refused", "HTTP 404")), named=True)
    with structlog.testing.capture_logs() as lines:
        await rig.run()
    assert [(line["event"], line["endpoint"]) for line in lines] == [("Poll failed", "api")]
