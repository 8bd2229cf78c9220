"""SIGTERM in every state of the producer: in time, the exit code as designed, nothing that was said to be sent lost."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from demo.ports import HOST, free_port
from tests.kafka_proxy import (
    HELD,
    HELD_ANSWER,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    PASS,
    Fate,
    KafkaProxy,
    Kind,
    always,
)
from tests.numbered_api import NumberedApi
from tests.processes import ServiceProcess
from tests.producer_witness import environ, judged, left, metrics, said, total
from tests.scripted_api import drip, hang, http, scripted_api
from tests.servers import Kafka, eventually, unique

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.produce_requests import Produce

    Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

QUICK_SECONDS = 3.0  # nothing is waited for; the rest is what closing costs on a busy machine
SLACK_SECONDS = 3.0  # beyond the budget, for the same: less than what orchestrators leave (25 of 30 s)


async def stopped(producer: ServiceProcess, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
    """Its exit code and how long it took from the signal on."""
    began = time.monotonic()
    producer.send(number)
    code = await producer.ended()
    return code, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_between_ticks_it_ends_at_once_with_0(
    kafka: Kafka, topic: str, tmp_path: Path, number: signal.Signals
) -> None:
    api = NumberedApi(first_size=7)
    async with scripted_api(api.answer) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, POLL_INTERVAL_SECONDS="2")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent")
            code, seconds = await stopped(producer, number)
            assert (code, seconds < QUICK_SECONDS) == (0, True)
            (line,) = producer.lines("Stopping")
            assert line["signal"] == number.name
            found = await judged(kafka, topic, api, producer)
    assert found.in_topic == sum(api.served)


async def test_before_its_first_tick_it_ends_at_once_with_0(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    api = NumberedApi()
    async with scripted_api(api.answer) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, POLL_INTERVAL_SECONDS="3600")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Listening")
            code, seconds = await stopped(producer)
            assert (code, seconds < QUICK_SECONDS) == (0, True)
            await judged(kafka, topic, api, producer)


FETCHING: dict[str, tuple[Answer, dict[str, str], str | None]] = {
    "a drip": (drip(b"[" + b" " * 600 + b"]", every_seconds=1.0), {"API_TIMEOUT_SECONDS": "900"}, None),
    "a hang": (hang, {"API_TIMEOUT_SECONDS": "900"}, None),
    "back-off": (http(status="503 Service Unavailable"), {"API_TIMEOUT_SECONDS": "900"}, None),
    "told to wait": (http(status="429 Too Many Requests", headers=["Retry-After: 600"]), {}, "429"),
    "refused": (http(status="401 Unauthorized"), {"POLL_INTERVAL_SECONDS": "600"}, "401"),
}


@pytest.mark.parametrize("state", FETCHING)
async def test_whatever_the_api_keeps_it_waiting_with_it_ends_at_once_with_0(
    kafka: Kafka, topic: str, tmp_path: Path, state: str
) -> None:
    answer, settings, reason = FETCHING[state]
    async with scripted_api(answer) as server:
        with ServiceProcess(
            ["producer"], environ(kafka.bootstrap_servers, topic, server.url, **settings), tmp_path
        ) as producer:
            if reason is not None:
                await producer.ready_reason(reason)
            else:
                await eventually(lambda: len(server.requests) >= (2 if state == "back-off" else 1), "requests")
                assert not producer.lines("Poll failed")  # so the tick still runs
            code, seconds = await stopped(producer)
            assert (code, seconds < QUICK_SECONDS) == (0, True)
            assert "Traceback" not in producer.output()
    assert sum((await kafka.end_offsets(topic)).values()) == 0


async def test_with_nothing_selected_it_ends_at_once_with_0_though_the_broker_is_away(tmp_path: Path) -> None:
    nowhere = f"{HOST}:{free_port()}"
    async with scripted_api(hang) as server:
        settings = environ(nowhere, "task", server.url, API_TIMEOUT_SECONDS="900")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.ready_reason(nowhere)
            await eventually(lambda: len(server.requests) == 1, "a request")
            code, seconds = await stopped(producer)
            assert (code, seconds < QUICK_SECONDS) == (0, True)
            assert "Traceback" not in producer.output()


@pytest.mark.parametrize("budget_seconds", [1, 4])
async def test_with_the_broker_away_it_waits_for_its_budget_and_exits_1_with_the_number(
    tmp_path: Path, budget_seconds: int
) -> None:
    nowhere = f"{HOST}:{free_port()}"
    api = NumberedApi(first_size=5, polls=3)
    async with scripted_api(api.answer) as server:
        settings = environ(nowhere, "task", server.url, SHUTDOWN_TIMEOUT_SECONDS=str(budget_seconds))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.ready_reason(nowhere)
            await eventually(lambda: len(server.requests) > 3, "every record selected")
            code, seconds = await stopped(producer)
            assert code == 1
            assert budget_seconds / 4 < seconds < budget_seconds + SLACK_SECONDS
            assert left(producer) == 5 + 6 + 7
            assert "Traceback" not in producer.output()


async def test_a_broker_that_comes_back_within_the_budget_gets_everything_and_the_code_is_0(
    new_kafka: Callable[..., Kafka], tmp_path: Path
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=100)
    async with scripted_api(api.answer) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="120")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=2)
            kafka.server.suspend()
            asked = len(server.requests)
            await eventually(lambda: len(server.requests) > asked + 2, "records that wait")
            producer.send(signal.SIGTERM)
            (line,) = await producer.logged("Stopping")
            assert int(str(line["unacknowledged"])) > 0
            assert producer.process.poll() is None
            kafka.server.resume()
            assert await producer.ended() == 0
            found = await judged(kafka, topic, api, producer)
    assert found.in_topic == found.said


@dataclass(slots=True)
class HalfWay:
    """Passes requests until half of the records have; what becomes of the others is `then`."""

    records: int
    then: Fate
    passed: int = field(default=0)

    def __call__(self, request: Produce) -> Fate:
        if self.passed >= self.records / 2:
            return self.then
        self.passed += request.records
        return PASS


@pytest.mark.parametrize("then", [HELD, HELD_ANSWER], ids=lambda fate: fate.kind.value)
async def test_with_half_of_10000_records_acknowledged_it_waits_for_the_others_and_exits_0(
    kafka: Kafka, tmp_path: Path, then: Fate
) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=10_000, padding_bytes=500, polls=1)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = HalfWay(10_000, then)
        settings = environ(proxy.bootstrap_servers, topic, server.url)
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await half_acknowledged(proxy, producer)
            producer.send(signal.SIGTERM)
            (line,) = await producer.logged("Stopping")
            assert line["unacknowledged"] == 10_000 - proxy.acknowledged_records
            proxy.release()
            assert await producer.ended() == 0
            found = await judged(kafka, topic, api, producer)
    assert (found.said, found.in_topic) == (10_000, 10_000)


@pytest.mark.parametrize("then", [HELD, HELD_ANSWER], ids=lambda fate: fate.kind.value)
async def test_with_half_of_10000_records_acknowledged_and_no_more_to_come_it_exits_1_with_the_rest(
    kafka: Kafka, tmp_path: Path, then: Fate
) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=10_000, padding_bytes=500, polls=1)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = HalfWay(10_000, then)
        settings = environ(proxy.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="4")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            acknowledged = await half_acknowledged(proxy, producer)
            code, seconds = await stopped(producer)
            assert (code, seconds < 4 + SLACK_SECONDS) == (1, True)
            assert left(producer) == 10_000 - acknowledged
            found = await judged(kafka, topic, api, producer)
    assert found.in_topic >= acknowledged


async def half_acknowledged(proxy: KafkaProxy, producer: ServiceProcess) -> int:
    """Until half of the records, and no more, are acknowledged, and the producer knows; how many that is."""
    acknowledged = 0

    async def known() -> bool:
        nonlocal acknowledged
        acknowledged = int(total(await metrics(producer), "ticklake_producer_records_published_total"))
        return any(fate is not PASS for _, fate in proxy.requests) and acknowledged == proxy.acknowledged_records

    await eventually(known, "half of the records acknowledged")
    assert 5_000 <= acknowledged < 10_000
    assert not said(producer)  # the parcel is not whole, so nothing is said of it
    return acknowledged


async def test_with_one_topic_missing_it_exits_1_with_the_number_of_its_records_and_the_other_has_all_of_its_own(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic, missing = await kafka.create_topic(3), unique("missing")
    there, nowhere = NumberedApi(first_size=10), NumberedApi(first_size=7, polls=2)
    async with scripted_api(there.answer) as server, scripted_api(nowhere.answer) as other:
        file = tmp_path / "endpoints.toml"
        file.write_text(
            f'[[endpoint]]\nname = "a"\nurl = "{server.url}"\ntopic = "{topic}"\n'
            f'[[endpoint]]\nname = "b"\nurl = "{other.url}"\ntopic = "{missing}"\n'
        )
        settings = environ(kafka.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="4")
        settings = {**settings, "API_ENDPOINTS": str(file), "API_URL": "", "KAFKA_TOPIC": ""}
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=3)
            await producer.ready_reason(missing)
            await eventually(lambda: len(other.requests) > 2, "every record selected")
            code, seconds = await stopped(producer)
            assert (code, seconds < 4 + SLACK_SECONDS) == (1, True)
            assert left(producer) == 7 + 8
    cut_off = there.served[-1]
    assert sum((await kafka.end_offsets(topic)).values()) == sum(said(producer))
    assert sum(said(producer)) in {sum(there.served), sum(there.served) - cut_off}


async def test_with_kafka_hung_it_exits_1_within_its_budget_with_the_number(
    new_kafka: Callable[..., Kafka], tmp_path: Path
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=10)
    async with scripted_api(api.answer) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="4")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=2)
            kafka.server.suspend()
            try:
                asked = len(server.requests)
                await eventually(lambda: len(server.requests) > asked + 2, "records that wait")
                code, seconds = await stopped(producer)
            finally:
                kafka.server.resume()
            assert (code, seconds < 4 + SLACK_SECONDS) == (1, True)
            assert left(producer) > 0
            await judged(kafka, topic, api, producer)


REPLACING = Fate(kind=Kind.REFUSED, error=OUT_OF_ORDER_SEQUENCE_NUMBER)


async def test_while_its_client_is_replaced_it_exits_1_within_its_budget_with_the_number(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=50, polls=4)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = always(REPLACING)
        settings = environ(proxy.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="4")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await replaced(producer, 2)
            await eventually(lambda: len(server.requests) > 4, "every record selected")
            code, seconds = await stopped(producer)
            assert (code, seconds < 4 + SLACK_SECONDS) == (1, True)
            assert left(producer) == 50 + 51 + 52 + 53
            found = await judged(kafka, topic, api, producer)
    assert (found.said, found.in_topic) == (0, 0)


async def test_a_client_that_is_replaced_within_the_budget_sends_everything_and_the_code_is_0(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=50, polls=4)
    async with scripted_api(api.answer) as server, KafkaProxy(kafka.server.port) as proxy:
        proxy.fate = always(REPLACING)
        settings = environ(proxy.bootstrap_servers, topic, server.url, SHUTDOWN_TIMEOUT_SECONDS="120")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await replaced(producer, 1)
            await eventually(lambda: len(server.requests) > 4, "every record selected")
            producer.send(signal.SIGTERM)
            (line,) = await producer.logged("Stopping")
            assert line["unacknowledged"] == 50 + 51 + 52 + 53
            proxy.release()
            assert await producer.ended() == 0
            found = await judged(kafka, topic, api, producer)  # the broker never had what was refused: no doubles
    assert (found.said, found.in_topic) == (206, 206)


async def replaced(producer: ServiceProcess, times: int) -> None:
    async def counted() -> bool:
        return total(await metrics(producer), "ticklake_producer_clients_replaced_total") >= times

    await eventually(counted, f"{times} clients replaced", 60)


async def test_killed_under_load_what_it_said_was_sent_is_in_the_topic(kafka: Kafka, tmp_path: Path) -> None:
    topic = await kafka.create_topic(3)
    api = NumberedApi(first_size=2_000)
    async with scripted_api(api.answer) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, POLL_INTERVAL_SECONDS="0.05")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=5)
            handed_out = len(api.served)
            await eventually(lambda: len(api.served) > handed_out, "a poll under way")
            producer.kill()
            found = await judged(kafka, topic, api, producer)
    assert found.said_polls >= {0, 1, 2, 3, 4}


async def test_once_ends_at_once_with_1_when_it_is_told_to_stop_before_its_tick_came_to_an_end(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(hang) as server:
        settings = environ(kafka.bootstrap_servers, topic, server.url, API_TIMEOUT_SECONDS="900")
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            await eventually(lambda: len(server.requests) == 1, "a request")
            code, seconds = await stopped(producer)
    assert (code, seconds < QUICK_SECONDS) == (1, True)
