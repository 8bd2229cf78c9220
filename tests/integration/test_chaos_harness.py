"""The chaos harness itself: each fault of the proxy as the client sees it, and whether the effect happened.

Behind the proxy stands tests.fault_server, well-behaved, whose objects can be looked at; at the end a real S3 server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import http.client
import json
import zlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from demo import buckets
from tests.chaos import faults, figures, registry, report
from tests.chaos.arena import Arena
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.faults import Fault
from tests.chaos.load import Load
from tests.chaos.runner import Outcome
from tests.fault_server import FaultServer
from tests.processes import ServiceProcess
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.servers import S3, Kafka

SECONDS = 10.0
LATE_SECONDS = 0.3


class Client:
    """The standard library's client, for it never sends a request twice as aiohttp does: it sees what the proxy did."""

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")
        self.body = b""

    async def ask(self, method: str, key: str, body: bytes = b"", *, seconds: float = SECONDS) -> int | str:
        """The status, or in one word how the connection ended."""
        return await asyncio.to_thread(self._ask, method, key, body, seconds)

    def _ask(self, method: str, key: str, body: bytes, seconds: float) -> int | str:
        connection = http.client.HTTPConnection(self._host, timeout=seconds)
        try:
            connection.request(method, f"/bucket/{key}", body=body or None)
            answer = connection.getresponse()
            self.body = answer.read()
            return answer.status
        except TimeoutError:
            return "silence"
        except ConnectionRefusedError:
            return "refused"
        except (ConnectionError, http.client.HTTPException):
            return "broken"
        finally:
            connection.close()


@dataclasses.dataclass(slots=True)
class Site:
    server: FaultServer
    proxy: FaultProxy
    client: Client

    def has(self, key: str) -> bool:
        return key in self.server.buckets["bucket"]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with FaultServer() as server, FaultProxy(int(server.url.rsplit(":", 1)[1]), seed=1) as proxy:
        yield Site(server, proxy, Client(proxy.url))


async def test_without_a_fault_a_request_passes_unchanged(site: Site) -> None:
    body = bytes(range(256)) * 400
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    headers = {"x-amz-checksum-crc32": crc, "X-Amz-Meta-Odd": "a  b", "Host": "some.host:1", "Expect": "100-continue"}
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{site.proxy.url}/bucket/a%20b", data=body, headers=headers) as answer:
            assert answer.status == 200
        async with session.get(f"{site.proxy.url}/bucket/a%20b") as answer:
            assert await answer.read() == body
    seen = site.server.requests[0]
    assert (seen.key, seen.body) == ("a b", body)
    assert {name: seen.headers[name.lower()] for name in headers} == headers
    assert site.server.connections == 2, "a connection of its own a request"
    assert [request.method for request in site.server.requests] == ["PUT", "GET"]
    assert site.proxy.journal == []


@pytest.mark.parametrize(
    ("fault", "seen", "effect"),
    [
        (faults.DROP, "broken", False),
        (faults.RESET, "broken", False),
        (faults.RESET_MID_BODY, "broken", False),
        (faults.LOST_ANSWER, "broken", True),
        (faults.DROP.done(), "broken", True),
        (faults.INTERNAL, 500, False),
        (faults.INTERNAL.done(), 500, True),
        (faults.SLOW_DOWN, 503, False),
        (faults.SLOW_DOWN.done(), 503, True),
        (faults.CONFLICT, 409, False),
        (faults.CONFLICT.done(), 409, True),
        (faults.DENIED, 403, False),
        (faults.EXPIRED, 400, False),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_a_fault_is_what_the_client_sees_and_apart_from_it_the_effect(
    site: Site, fault: Fault, seen: int | str, *, effect: bool
) -> None:
    site.proxy.inject(fault, method="PUT", times=1)
    assert await site.client.ask("PUT", "key", b"body" * 50_000) == seen
    if isinstance(seen, int):
        assert f"<Code>{fault.code}</Code>".encode() in site.client.body
    assert site.has("key") is effect
    assert len(site.server.requests) == effect, "forwarded once, or never"
    assert dict(site.proxy.counts) == {f"{fault.name} PUT": 1}
    assert [struck.status for struck in site.proxy.journal] == [200 if effect else None]
    assert await site.client.ask("GET", "key") == (200 if effect else 404), "once, and then no more"


@pytest.mark.parametrize("fault", [faults.RESET, faults.INTERNAL, faults.STALL])
async def test_a_late_effect_happens_after_the_client_gave_up(site: Site, fault: Fault) -> None:
    site.proxy.inject(fault.late(LATE_SECONDS), method="PUT", times=1)
    await site.client.ask("PUT", "key", b"body", seconds=0.1)
    assert not site.has("key")
    await site.proxy.settled()
    assert site.has("key")
    assert [struck.status for struck in site.proxy.journal] == [200]


async def test_a_stalled_request_has_no_answer_and_no_effect(site: Site) -> None:
    site.proxy.inject(faults.STALL)
    assert await site.client.ask("PUT", "key", b"body", seconds=0.2) == "silence"
    assert site.server.requests == []


async def test_what_is_held_is_carried_out_when_released_whether_its_client_waits_or_not(site: Site) -> None:
    site.proxy.inject(faults.HELD, method="PUT", times=2)
    waiting = asyncio.create_task(site.client.ask("PUT", "waiting", b"body"))
    await eventually(lambda: len(site.proxy.held) == 1, "the first is held", SECONDS)
    assert await Client(site.proxy.url).ask("PUT", "gone", b"body", seconds=0.1) == "silence"
    await eventually(lambda: len(site.proxy.held) == 2, "the second is held", SECONDS)
    assert not site.has("waiting")
    site.proxy.release()
    assert await waiting == 200
    await site.proxy.settled()
    assert site.has("waiting")
    assert site.has("gone")


async def test_a_refused_head_has_no_body(site: Site) -> None:
    site.proxy.inject(faults.DENIED)
    assert await site.client.ask("HEAD", "key") == 403
    assert site.client.body == b""
    assert await site.client.ask("GET", "key") == 403
    assert b"AccessDenied" in site.client.body


async def test_rules_choose_by_method_key_order_and_number(site: Site) -> None:
    site.proxy.inject(faults.DENIED, method="PUT", key_part="x", after=1, times=2)
    site.proxy.inject(faults.SLOW_DOWN, where=lambda request: request.headers.get("host") == "nobody")
    asked = [await site.client.ask("PUT", key, b"1") for key in ("x1", "y", "x2", "x3", "x4")]
    assert asked == [200, 200, 403, 403, 200]
    with site.proxy.injecting(faults.INTERNAL):
        assert await site.client.ask("GET", "x1") == 500
    assert await site.client.ask("GET", "x1") == 200


async def test_chance_is_drawn_from_the_seed(site: Site) -> None:
    async def drawn(seed: int) -> list[int | str]:
        async with FaultProxy(int(site.server.url.rsplit(":", 1)[1]), seed=seed) as proxy:
            proxy.inject(faults.INTERNAL, share=0.3)
            return [await Client(proxy.url).ask("GET", "key") for _ in range(60)]

    first = await drawn(7)
    assert first == await drawn(7)
    assert first != await drawn(8)
    assert 8 <= first.count(500) <= 28


async def test_away_cuts_what_is_open_and_refuses_what_comes(site: Site) -> None:
    site.proxy.inject(faults.STALL, times=1)
    waiting = asyncio.create_task(site.client.ask("GET", "key"))
    await eventually(lambda: bool(site.proxy.journal), "the first request is there", SECONDS)
    async with site.proxy.away():
        assert await waiting == "broken"
        assert await site.client.ask("PUT", "key", b"1") == "refused"
    assert await site.client.ask("PUT", "key", b"1") == 200


async def test_a_server_that_is_gone_looks_like_a_broken_connection(site: Site) -> None:
    await site.server.__aexit__(None, None, None)
    assert await site.client.ask("GET", "key") == "broken"


async def test_signatures_and_large_bodies_pass_to_a_real_server(any_s3: S3) -> None:
    bucket = await any_s3.create_bucket()
    async with FaultProxy(any_s3.server.port) as proxy:
        access = dataclasses.replace(any_s3.access, endpoint_url=proxy.url)
        async with buckets.client(access) as client:
            await client.put_object(Bucket=bucket, Key="a/large one", Body=b"x" * 3_000_000, Metadata={"m": "1"})
            head = await client.head_object(Bucket=bucket, Key="a/large one")
            listed = [key async for key in buckets.keys(access, bucket)]
    assert head["ContentLength"] == 3_000_000
    assert listed == ["a/large one"]


async def test_the_load_says_who_each_record_is(kafka: Kafka) -> None:
    topic = await kafka.create_topic(3)
    load = Load(
        kafka.bootstrap_servers, topic, partitions=[0, 2], records_per_second=2000, value_bytes=300, name="mine"
    )
    async with load:
        await eventually(lambda: load.acknowledged > 500, "500 records acknowledged", SECONDS)
    assert load.sent == load.acknowledged
    assert load.failed == []
    read = await kafka.read(topic)
    assert sum(map(len, read.values())) == load.sent
    assert read[1] == []
    for partition in (0, 2):
        told = [json.loads(record.value or b"") for record in read[partition]]
        assert [(one["load"], one["partition"], one["n"]) for one in told] == [
            ("mine", partition, n) for n in range(len(told))
        ]
        assert all(len(record.value or b"") == 300 for record in read[partition])


async def test_a_failure_under_load_is_told_at_once_even_when_the_broker_is_gone(
    new_kafka: Callable[[], Kafka],
) -> None:
    kafka = new_kafka()
    topic = await kafka.create_topic()
    load = Load(kafka.bootstrap_servers, topic, partitions=[0], records_per_second=100)

    async def act() -> None:
        async with load:
            await eventually(lambda: load.acknowledged > 0, "records acknowledged", SECONDS)
            kafka.server.kill()
            sent = load.sent
            await eventually(lambda: load.sent > sent, "records nobody takes", SECONDS)
            raise ValueError("the scenario's own failure")

    with pytest.raises(ValueError, match="the scenario's own failure"):
        await asyncio.wait_for(act(), 2 * SECONDS)


@pytest.fixture
async def arena(kafka: Kafka, s3: S3, tmp_path: Path) -> AsyncIterator[Arena]:
    """That of a scenario of one partition, with records in it."""
    scenario = dataclasses.replace(registry.all_scenarios()["scale"], partitions=1)
    async with FaultProxy(s3.server.port) as proxy:
        arena = Arena(scenario, kafka=kafka, s3=s3, proxy=proxy, folder=tmp_path, seed=1)
        try:
            await arena.open()
            async with arena.load(500) as load:
                await eventually(lambda: load.acknowledged > 100, "records", SECONDS)
            yield arena
        finally:
            await arena.close()


async def test_a_replica_that_ended_by_itself_fails_the_proof_unless_its_end_was_awaited(arena: Arena) -> None:
    killed, broken = arena.consumer(), arena.consumer(BATCH_MAX_SECONDS="soon")
    arena.kill(killed)
    await eventually(lambda: broken.process.poll() is not None, "it has ended", SECONDS)
    arena.consumer()
    with pytest.raises(AssertionError, match=f"{broken.log_file.name} ended with 2 by itself"):
        await arena.proven()
    assert await broken.ended() == 2
    await arena.assigned(arena.consumer())
    await arena.proven()


def test_hand_overs_are_read_off_the_log_lines(tmp_path: Path) -> None:
    """Old owner 0 gives back at :10, after a drain of 0.5 s; new owner 1 has its first record at :11.5.

    Partition 4 comes back, and is sealed by something else than its timer; 5 stalls; owner 2 takes 3 after its start.
    """
    logs: list[list[tuple[str, str, dict[str, object]]]] = [
        [
            ("10", "Partitions revoked", {"partitions": [3, 4, 5], "seconds": 0.5}),
            ("10.2", "Partitions assigned", {"partitions": [4]}),
            ("10.4", "Uploaded", {"key": "dt=1/00004-00000000000000000000.jsonl.gz", "seconds": 0.1}),
        ],
        [
            ("9", "Starting", {}),
            ("10.4", "Partitions assigned", {"partitions": [3, 5]}),
            ("12", "Stalled", {"partition": 5}),
            ("12.7", "Uploaded", {"key": "dt=1/00003-00000000000000000007.jsonl.gz", "seconds": 0.2}),
            ("30", "Uploaded", {"key": "dt=1/00005-00000000000000000007.jsonl.gz", "seconds": 0.2}),
            ("40", "Partitions revoked", {"partitions": [3, 5]}),
        ],
        [
            ("42", "Starting", {}),
            ("43", "Partitions assigned", {"partitions": [3]}),
            ("45", "Uploaded", {"key": "dt=1/00003-00000000000000000009.jsonl.gz", "seconds": 0.2}),
        ],
    ]
    with contextlib.ExitStack() as stack:
        consumers = [stack.enter_context(ServiceProcess(["consumer", "no-such-command"], {}, tmp_path)) for _ in logs]
        for consumer, lines in zip(consumers, logs, strict=True):
            consumer.process.wait()
            text = [
                json.dumps({"timestamp": f"2026-01-01T00:00:{float(at):05.2f}+00:00", "event": event, **fields})
                for at, event, fields in lines
            ]
            consumer.log_file.write_text("\n".join(text))
        found = figures.hand_overs(consumers, batch_max_seconds=1.0)
        assert figures.hand_over_count(consumers) == 2, "partitions 3 and 4; the others waited for somebody else"
        consumers[1].wrong_clock = True
        assert figures.hand_overs(consumers, batch_max_seconds=1.0) == []
    assert [(one.partition, round(one.whole_seconds, 3), round(one.beyond_kafka_seconds, 3)) for one in found] == [
        (3, 1.5, 2.0)
    ], "partition 4 was not sealed by its timer, so it is no figure"


def test_the_scenarios_fit_their_budgets_and_a_part_of_them_is_for_ci(tmp_path: Path) -> None:
    known = registry.all_scenarios()
    assert all(found.budget_seconds <= 120 for found in known.values())
    assert 0 < sum(found.ci for found in known.values()) < len(known)
    outcomes = [
        Outcome(name="good", tells="Good.", seed=1, figures={"records": 1234}),
        Outcome(name="bad", tells="Bad.", seed=1, failure="partition 0 [0, 3): gap", folder="/somewhere"),
        Outcome(name="elsewhere", tells="Elsewhere.", seed=1, skipped="no such server here"),
    ]
    report.write(tmp_path, outcomes, seed=1, about={"kafka": "4"})
    assert json.loads((tmp_path / "report.json").read_text())["scenarios"][0]["figures"] == {"records": 1234}
    text = (tmp_path / "report.md").read_text()
    assert all(part in text for part in ("1 of 3", "1,234", "FAILED", "partition 0 [0, 3): gap", "no such server here"))
    assert report.verdict(outcomes) == "1 of 3 FAILED: bad, 1 passed, 1 SKIPPED: elsewhere"
    assert report.verdict(outcomes[:1]) == "1 passed"
    assert [report.line(outcome).split()[0] for outcome in outcomes] == ["ok", "FAIL", "SKIPPED"]
