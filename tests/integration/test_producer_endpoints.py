"""Several endpoints in one producer process: clocks, keys, state and reasons of their own, on real Kafka."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes import ServiceProcess
from tests.scripted_api import ScriptedApi, hang, http, scripted_api
from tests.servers import Kafka, KafkaRecord, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY_A, KEY_B, KEY_C = (f"CANARY-{name}-9d41c7" for name in "abc")
KEYS = {"KEY_A": KEY_A, "KEY_B": KEY_B, "KEY_C": KEY_C}
APPLE, MICROSOFT = b'{"symbol":"AAPL","p":1}', b'{"symbol":"MSFT","p":2}'
BOTH = http(b"[" + APPLE + b"," + MICROSOFT + b"]")


def endpoint(name: str, api: ScriptedApi, topic: str, interval_seconds: float = 0.2, **members: str) -> str:
    """One table; the members' values as TOML."""
    lines = [
        f'name = "{name}"',
        f'url = "{api.url}/{name}"',
        f'topic = "{topic}"',
        f"interval_seconds = {interval_seconds}",
        *(f"{member} = {value}" for member, value in members.items()),
    ]
    return "\n".join(["[[endpoint]]", *lines, ""])


def environ(kafka: Kafka, folder: Path, *tables: str, **settings: str) -> dict[str, str]:
    file = folder / "endpoints.toml"
    file.write_text("\n".join(tables))
    return {
        "API_ENDPOINTS": str(file),
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SELECT": "all",
        "API_TIMEOUT_SECONDS": "60",
        **KEYS,
        **settings,
    }


async def values(kafka: Kafka, topic: str) -> list[bytes | None]:
    found: dict[int, list[KafkaRecord]] = await kafka.read(topic)
    return [record.value for records in found.values() for record in records]


def asked(api: ScriptedApi) -> str:
    """Everything that an API was sent."""
    return repr(api.requests)


async def seen(producer: ServiceProcess, condition: Callable[[], bool], what: str) -> None:
    """Wait for what the APIs see, as long as the producer lives."""
    await eventually(lambda: condition() or producer.process.poll() is not None, what)
    assert producer.process.poll() is None


async def count_of(producer: ServiceProcess, metric: str, **labels: str) -> float:
    """A metric's value over every series with these labels."""
    text = (await producer.get("/metrics"))[1]
    found = 0.0
    for line in re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', line[0])).items():
            found += float(line[1])
    return found


async def test_one_that_fails_costs_the_others_nothing_and_readiness_names_it_alone(
    kafka: Kafka, tmp_path: Path
) -> None:
    topics = [await kafka.create_topic() for _ in range(3)]
    async with (
        scripted_api(BOTH) as a,
        scripted_api(BOTH) as b,
        scripted_api(http(f"wrong key {KEY_C}".encode(), status="401 Unauthorized")) as c,
    ):
        settings = environ(
            kafka,
            tmp_path,
            endpoint("a", a, topics[0], key_variable='"KEY_A"'),
            endpoint("b", b, topics[1], key_variable='"KEY_B"', auth='"header:X-Key"', select='"changed"'),
            endpoint("c", c, topics[2], key_variable='"KEY_C"', auth='"query:k"', select='"random"'),
            LOG_LEVEL="DEBUG",
        )
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await seen(producer, lambda: min(len(api.requests) for api in (a, b, c)) >= 5, "five polls of each")
            reasons = await producer.ready_reason("HTTP 401")
            assert f"{c.url}/c" in reasons
            assert a.url not in reasons
            assert b.url not in reasons
            ticks = "ticklake_producer_ticks_total"
            assert await count_of(producer, ticks, endpoint="a", outcome="ok") >= 4
            assert await count_of(producer, ticks, endpoint="b", outcome="ok") >= 4
            assert await count_of(producer, ticks, endpoint="c", outcome="ok") == 0
            assert await count_of(producer, ticks, endpoint="c") >= 4
            page = (await producer.get("/"))[1]
            assert all(source in page for source in (f"{a.url}/a", f"{b.url}/b", f"{c.url}/c"))
            c.answers[:] = [BOTH]
            await eventually(producer.is_ready, "readiness once the third answers")
            everything = page + reasons + (await producer.get("/metrics"))[1]
            assert await producer.stop() == 0
            everything += producer.output()
    assert not any(key in everything for key in KEYS.values())
    for api, own in ((a, KEY_A), (b, KEY_B), (c, KEY_C)):
        assert [key for key in KEYS.values() if key in asked(api)] == [own]
    of_a, of_b, of_c = [await values(kafka, topic) for topic in topics]
    assert of_a == [APPLE, MICROSOFT] * (len(of_a) // 2)
    assert len(of_a) >= 8
    assert of_b == [APPLE, MICROSOFT], "the second poll found nothing changed"
    assert of_c
    assert set(of_c) <= {APPLE, MICROSOFT}


async def test_records_tell_which_endpoint_they_come_from(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(http(b"[" + APPLE + b"]")) as a, scripted_api(http(b"[" + MICROSOFT + b"]")) as b:
        settings = environ(kafka, tmp_path, endpoint("a", a, topic), endpoint("b", b, topic))
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
        sources = {APPLE: f"{a.url}/a".encode(), MICROSOFT: f"{b.url}/b".encode()}
    (records,) = (await kafka.read(topic)).values()
    assert {record.value: dict(record.headers)["ce_source"] for record in records} == sources


async def test_each_has_its_own_clock_and_rate_limit(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(BOTH) as often, scripted_api(BOTH) as seldom, scripted_api(BOTH) as limited:
        settings = environ(
            kafka,
            tmp_path,
            endpoint("often", often, topic, 0.1),
            endpoint("seldom", seldom, topic, 3600),
            endpoint("limited", limited, topic, 0.1, rate_limit_per_minute="1"),
        )
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await seen(producer, lambda: bool(seldom.requests and limited.requests), "a first poll of each")
            count = len(often.requests)
            await seen(producer, lambda: len(often.requests) >= count + 20, "twenty more polls of the first")
            assert (len(seldom.requests), len(limited.requests)) == (1, 1)
            assert await producer.is_ready()
            assert await producer.stop() == 0


async def test_one_that_is_throttled_is_skipped_alone(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    throttled = http(status="429 Too Many Requests", headers=["Retry-After: 600"])
    async with scripted_api(BOTH) as a, scripted_api(throttled) as b:
        settings = environ(kafka, tmp_path, endpoint("a", a, topic), endpoint("b", b, topic))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await seen(producer, lambda: len(b.requests) == 1, "the request that is throttled")
            count = len(a.requests)
            await seen(producer, lambda: len(a.requests) >= count + 5, "polls of the other")
            skipped = "ticklake_producer_ticks_skipped_total"

            async def told() -> bool:
                return await count_of(producer, skipped, endpoint="b", reason="throttled") >= 3

            await eventually(told, "ticks skipped as throttled")
            assert await count_of(producer, skipped, endpoint="a", reason="throttled") == 0
            assert f"{b.url}/b" in await producer.ready_reason("429")
            assert len(b.requests) == 1
            assert await producer.stop() == 0


async def test_one_that_hangs_holds_up_neither_the_others_nor_the_end(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(hang) as hung, scripted_api(BOTH) as a:
        settings = environ(kafka, tmp_path, endpoint("hung", hung, topic), endpoint("a", a, topic))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await seen(producer, lambda: bool(hung.requests), "the request that hangs")
            count = len(a.requests)
            await seen(producer, lambda: len(a.requests) >= count + 10, "polls of the other")
            assert len(hung.requests) == 1
            assert (await producer.get("/healthz"))[0] == 200
            began = time.monotonic()
            assert await producer.stop() == 0
            assert time.monotonic() - began < 10
            said = sum(int(str(line["records"])) for line in producer.lines("Message sent"))
    assert len(await values(kafka, topic)) == said


async def test_a_missing_topic_holds_up_its_own_endpoint_only(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    missing = unique("missing")
    async with scripted_api(BOTH) as a, scripted_api(BOTH) as b:
        settings = environ(kafka, tmp_path, endpoint("a", a, topic), endpoint("b", b, missing, 3600))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            reasons = await producer.ready_reason("does not exist")
            assert missing in reasons
            await producer.logged("Message sent", count=5)
            await kafka.create_topic(name=missing)
            await eventually(producer.is_ready, "readiness once the topic is there")
            assert await producer.stop() == 0
    assert await values(kafka, missing) == [APPLE, MICROSOFT]


async def test_check_has_lines_for_each_endpoint_and_topic_and_publishes_nothing(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    missing = unique("missing")
    async with scripted_api(BOTH) as a, scripted_api(http(b'{"data":[]}')) as b, scripted_api(BOTH) as c:
        settings = environ(
            kafka,
            tmp_path,
            endpoint("a", a, topic, key_variable='"KEY_A"'),
            endpoint("b", b, topic, records_pointer='"/results"'),
            endpoint("c", c, missing, key_pointer='"/T"'),
        )
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(30) == 1
            output = producer.output()
        assert [len(api.requests) for api in (a, b, c)] == [1, 1, 1]
        lines = output.splitlines()
        (of_a,) = [line for line in lines if f"{a.url}/a" in line]
        (of_b,) = [line for line in lines if f"{b.url}/b" in line]
        (of_c,) = [line for line in lines if f"{c.url}/c" in line]
    assert of_a.startswith("ok")
    assert "2 records, 2 with a key" in of_a
    assert of_b.startswith("FAIL")
    assert "records_pointer of endpoint 'b'='/results'" in of_b
    assert of_c.startswith("ok")
    assert "key_pointer of endpoint 'c'='/T'" in of_c
    (of_topic,) = [line for line in lines if topic in line]
    (of_missing,) = [line for line in lines if missing in line]
    assert (of_topic.startswith("ok"), of_missing.startswith("FAIL")) == (True, True)
    assert KEY_A not in output
    assert await values(kafka, topic) == []


@pytest.mark.parametrize("fails", [False, True], ids=["all well", "one fails"])
async def test_once_ticks_each_endpoint_once_and_tells_when_one_failed(
    kafka: Kafka, tmp_path: Path, *, fails: bool
) -> None:
    topics = [await kafka.create_topic() for _ in range(2)]
    answer = http(status="404 Not Found") if fails else BOTH
    async with scripted_api(answer) as a, scripted_api(BOTH) as b:
        settings = environ(kafka, tmp_path, endpoint("a", a, topics[0]), endpoint("b", b, topics[1]))
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == (1 if fails else 0)
            failures = producer.lines("Poll failed")
        assert [len(api.requests) for api in (a, b)] == [1, 1]
    assert len(failures) == (1 if fails else 0)
    assert await values(kafka, topics[0]) == ([] if fails else [APPLE, MICROSOFT])
    assert await values(kafka, topics[1]) == [APPLE, MICROSOFT]


async def test_the_start_up_line_shows_the_endpoints_without_their_keys(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(BOTH) as a:
        settings = environ(kafka, tmp_path, endpoint("a", a, topic, key_variable='"KEY_A"'))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            (line,) = await producer.logged("Starting")
            assert await producer.stop() == 0
    shown = line["settings"]
    assert isinstance(shown, dict)
    assert shown["API_ENDPOINTS"] == settings["API_ENDPOINTS"]
    assert [(one["name"], one["url"], one["key_variable"]) for one in shown["endpoints"]] == [
        ("a", f"{a.url}/a", "KEY_A")
    ]


@pytest.mark.parametrize("command", [["producer"], ["producer", "check"], ["producer", "once"]], ids=" ".join)
async def test_a_file_with_faults_is_exit_2_with_a_line_each(
    kafka: Kafka, topic: str, tmp_path: Path, command: list[str]
) -> None:
    async with scripted_api(BOTH) as a:
        tables = [endpoint("a", a, topic, select='"some"', key=f'"{KEY_A}"'), endpoint("a", a, topic, auth='"query:k"')]
        with ServiceProcess(command, environ(kafka, tmp_path, *tables), tmp_path) as producer:
            assert await producer.ended() == 2
            lines = producer.output().splitlines()
        assert not a.requests
    assert [re.sub(r" of '.*?'", "", line).removeprefix("API_ENDPOINTS: ") for line in lines] == [
        "endpoint 'a': select: 'some' is not allowed; allowed: random, all, changed",
        (
            "endpoint 'a': key: keys never stand in the file; allowed: key_variable, the name of the variable that"
            " holds the key"
        ),
        "endpoint 2: name: 'a' is that of endpoint 1 already; allowed: a name of its own",
    ]
