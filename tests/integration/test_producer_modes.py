"""`SELECT=changed`, pages and the rate limit, as processes on the real Kafka and a scripted API."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from tests.processes import ServiceProcess
from tests.producer_witness import environ
from tests.scripted_api import http, scripted_api
from tests.servers import Kafka, eventually

if TYPE_CHECKING:
    from pathlib import Path


async def values(kafka: Kafka, topic: str) -> list[bytes | None]:
    return [record.value for partition in (await kafka.read(topic)).values() for record in partition]


A1, A2, B1, NULL = b'{"symbol":"A","p":1}', b'{"symbol":"A","p":2}', b'{"symbol":"B","p":1}', b'{"p":0}'


def body(*records: bytes) -> bytes:
    return b"[" + b",".join(records) + b"]"


async def test_changed_publishes_what_differs_from_what_was_handed_over_last(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    polls = [body(A1, B1), body(B1, A1), body(A2, B1), body(A1, B1), body(NULL), body(NULL, A1), body()]
    async with scripted_api(*(http(poll) for poll in polls)) as api:
        with ServiceProcess(
            ["producer"], environ(kafka.bootstrap_servers, topic, api.url, SELECT="changed"), tmp_path
        ) as producer:
            await eventually(lambda: len(api.requests) > len(polls), "all polls")
            assert await producer.stop() == 0
            said = [line["records"] for line in producer.lines("Message sent")]
    assert await values(kafka, topic) == [A1, B1, A2, A1, NULL, NULL]
    assert said == [2, 1, 1, 1, 1]


async def test_changed_asks_with_validators_and_takes_a_304_for_nothing_new(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    unchanged = b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nConnection: close\r\n\r\n'
    first = http(body(A1), headers=['ETag: "v1"'])
    async with scripted_api(first, unchanged, unchanged, http(body(A2))) as api:
        with ServiceProcess(
            ["producer"], environ(kafka.bootstrap_servers, topic, api.url, SELECT="changed"), tmp_path
        ) as producer:
            await eventually(lambda: len(api.requests) > 5, "six polls")
            assert await producer.is_ready()
            assert await producer.stop() == 0
    asked = [request.headers.get("if-none-match") for request in api.requests[:5]]
    assert asked == [None, '"v1"', '"v1"', '"v1"', None]
    assert await values(kafka, topic) == [A1, A2]


def page(*records: bytes, link: str = "") -> bytes:
    return b'{"results":' + body(*records) + b',"next_url":"' + link.encode() + b'"}'


async def test_pages_are_one_poll_and_each_is_asked_with_the_key(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    pages = [http(page(A1, link="/quotes?cursor=a&apiKey=gone")), http(page(B1, link="?cursor=b")), http(page(A2))]
    async with scripted_api(*pages) as api:
        paged = {"API_NEXT_POINTER": "/next_url", "API_RECORDS_POINTER": "/results"}
        settings = environ(kafka.bootstrap_servers, topic, api.url, API_KEY="k/1", API_AUTH="query:apiKey", **paged)
        with ServiceProcess(["producer", "once"], settings, tmp_path) as producer:
            assert await producer.ended() == 0
            (line,) = producer.lines("Message sent")
    assert line["records"] == 3
    assert await values(kafka, topic) == [A1, B1, A2]
    assert [request.target for request in api.requests] == [
        "/quotes?apiKey=k%2F1",
        "/quotes?cursor=a&apiKey=k%2F1",
        "/quotes?cursor=b&apiKey=k%2F1",
    ]


async def test_a_page_on_another_host_fails_the_poll_and_gets_no_request(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(http()) as other:
        link = other.url.replace("127.0.0.1", "localhost")
        async with scripted_api(http(page(A1, link=link))) as api:
            paged = {"API_NEXT_POINTER": "/next_url", "API_RECORDS_POINTER": "/results", "API_KEY": "canary"}
            with ServiceProcess(
                ["producer"], environ(kafka.bootstrap_servers, topic, api.url, **paged), tmp_path
            ) as producer:
                reason = await producer.ready_reason("the link to the next page leads to http://localhost")
                assert await producer.stop() == 0
    assert "which is not asked" in reason
    assert other.requests == []
    assert await values(kafka, topic) == []


async def test_a_poll_whose_second_page_fails_publishes_nothing_and_the_next_one_does(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    answers = [http(page(A1, link="?c=1")), http(b"no", status="404 Gone"), http(page(A1, link="?c=1")), http(page(B1))]
    async with scripted_api(*answers, http(page())) as api:
        paged = {"API_NEXT_POINTER": "/next_url", "API_RECORDS_POINTER": "/results"}
        with ServiceProcess(
            ["producer"], environ(kafka.bootstrap_servers, topic, api.url, **paged), tmp_path
        ) as producer:
            (line,) = await producer.logged("Poll failed")
            await producer.logged("Message sent")
            assert await producer.stop() == 0
    assert str(line["reason"]).startswith("page 2: HTTP 404")
    assert await values(kafka, topic) == [A1, B1]


async def test_the_rate_limit_stretches_the_period(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    moments: list[float] = []

    async with scripted_api(http(body(A1))) as api:
        with ServiceProcess(
            ["producer"], environ(kafka.bootstrap_servers, topic, api.url, API_RATE_LIMIT_PER_MINUTE="30"), tmp_path
        ) as producer:

            def asked() -> bool:
                if len(api.requests) > len(moments):
                    moments.append(time.monotonic())
                return len(moments) >= 4

            await eventually(asked, "four polls", every_seconds=0.01)
            page = (await producer.get("/"))[1]
            assert await producer.stop() == 0
    assert "2.03333 s, all" in page
    # Seen 10 ms late at most, 2 s apart at least.
    assert all(later - earlier > 1.95 for earlier, later in itertools.pairwise(moments))
