"""The producer while Kafka is away, frozen, killed, slow or rude: it lives, waits, and accounts for every record."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import for_code

from demo.ports import free_port
from tests.kafka_proxy import (
    HELD_ANSWER,
    INVALID_PRODUCER_EPOCH,
    INVALID_RECORD,
    INVALID_TIMESTAMP,
    LOST_ANSWER,
    NOT_ENOUGH_REPLICAS,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    PASS,
    REQUEST_TIMED_OUT,
    TOPIC_AUTHORIZATION_FAILED,
    UNKNOWN_PRODUCER_ID,
    Fate,
    KafkaProxy,
    Kind,
    always,
)
from tests.numbered_api import NumberedApi, RecordId, record_id
from tests.processes import ServiceProcess
from tests.producer_witness import (
    PERIOD_SECONDS,
    SINCE,
    WATCH_SECONDS,
    environ,
    judged,
    metrics,
    said,
    ticks,
    total,
    watched,
)
from tests.scripted_api import http, scripted_api
from tests.servers import Kafka, eventually, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.numbered_api import Account
    from tests.produce_requests import Produce
    from tests.producer_witness import Ticks
    from tests.servers import KafkaRecord


OUTAGE_SECONDS = 30.0
RED_SECONDS = 10.0  # records may wait that long before readiness says so
GREEN_SECONDS = 20.0  # from the broker's first answer on
MAX_UNACKED_BYTES = 60_000
MAX_RECORD_COST = 2_000  # more than any record here counts for, what the process itself adds included
MEMORY_BYTES = 200_000_000
TICKS_SLACK = 5
LOG_LINES = 40  # of an outage, besides those that tell what was sent
# A broker that was killed is registered anew only when its old session has ended; 9 s by default.
QUICK_BROKER = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


@dataclass(slots=True, kw_only=True)
class Run:
    """A producer that lives through outages."""

    producer: ServiceProcess
    api: NumberedApi
    max_unacked_bytes: int

    async def green_again(self) -> None:
        """Ready, and records that were fetched from now on are acknowledged."""
        newest = len(self.api.served)
        await eventually(self.producer.is_ready, "readiness", GREEN_SECONDS, every_seconds=0.2)
        await eventually(
            lambda: any(self.api.poll_of(size) >= newest for size in said(self.producer)), "records sent", GREEN_SECONDS
        )

    @asynccontextmanager
    async def outage(self, bootstrap_servers: str, topic: str) -> AsyncIterator[None]:
        """Around something that keeps records from being acknowledged, from steady to steady."""
        await self.producer.logged("Message sent", count=5)
        await self.green_again()
        lines, sent = len(self.producer.lines()), len(said(self.producer))
        async with watched(self.producer) as watch:
            before, began = await self._steady(), time.monotonic()
            yield
            lasted = time.monotonic() - began
            await self.green_again()
            await eventually(self._counted_since(before), "every tick that was due, ran or skipped", 20, 0.5)
            after = await ticks(self.producer)
        assert lasted >= OUTAGE_SECONDS
        assert all(watch.alive)
        assert len(watch.reasons) >= (lasted - RED_SECONDS) / WATCH_SECONDS / 3, watch.reasons
        for reasons in watch.reasons:
            assert topic in reasons or bootstrap_servers in reasons
            assert SINCE.search(reasons), reasons
        # As much as another poll like the last would fit beside; polls differ, so by what they do it may be more.
        most = self.max_unacked_bytes + MAX_RECORD_COST * max(self.api.served)
        assert self.max_unacked_bytes / 2 < max(watch.unacked_bytes) <= most
        assert after.skipped_unacked - before.skipped_unacked > 20
        assert self.producer.lines("Ticks skipped")[-1]["reason"] in {"unacked", "overrun"}
        assert len(self.producer.lines()) - lines - (len(said(self.producer)) - sent) < LOG_LINES
        assert self.producer.peak_memory_bytes() < MEMORY_BYTES

    async def _steady(self) -> Ticks:
        """Ticks up to now, none of which runs so long that those it costs are not counted yet."""
        before = await ticks(self.producer)
        await eventually(self._counted_since(before), "steady ticks", 20, 0.5)
        return await ticks(self.producer)

    def _counted_since(self, before: Ticks) -> Callable[[], Awaitable[bool]]:
        """Whether as many ticks are counted since then as were due; one that runs counts what it costs at its end."""

        async def counted() -> bool:
            now = await ticks(self.producer)
            return abs(now.due - before.due - (now.at - before.at) / PERIOD_SECONDS) <= TICKS_SLACK

        return counted

    async def ended_well(self, kafka: Kafka, topic: str) -> None:
        """Stopped now, it exits 0, and the account is in order: none doubled, and no client was replaced."""
        page = await metrics(self.producer)
        assert total(page, "ticklake_producer_clients_replaced_total") == 0
        assert total(page, "ticklake_producer_records_resent_total") == 0
        self.producer.peak_memory_bytes()
        assert await self.producer.stop() == 0
        found = await judged(kafka, topic, self.api, self.producer)
        assert found.in_topic == found.said


@asynccontextmanager
async def outliving(
    bootstrap_servers: str,
    topic: str,
    folder: Path,
    api: NumberedApi | None = None,
    *,
    max_unacked_bytes: int = MAX_UNACKED_BYTES,
) -> AsyncIterator[Run]:
    api = api or NumberedApi(first_size=10)
    async with scripted_api(api.answer) as server:
        settings = environ(bootstrap_servers, topic, server.url, PUBLISH_MAX_UNACKED_BYTES=str(max_unacked_bytes))
        with ServiceProcess(["producer"], settings, folder) as producer:
            yield Run(producer=producer, api=api, max_unacked_bytes=max_unacked_bytes)


async def started_again(kafka: Kafka) -> None:
    """`start` in a way that lets the loop, and so the API, go on."""
    kafka.server.spawn()
    await asyncio.to_thread(kafka.server.wait_ready)


async def test_a_missing_topic_is_waited_for_and_never_created(new_kafka: Callable[..., Kafka], tmp_path: Path) -> None:
    kafka = new_kafka(settings={"auto.create.topics.enable": "true"})  # which a named metadata request would trigger
    topic = unique("later")
    async with scripted_api(http(b'[{"symbol":"A"}]')) as api:
        with ServiceProcess(["producer"], environ(kafka.bootstrap_servers, topic, api.url), tmp_path) as producer:
            reason = await producer.ready_reason("does not exist")
            assert f"topic {topic}" in reason
            assert "create it" in reason
            assert (await producer.get("/healthz"))[0] == 200
            await eventually(lambda: len(api.requests) > 10, "polls go on")
            assert not producer.lines("Message sent")
            await kafka.create_topic(3, name=topic)  # fails if it is there already
            await producer.logged("Message sent", count=10)
            await eventually(producer.is_ready, "readiness", every_seconds=0.2)
            assert await producer.stop() == 0
            assert sum((await kafka.end_offsets(topic)).values()) == sum(said(producer))


async def away_at_start_and_for_30_s_in_mid_run(kafka: Kafka, folder: Path) -> None:
    topic = await kafka.create_topic(3)
    await asyncio.to_thread(kafka.server.stop)
    async with outliving(kafka.bootstrap_servers, topic, folder) as run:
        reasons = await run.producer.ready_reason(kafka.bootstrap_servers)
        assert SINCE.search(reasons), reasons
        await eventually(lambda: run.producer.lines("Ticks skipped") != [], "skipped ticks")
        await started_again(kafka)
        await run.green_again()
        async with run.outage(kafka.bootstrap_servers, topic):
            await asyncio.to_thread(kafka.server.stop)
            await asyncio.sleep(OUTAGE_SECONDS)
            await started_again(kafka)
        await run.ended_well(kafka, topic)


async def killed_for_30_s_and_then_again_and_again(kafka: Kafka, folder: Path) -> None:
    topic = await kafka.create_topic(3)
    async with outliving(kafka.bootstrap_servers, topic, folder) as run:
        async with run.outage(kafka.bootstrap_servers, topic):
            kafka.server.kill()
            await asyncio.sleep(OUTAGE_SECONDS)
            await started_again(kafka)
        for _ in range(3):
            kafka.server.kill()
            await started_again(kafka)
            await run.green_again()
        await run.ended_well(kafka, topic)


async def frozen_for_30_s(kafka: Kafka, folder: Path) -> None:
    topic, big_topic = await kafka.create_topic(3), await kafka.create_topic(3)
    big = NumberedApi(first_size=3_000, padding_bytes=1_000)
    async with (
        outliving(kafka.bootstrap_servers, topic, folder) as run,
        outliving(kafka.bootstrap_servers, big_topic, folder, big, max_unacked_bytes=64 << 20) as big_run,
    ):
        async with run.outage(kafka.bootstrap_servers, topic), big_run.outage(kafka.bootstrap_servers, big_topic):
            kafka.server.suspend()
            try:
                await asyncio.sleep(OUTAGE_SECONDS)
            finally:
                kafka.server.resume()
        await run.ended_well(kafka, topic)
        await big_run.ended_well(kafka, big_topic)


async def an_answer_that_never_comes(kafka: Kafka, folder: Path) -> None:
    """The batch is in the log, its connection stays open and says nothing: a deadline of the client's own ends that."""
    topic = await kafka.create_topic(3)
    async with KafkaProxy(kafka.server.port) as proxy, outliving(proxy.bootstrap_servers, topic, folder) as run:
        async with run.outage(proxy.bootstrap_servers, topic):
            silent = len(proxy.requests)
            proxy.fate = lambda request: HELD_ANSWER if request.number == silent else PASS
            await eventually(lambda: len(proxy.requests) > silent + 1, "the batch sent again", 60)
        await run.ended_well(kafka, topic)


async def test_outages_of_30_s_cost_ticks_that_are_counted_and_no_record_none_doubled_in_bounded_memory(
    kafka: Kafka, new_kafka: Callable[..., Kafka], tmp_path: Path
) -> None:
    """All at once, each on a broker of its own: what they wait for is the clock."""
    scenarios = {
        away_at_start_and_for_30_s_in_mid_run: new_kafka(settings=QUICK_BROKER),
        killed_for_30_s_and_then_again_and_again: new_kafka(settings=QUICK_BROKER),
        frozen_for_30_s: new_kafka(settings=QUICK_BROKER),
        an_answer_that_never_comes: kafka,
    }
    for scenario in scenarios:
        (tmp_path / scenario.__name__).mkdir()
    outcomes = await asyncio.gather(
        *(scenario(broker, tmp_path / scenario.__name__) for scenario, broker in scenarios.items()),
        return_exceptions=True,
    )
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failed:
        raise ExceptionGroup("outages", failed)


async def lived_through(
    kafka: Kafka, folder: Path, fate: Callable[[Produce], Fate], *, strikes: int
) -> tuple[Account, str, list[KafkaRecord]]:
    """A run in which so many requests with records met something else than PASS: its account, metrics and records."""
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=40, padding_bytes=200)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = fate
        settings = environ(proxy.bootstrap_servers, topic, server.url)
        with ServiceProcess(["producer"], settings, folder) as producer:
            await eventually(lambda: sum(met != PASS for _, met in proxy.requests) >= strikes, "faults", 60)
            proxy.fate = always(PASS)
            newest = len(api.served)
            await eventually(lambda: any(api.poll_of(size) >= newest for size in said(producer)), "records sent", 60)
            await eventually(producer.is_ready, "readiness", 60, every_seconds=0.2)
            page = await metrics(producer)
            assert await producer.stop() == 0
            resent = total(page, "ticklake_producer_records_resent_total")
            found = await judged(kafka, topic, api, producer, resent=resent)
            assert total(page, "ticklake_producer_records_published_total") <= found.said
    records = await kafka.read(topic)
    return found, page, [record for partition in records.values() for record in partition]


def every(count: int, fate: Fate) -> Callable[[Produce], Fate]:
    """That fate for one request in so many, the second one being the first."""
    return lambda request: fate if request.number % count == 1 else PASS


def cut_anywhere(request: Produce) -> Fate:
    """Every second request's connection ends before, in, or just before the end of it."""
    if request.number % 2 == 0:
        return PASS
    places = [0, 3, 4, 30, request.bytes // 2, request.bytes + 3]
    return Fate(kind=Kind.CUT, passed_bytes=places[request.number // 2 % len(places)])


RETRIABLE = [
    Fate(kind=kind, error=error)
    for kind in (Kind.REFUSED, Kind.REFUSED_DONE)
    for error in (REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND)
]


def refused_for_now(request: Produce) -> Fate:
    """Every second request is answered with an error that does not last."""
    return RETRIABLE[request.number // 2 % len(RETRIABLE)] if request.number % 2 else PASS


@pytest.mark.parametrize(
    ("fate", "strikes"),
    [
        pytest.param(every(2, LOST_ANSWER), 12, id="appended, the answer lost"),
        pytest.param(cut_anywhere, 12, id="cut in the middle"),
        pytest.param(refused_for_now, 12, id="refused for now"),
        pytest.param(every(2, Fate(kind=Kind.SLOW, seconds=2.0)), 3, id="slow"),
    ],
)
async def test_what_kafka_may_get_over_loses_nothing_and_doubles_nothing(
    kafka: Kafka, tmp_path: Path, fate: Callable[[Produce], Fate], strikes: int
) -> None:
    found, page, _ = await lived_through(kafka, tmp_path, fate, strikes=strikes)
    assert found.in_topic == found.said
    assert total(page, "ticklake_producer_clients_replaced_total") == 0


@pytest.mark.parametrize("error", [OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_EPOCH])
@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.REFUSED_DONE], ids=lambda kind: kind.value)
async def test_a_poisoned_client_is_replaced_and_what_it_may_have_doubled_is_counted(
    kafka: Kafka, tmp_path: Path, error: int, kind: Kind
) -> None:
    poison = Fate(kind=kind, error=error)
    found, page, records = await lived_through(
        kafka, tmp_path, lambda request: poison if request.number in {2, 5} else PASS, strikes=2
    )
    assert total(page, "ticklake_producer_clients_replaced_total") == 2
    assert found.doubled != () or kind is Kind.REFUSED  # what was not refused may have been under way, and double too
    assert found.in_topic - found.said <= total(page, "ticklake_producer_records_resent_total")
    events: dict[RecordId, set[bytes]] = {}
    for record in records:
        events.setdefault(record_id(record.value or b""), set()).add(dict(record.headers)["ce_id"])
    assert all(len(event_ids) == 1 for event_ids in events.values())  # a reader can tell a double


async def test_when_kafka_refuses_one_partition_those_it_acknowledged_are_not_sent_again(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = await kafka.create_topic(12)  # more than go into the first request of a poll
    api = NumberedApi(first_size=40)
    struck: list[int] = []
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:

        def fate(request: Produce) -> Fate:
            """Strike once, several partitions, when nothing else is under way: the polls are far apart."""
            everything = proxy.forwarded_records + request.records == sum(api.served)
            if struck:
                return PASS
            if len(request.partitions) == 1 or not everything:
                return Fate(kind=Kind.SLOW, seconds=0.3)  # what comes meanwhile goes together
            struck.append(request.partitions[0][1])
            return Fate(kind=Kind.REFUSED_IN_PART, error=OUT_OF_ORDER_SEQUENCE_NUMBER)

        proxy.fate = fate
        settings = environ(proxy.bootstrap_servers, topic, server.url, POLL_INTERVAL_SECONDS="2")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Kafka client replaced", seconds=60)
            newest = len(api.served)
            await eventually(lambda: any(api.poll_of(size) >= newest for size in said(producer)), "records sent", 60)
            resent = total(await metrics(producer), "ticklake_producer_records_resent_total")
            assert await producer.stop() == 0
            found = await judged(kafka, topic, api, producer, resent=resent)
    records = [record for each in (await kafka.read(topic)).values() for record in each]
    doubled = {record.partition for record in records if record_id(record.value or b"") in found.doubled}
    assert doubled == set(struck)
    assert len(found.doubled) == resent


STORM = [
    *[PASS] * 14,
    *[LOST_ANSWER] * 2,
    *[Fate(kind=Kind.CUT, passed_bytes=count) for count in (0, 500)],
    Fate(kind=Kind.SLOW, seconds=0.5),
    *RETRIABLE,
    *[
        Fate(kind=kind, error=error)
        for kind in (Kind.REFUSED, Kind.REFUSED_DONE, Kind.REFUSED_IN_PART)
        for error in (OUT_OF_ORDER_SEQUENCE_NUMBER, TOPIC_AUTHORIZATION_FAILED)
    ],
]


async def test_stopped_in_a_storm_of_all_faults_it_has_lost_nothing_and_counted_what_it_may_have_doubled(
    kafka: Kafka, tmp_path: Path
) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=40, padding_bytes=200)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = lambda _request: dice.choice(STORM)
        settings = environ(proxy.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="10")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await eventually(lambda: len(proxy.requests) >= 40, "requests", 90)
            await producer.logged("Message sent", seconds=90)
            assert (await producer.get("/healthz"))[0] == 200
            assert await producer.stop(15) in {0, 1}
            resent = sum(int(str(line["records_sent_again"])) for line in producer.lines("Kafka client replaced"))
            await judged(kafka, topic, api, producer, resent=resent)


@pytest.mark.parametrize("error", [TOPIC_AUTHORIZATION_FAILED, INVALID_TIMESTAMP, INVALID_RECORD])
async def test_records_that_kafka_refuses_are_kept_and_readiness_says_why_until_it_takes_them(
    kafka: Kafka, tmp_path: Path, error: int
) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=10)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = always(Fate(kind=Kind.REFUSED, error=error))
        settings = environ(proxy.bootstrap_servers, topic, server.url, PUBLISH_MAX_UNACKED_BYTES=str(MAX_UNACKED_BYTES))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            reasons = await producer.ready_reason(for_code(error).__name__)
            assert topic in reasons
            assert SINCE.search(reasons)
            await producer.logged("Ticks skipped")
            assert not said(producer)
            began = time.monotonic()
            tried = len(proxy.requests)
            await eventually(lambda: len(proxy.requests) > tried, "another try", 60)
            assert (await producer.get("/healthz"))[0] == 200
            proxy.fate = always(PASS)
            await eventually(producer.is_ready, "readiness", 60, every_seconds=0.2)
            assert len(proxy.requests) < 20 + 10 * (time.monotonic() - began)  # no storm
            page = await metrics(producer)
            assert await producer.stop() == 0
            resent = total(page, "ticklake_producer_records_resent_total")
            found = await judged(kafka, topic, api, producer, resent=resent)
    assert found.doubled == ()  # Kafka had none of what it refused
    assert found.in_topic == found.said


async def test_a_giant_is_set_aside_alone(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    giant = b'{"symbol":"G","x":"' + os.urandom(1_200_000).hex().encode() + b'"}'  # 1.2 MB however it is compressed
    async with scripted_api(http(b'[{"symbol":"A"},' + giant + b',{"symbol":"B"}]')) as api:
        with ServiceProcess(
            ["producer", "once"], environ(kafka.bootstrap_servers, topic, api.url), tmp_path
        ) as producer:
            assert await producer.ended() == 1  # not all of it was acknowledged
            (line,) = producer.lines("Record set aside")
    assert (line["reason"], line["key"], line["bytes"]) == ("too_large", "G", len(giant))
    records = (await kafka.read(topic))[0]
    assert [record.value for record in records] == [b'{"symbol":"A"}', b'{"symbol":"B"}']


async def test_what_is_too_large_for_the_topic_alone_is_set_aside_and_costs_none_of_its_siblings(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = await kafka.create_topic(config={"max.message.bytes": "2000"})
    dense = bytes(range(48, 91)) * 9
    small = [b'{"symbol":"S%d","x":"%s"}' % (n, dense[: n * 4]) for n in range(50)]
    giant = b'{"symbol":"G","x":"' + os.urandom(2000).hex().encode() + b'"}'
    body = b"[" + b",".join([*small[:25], giant, *small[25:]]) + b"]"
    async with scripted_api(http(body)) as api:
        settings = environ(kafka.bootstrap_servers, topic, api.url)
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 1  # not all of it was acknowledged
            (line,) = producer.lines("Record set aside")
            assert said(producer) == [50]
    assert (line["reason"], line["key"], line["bytes"]) == ("too_large", "G", len(giant))
    records = (await kafka.read(topic))[0]
    assert [record.value for record in records] == small


async def test_with_the_broker_away_bodies_that_fill_the_caps_stay_within_the_designs_memory(tmp_path: Path) -> None:
    def body(records: int) -> bytes:
        return b"[" + b",".join(b'{"symbol":"S%06d","t":"%0600d"}' % (n, n) for n in range(records)) + b"]"

    async with scripted_api(http(body(20_000)), http(body(100_000))) as api:
        settings = environ(f"127.0.0.1:{free_port()}", "away", api.url, POLL_INTERVAL_SECONDS="3", SELECT="changed")
        settings["SHUTDOWN_TIMEOUT_SECONDS"] = "2"
        with ServiceProcess(["producer"], settings, tmp_path) as producer:

            async def skipped() -> bool:
                return total(await metrics(producer), "ticklake_producer_ticks_skipped_total") > 1

            await eventually(skipped, "ticks skipped", every_seconds=0.5)
            assert producer.peak_memory_bytes() < 256 * 1024 * 1024
            assert await producer.stop() == 1
            (line,) = producer.lines("Stopped, records not acknowledged")
    assert int(str(line["records"])) >= 100_000
