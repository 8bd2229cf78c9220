"""The producer while the topic or the broker is not there, and when Kafka refuses records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.processes import ServiceProcess
from tests.scripted_api import http, scripted_api
from tests.servers import Kafka, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def environ(kafka: Kafka, topic: str, url: str, **settings: str) -> dict[str, str]:
    return {
        "API_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "POLL_INTERVAL_SECONDS": "0.2",
        "SELECT": "all",
        **settings,
    }


async def ready(producer: ServiceProcess) -> None:
    async def green() -> bool:
        return (await producer.get("/readyz"))[0] == 200

    await eventually(green, "readiness", every_seconds=0.2)


def said(producer: ServiceProcess) -> int:
    return sum(int(str(line["records"])) for line in producer.lines("Message sent"))


async def count(kafka: Kafka, topic: str) -> int:
    return sum((await kafka.end_offsets(topic)).values())


async def test_a_missing_topic_is_waited_for_and_never_created(new_kafka: Callable[..., Kafka], tmp_path: Path) -> None:
    kafka = new_kafka(settings={"auto.create.topics.enable": "true"})  # which a named metadata request would trigger
    topic = unique("later")
    async with scripted_api(http(b'[{"symbol":"A"}]')) as api:
        with ServiceProcess(["producer"], environ(kafka, topic, api.url), tmp_path) as producer:
            reason = await producer.ready_reason("does not exist")
            assert f"topic {topic}" in reason
            assert "create it" in reason
            assert (await producer.get("/healthz"))[0] == 200
            await eventually(lambda: len(api.requests) > 10, "polls go on")
            assert not producer.lines("Message sent")
            await kafka.create_topic(3, name=topic)  # fails if it is there already
            await producer.logged("Message sent", count=10)
            await ready(producer)
            assert await producer.stop() == 0
            assert await count(kafka, topic) == said(producer)


async def test_a_broker_that_is_away_at_start_and_in_mid_run_is_waited_for_with_bounded_memory(
    new_kafka: Callable[..., Kafka], tmp_path: Path
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(3)
    kafka.server.stop()
    async with scripted_api(http(b'[{"symbol":"A"},{"symbol":"B"}]')) as api:
        settings = environ(kafka, topic, api.url, PUBLISH_MAX_UNACKED_BYTES="4000")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.ready_reason(f"{kafka.bootstrap_servers} cannot be used")
            await producer.logged("Ticks skipped")
            (line,) = producer.lines("Ticks skipped")
            assert line["reason"] == "unacked"
            asked = len(api.requests)
            metrics = (await producer.get("/metrics"))[1]
            assert 'skipped_total{reason="unacked"}' in metrics
            assert (await producer.get("/healthz"))[0] == 200

            kafka.server.start()
            await producer.logged("Message sent")
            await ready(producer)
            assert len(api.requests) >= asked

            kafka.server.kill()
            await producer.ready_reason("Kafka has not acknowledged")
            kafka.server.start()
            before = len(producer.lines("Message sent"))
            await producer.logged("Message sent", count=before + 5)
            await ready(producer)
            assert await producer.stop() == 0
            assert await count(kafka, topic) == said(producer)
            assert "Traceback" not in producer.output()


async def test_stopping_with_a_frozen_broker_keeps_the_budget_and_exits_1(
    new_kafka: Callable[..., Kafka], tmp_path: Path
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic(3)
    async with scripted_api(http(b'[{"symbol":"A"},{"symbol":"B"}]')) as api:
        settings = environ(kafka, topic, api.url, SHUTDOWN_TIMEOUT_SECONDS="4")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await producer.logged("Message sent", count=2)
            kafka.server.suspend()
            try:
                asked = len(api.requests)
                await eventually(lambda: len(api.requests) > asked + 2, "more records")
                assert await producer.stop(4.9) == 1
            finally:
                kafka.server.resume()
            (line,) = producer.lines("Stopped, records not acknowledged")
            assert int(str(line["records"])) > 0
            assert "Traceback" not in producer.output()


async def test_a_giant_is_set_aside_alone(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    giant = b'{"symbol":"G","x":"' + b"x" * 1_000_000 + b'"}'
    async with scripted_api(http(b'[{"symbol":"A"},' + giant + b',{"symbol":"B"}]')) as api:
        with ServiceProcess(["producer", "once"], environ(kafka, topic, api.url), tmp_path) as producer:
            assert await producer.ended() == 0
            (line,) = producer.lines("Record set aside")
    assert (line["reason"], line["key"], line["bytes"]) == ("too_large", "G", len(giant))
    records = (await kafka.read(topic))[0]
    assert [record.value for record in records] == [b'{"symbol":"A"}', b'{"symbol":"B"}']


async def test_records_that_kafka_refuses_for_good_end_the_process_with_their_number(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = await kafka.create_topic(config={"max.message.bytes": "300"})
    async with scripted_api(http(b'[{"symbol":"A","x":"' + bytes(range(48, 91)) * 9 + b'"}]')) as api:
        with ServiceProcess(["producer"], environ(kafka, topic, api.url), tmp_path) as producer:
            assert await producer.ended() == 1
            (line,) = producer.lines("Publishing failed")
            assert "MessageSizeTooLargeError" in str(line["reason"])
            assert "1 records not acknowledged" in str(line["reason"])
            assert "Traceback" not in producer.output()
