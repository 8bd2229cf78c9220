"""`python -m producer`, its processes and commands, on the real Kafka and a scripted API."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition

from consumer.seams import BatchConsumer
from shared.schemas import event_id
from tests.processes import ServiceProcess
from tests.scripted_api import ScriptedApi, gzipped, hang, http, scripted_api
from tests.servers import Kafka, KafkaRecord, eventually, unique

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "CANARY-Key/5e1f"


def environ(kafka: Kafka, topic: str, api: ScriptedApi, **settings: str) -> dict[str, str]:
    return {
        "API_URL": api.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "POLL_INTERVAL_SECONDS": "0.2",
        "API_TIMEOUT_SECONDS": "5",
        **settings,
    }


def quotes(count: int, start: int = 0) -> list[bytes]:
    """Records as an API might write them, no two alike: odd numbers, escapes, spacing."""
    return [
        b'{ "symbol":"S\\u00e9%d", "p": %d.10e+0,\t"t":12345678901234567890%d, "s":"a\\/b\\u20ac\xe2\x82\xac" }'
        % (n, n, n)
        for n in range(start, start + count)
    ]


def body_of(records: list[bytes]) -> bytes:
    return b'{"status":"OK","tickers":[' + b" ,\n".join(records) + b"]}"


def flat(records: dict[int, list[KafkaRecord]]) -> list[KafkaRecord]:
    return [record for partition in records.values() for record in partition]


async def test_records_land_byte_for_byte_with_key_partition_and_headers(kafka: Kafka, tmp_path: Path) -> None:
    topic = await kafka.create_topic(6)
    sent = quotes(3000)
    async with scripted_api(gzipped(body_of(sent))) as api:
        settings = environ(kafka, topic, api, SELECT="all", API_RECORDS_POINTER="/tickers")
        began = time.time()
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
            (line,) = producer.lines("Message sent")
        source = api.url
    assert line["records"] == 3000
    assert isinstance(line["seconds"], float)
    by_partition = await kafka.read(topic)
    found = flat(by_partition)
    assert sorted(record.value or b"" for record in found) == sorted(sent)
    for partition, records in by_partition.items():
        assert [record.value for record in records] == [
            value for value in sent if (murmur2(key_of(value)) & 0x7FFFFFFF) % 6 == partition
        ]
    for record in found:
        assert record.value is not None
        assert record.key == key_of(record.value)
        assert began - 1 <= record.timestamp / 1000 <= time.time() + 1
        headers = dict(record.headers)
        assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", headers.pop("ce_time"))
        assert headers == {
            "content-type": b"application/json",
            "ce_specversion": b"1.0",
            "ce_id": event_id(source, record.key, record.value).encode(),
            "ce_source": source.encode(),
            "ce_type": b"ticklake.quote.v1",
            "ce_subject": record.key,
        }


async def test_batches_are_zstd_and_numbered_by_an_idempotent_producer(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(http(body_of(quotes(100)))) as api:
        settings = environ(kafka, topic, api, SELECT="all", API_RECORDS_POINTER="/tickers")
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
    partition = TopicPartition(topic, 0)
    reader = BatchConsumer(
        bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="none", enable_auto_commit=False
    )
    reader.assign([partition])
    await reader.start()
    try:
        reader.seek(partition, 0)
        async with asyncio.timeout(60):
            while not (found := await reader.getmany(partition, timeout_ms=1000)):
                pass
    finally:
        await reader.stop()
    for view in found[partition]:
        batch = DefaultRecordBatch(view._raw)
        assert batch.compression_type == DefaultRecordBatch.CODEC_ZSTD
        assert batch.producer_id >= 0


def key_of(value: bytes) -> bytes:
    return str(json.loads(value)["symbol"]).encode()


async def test_in_random_mode_one_record_a_poll_is_sent_and_logged(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    sent = [b'{"symbol":"AAPL","price":"175.23"}', b'{"symbol":"MSFT","price":"1"}']
    async with scripted_api(http(b"[" + b",".join(sent) + b"]")) as api:
        with ServiceProcess(["producer"], environ(kafka, topic, api), tmp_path) as producer:
            lines = await producer.logged("Message sent", count=5)
            status, _ = await producer.get("/readyz")
            assert status == 200
            assert (await producer.get("/healthz"))[0] == 200
            metrics = (await producer.get("/metrics"))[1]
            assert 'ticklake_producer_ticks_total{endpoint="api",outcome="ok"}' in metrics
            page = (await producer.get("/"))[1]
            assert api.url in page
            assert await producer.stop() == 0
            lines = producer.lines("Message sent")
    found = flat(await kafka.read(topic))
    assert [str(line["record"]).encode() for line in lines] == [record.value for record in found]
    assert [str(line["key"]).encode() for line in lines] == [record.key for record in found]
    assert {record.value for record in found} <= set(sent)


async def test_without_a_key_pointer_keys_are_null(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(http(b'[{"symbol":"A"}]')) as api:
        settings = environ(kafka, topic, api, RECORD_KEY_POINTER="none")
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
    (record,) = flat(await kafka.read(topic))
    assert record.key is None
    assert "ce_subject" not in dict(record.headers)


async def test_sigterm_under_load_exits_0_and_every_selected_record_is_there(kafka: Kafka, tmp_path: Path) -> None:
    topic = await kafka.create_topic(6)
    async with scripted_api(http(body_of(quotes(5000)))) as api:
        settings = environ(
            kafka, topic, api, SELECT="all", API_RECORDS_POINTER="/tickers", POLL_INTERVAL_SECONDS="0.05"
        )
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=3)
            began = time.monotonic()
            assert await producer.stop() == 0
            assert time.monotonic() - began < 25
            said = sum(int(str(line["records"])) for line in producer.lines("Message sent"))
    ends = await kafka.end_offsets(topic)
    assert sum(ends.values()) == said
    assert said % 5000 == 0


async def test_a_second_signal_ends_it_at_once(kafka: Kafka, tmp_path: Path) -> None:
    async with scripted_api(http(b'[{"symbol":"A"}]')) as api:
        settings = environ(kafka, unique("missing"), api, SHUTDOWN_TIMEOUT_SECONDS="120")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.ready_reason("does not exist")
            await eventually(lambda: len(api.requests) > 1, "records that wait")
            producer.send(signal.SIGTERM)
            await producer.logged("Stopping")
            producer.send(signal.SIGTERM)
            assert await producer.ended(10) == -signal.SIGTERM


async def test_stopping_while_records_wait_exits_1_with_their_number_within_the_budget(
    kafka: Kafka, tmp_path: Path
) -> None:
    async with scripted_api(http(b'[{"symbol":"A"}]'), http(b"[]")) as api:
        settings = environ(kafka, unique("missing"), api, SHUTDOWN_TIMEOUT_SECONDS="3")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.ready_reason("does not exist")
            await eventually(lambda: len(api.requests) > 1, "a record that waits")
            began = time.monotonic()
            assert await producer.stop() == 1
            assert time.monotonic() - began < 3.5
            (line,) = producer.lines("Stopped, records not acknowledged")
    assert line["records"] == 1


async def test_stopping_during_a_fetch_that_hangs_is_quick_and_0(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(hang) as api:
        with ServiceProcess(["producer"], environ(kafka, topic, api, API_TIMEOUT_SECONDS="60"), tmp_path) as producer:
            await eventually(lambda: len(api.requests) == 1, "a request")
            began = time.monotonic()
            assert await producer.stop() == 0
            assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(b"[]"), (0, '"Polled"')),
        (http(b'{"status":"ERROR","error":"bad CANARY-Key/5e1f"}'), (1, "the API answered with an error")),
        (http(status="404 Not Found"), (1, "HTTP 404: check API_URL")),
        (http(b"<html>"), (1, "not strict JSON: invalid character (byte 0)")),
    ],
)
async def test_once_says_how_it_went(
    kafka: Kafka, topic: str, tmp_path: Path, answer: bytes, expected: tuple[int, str]
) -> None:
    code, said = expected
    async with scripted_api(answer) as api:
        settings = environ(kafka, topic, api, API_KEY=CANARY)
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == code
            output = producer.output()
    assert said in output
    assert CANARY not in output
    assert "Traceback" not in output


async def test_check_answers_in_four_lines_and_publishes_nothing(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(http(body_of(quotes(7)))) as api:
        settings = environ(kafka, topic, api, API_RECORDS_POINTER="/tickers")
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(30) == 0
            lines = producer.output().splitlines()
        assert len(api.requests) == 1
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in ("settings", "api", "broker", "topic")]
    assert "7 records, 7 with a key" in lines[1]
    assert "1 partitions" in lines[3]
    assert sum((await kafka.end_offsets(topic)).values()) == 0


async def test_check_says_what_is_wrong(kafka: Kafka, tmp_path: Path) -> None:
    missing = unique("missing")
    async with scripted_api(http(b"no", status="401 Unauthorized")) as api:
        with ServiceProcess(["producer", "check"], environ(kafka, missing, api), tmp_path) as producer:
            assert await producer.ended(30) == 1
            lines = producer.output().splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "FAIL", "ok", "FAIL"]
    assert "HTTP 401: check API_KEY" in lines[1]
    assert f"{missing}: does not exist" in lines[3]


async def test_check_says_which_pointer_finds_nothing(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(http(b'{"tickers":[{"ticker":"A"}]}')) as api:
        settings = environ(kafka, topic, api, API_RECORDS_POINTER="/results")
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(30) == 1
            assert "nothing is at API_RECORDS_POINTER='/results': check it" in producer.output()
        settings = environ(kafka, topic, api, API_RECORDS_POINTER="/tickers")
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(30) == 0
            assert "nothing is at RECORD_KEY_POINTER='/symbol': another one, or none?" in producer.output()


async def test_check_without_a_broker_ends_in_time(kafka: Kafka, tmp_path: Path) -> None:
    async with scripted_api(http(b"[]")) as api:
        settings = environ(kafka, "t", api, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        began = time.monotonic()
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(31) == 1
            assert time.monotonic() - began < 30
            lines = [line for line in producer.output().splitlines() if not line.startswith("{")]
    assert [line.split()[:2] for line in lines[2:]] == [["FAIL", "broker"], ["FAIL", "topic"]]
    assert "127.0.0.1:1 cannot be used" in lines[2]


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({}, ["API_URL: not set; "]),
        ({"API_URL": f"ftp://u:{CANARY}@h/"}, ["API_URL: "]),
        ({"API_URL": "http://h/", "SELECT": "some"}, ["SELECT: 'some' is not allowed; "]),
        (
            {"API_URL": "http://h/", "API_RATE_LIMIT_PER_MINUTE": "0"},
            ["API_RATE_LIMIT_PER_MINUTE: '0' is not allowed; "],
        ),
        ({"API_URL": "http://h/", "API_KEY": CANARY, "API_AUTH": "none"}, ["API_AUTH: "]),
        ({"API_URL": "http://h/", "KAFKA_SASL_PASSWORD": CANARY}, ["KAFKA_SASL_PASSWORD: "]),
        ({"API_URL": "http://h/", "API_MAX_RECORDS": "0", "LOG_LEVEL": "loud"}, ["API_MAX_RECORDS: ", "LOG_LEVEL: "]),
    ],
)
async def test_bad_settings_are_exit_2_with_a_line_each(
    settings: dict[str, str], faults: list[str], tmp_path: Path
) -> None:
    with ServiceProcess(["producer"], settings, tmp_path) as producer:
        assert await producer.ended() == 2
        lines = producer.output().splitlines()
    assert len(lines) == len(faults)
    assert all(any(line.startswith(fault) for line in lines) for fault in faults)
    assert CANARY not in "".join(lines)


@pytest.mark.parametrize("command", ["check", "once"])
async def test_bad_settings_are_exit_2_for_the_commands_too(command: str, tmp_path: Path) -> None:
    with ServiceProcess(["producer", command], {"API_URL": "h"}, tmp_path) as producer:
        assert await producer.ended() == 2
        assert producer.output().startswith("API_URL: ")


async def test_an_unknown_command_is_exit_2_with_the_usage(tmp_path: Path) -> None:
    with ServiceProcess(["producer", "chekc"], {}, tmp_path) as producer:
        assert await producer.ended() == 2
        assert producer.output().startswith("usage: python -m producer")


async def test_a_misspelt_variable_is_warned_of(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    async with scripted_api(http(b"[]")) as api:
        settings = environ(kafka, topic, api, POLL_INTERVAL="5")
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
            (line,) = producer.lines("Odd setting")
    assert "did you mean POLL_INTERVAL_SECONDS?" in str(line["reason"])


@pytest.mark.parametrize("auth", ["bearer", "query:apiKey", "header:X-Api-Key"])
async def test_the_key_shows_nowhere_whatever_the_api_does_with_it(
    kafka: Kafka, topic: str, tmp_path: Path, auth: str
) -> None:
    encoded = CANARY.replace("/", "%2F")
    answers = [
        http(f"unknown key {CANARY}".encode(), status="401 Unauthorized", headers=[f"Set-Cookie: k={CANARY}"]),
        http(status="302 Found", headers=[f"Location: http://other.example/?apiKey={encoded}"]),
        http(f"{CANARY} is throttled".encode(), status="429 Too Many", headers=["Retry-After: 0"]),
        http(f"oops {encoded}".encode(), status="500 Oops"),
        http(b"x" * 195 + CANARY.encode()),
        http(f'{{"error":"no {CANARY}"}}'.encode()),
        http(f'["{CANARY}", 5]'.encode()),
        http(f'[{{"symbol":"A","note":"{CANARY}"}}]'.encode()),
    ]
    async with scripted_api(*answers) as api:
        settings = environ(kafka, topic, api, API_KEY=CANARY, API_AUTH=auth, LOG_LEVEL="DEBUG")
        settings["API_URL"] += f"?token={CANARY}2"
        pages: list[str] = []
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            while not producer.lines("Message sent"):
                pages += [(await producer.get(path))[1] for path in ("/", "/readyz", "/healthz", "/metrics")]
            assert await producer.stop() == 0
            output = producer.output()
    assert len(api.requests) >= len(answers)
    assert "other.example" in output
    for text in (output, *pages):
        assert "CANARY" not in text
