"""The side-port, the page and the loop monitor."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from shared.health import LoopMonitor, SidePort, Status, Table
from shared.page import render
from shared.settings import SettingsError
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.virtual_time import VirtualTimeLoop


class Told:
    """A probe that tells what a test wants."""

    def __init__(self) -> None:
        self.dead: str | None = None
        self.reasons: Sequence[str] = ()
        self.facts = {"topic": "task"}

    def not_alive(self) -> str | None:
        return self.dead

    def not_ready(self) -> Sequence[str]:
        return self.reasons

    def status(self) -> Status:
        return Status(facts=self.facts, tables=[Table(title="Partitions", columns=["partition"], rows=[[0], [1]])])


@asynccontextmanager
async def served(probe: Told, registry: CollectorRegistry | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    side_port = SidePort("127.0.0.1", 0, "consumer", probe, registry or CollectorRegistry())
    port = await side_port.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await side_port.stop()


async def get(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


async def test_a_service_that_lives_and_can_work_says_so() -> None:
    async with served(Told()) as session:
        assert await get(session, "/healthz") == (200, "alive\n")
        assert await get(session, "/readyz") == (200, "ready\n")


async def test_reasons_are_told_one_a_line() -> None:
    probe = Told()
    probe.dead, probe.reasons = "the loop stands still", ["Kafka is away", "S3 refuses"]
    async with served(probe) as session:
        assert await get(session, "/healthz") == (503, "the loop stands still\n")
        assert await get(session, "/readyz") == (503, "Kafka is away\nS3 refuses\n")


async def test_being_unready_does_not_make_it_dead() -> None:
    probe = Told()
    probe.reasons = ["S3 is away"]
    async with served(probe) as session:
        assert (await get(session, "/healthz"))[0] == 200


async def test_metrics_are_those_of_the_registry_in_prometheus_text() -> None:
    registry = CollectorRegistry()
    Counter("ticklake_consumer_objects", "Objects.", registry=registry).inc(3)
    async with served(Told(), registry) as session, session.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "ticklake_consumer_objects_total 3.0\n" in await response.text()


async def test_the_page_shows_facts_tables_and_reasons_and_comes_again_by_itself() -> None:
    probe = Told()
    probe.reasons = ["S3 is away"]
    async with served(probe) as session, session.get("/") as response:
        text = await response.text()
        assert response.content_type == "text/html"
        assert response.headers["Cache-Control"] == "no-store"
    for part in ("ticklake consumer", "topic", "task", "Partitions", "not ready: S3 is away", "http-equiv=refresh"):
        assert part in text


async def test_an_unknown_path_is_404_and_writing_is_405() -> None:
    async with served(Told()) as session:
        assert (await get(session, "/secret"))[0] == 404
        async with session.post("/healthz") as response:
            assert response.status == 405


async def test_port_0_is_any_free_port_and_is_logged() -> None:
    side_port = SidePort("127.0.0.1", 0, "consumer", Told(), CollectorRegistry())
    with capture_logs() as lines:
        port = await side_port.start()
    await side_port.stop()
    assert port > 0
    assert lines == [{"event": "Listening", "host": "127.0.0.1", "port": port, "log_level": "info"}]


async def test_a_port_that_is_taken_is_a_fault_of_the_settings() -> None:
    first = SidePort("127.0.0.1", 0, "consumer", Told(), CollectorRegistry())
    port = await first.start()
    try:
        with pytest.raises(
            SettingsError, match=rf"^HTTP_PORT: cannot listen on 127\.0\.0\.1:{port} \(Address"
        ) as caught:
            await SidePort("127.0.0.1", port, "consumer", Told(), CollectorRegistry()).start()
    finally:
        await first.stop()
    assert len(caught.value.faults) == 1


async def test_an_address_of_another_machine_is_a_fault_of_the_settings() -> None:
    with pytest.raises(SettingsError, match=r"^HTTP_PORT: cannot listen on 192\.0\.2\.1:0 "):
        await SidePort("192.0.2.1", 0, "consumer", Told(), CollectorRegistry()).start()


async def test_stopping_frees_the_port_does_not_wait_for_idle_clients_and_may_be_repeated() -> None:
    side_port = SidePort("127.0.0.1", 0, "consumer", Told(), CollectorRegistry())
    port = await side_port.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        await get(session, "/")  # kept alive by both ends
        began = time.monotonic()
        await side_port.stop()
        assert time.monotonic() - began < 5
        await side_port.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(session, "/")


def test_everything_on_the_page_is_escaped() -> None:
    evil = "<script>&\"'"
    status = Status(facts={evil: evil}, tables=[Table(title=evil, columns=[evil], rows=[[evil]])])
    page = render(evil, status, evil, [evil])
    assert "<script" not in page
    assert page.count("&lt;script&gt;&amp;&quot;&#x27;") == 9


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = render("producer", Status(), None, [])
    assert "src=" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert "ready" in page


def test_the_page_shows_large_numbers_in_groups_and_nothing_for_none() -> None:
    page = render("x", Status(facts={"lag": 1234567, "since": None, "ok": True}), None, [])
    assert "<td>1,234,567</td>" in page
    assert "<td>since</td><td></td>" in page
    assert "<td>True</td>" in page


async def test_a_blocked_loop_is_measured() -> None:
    seen: list[float] = []
    monitor = LoopMonitor(seen.append)
    task = asyncio.create_task(monitor.run())
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.sleep(0)
        time.sleep(0.2)  # the block itself
        while max(seen) < 0.1:
            await asyncio.sleep(0)
    task.cancel()
    assert min(seen) >= 0


@virtual_time
async def test_a_block_of_a_busy_loop_shows_at_most_5_ms_too_short_and_never_too_long() -> None:
    loop = cast("VirtualTimeLoop", asyncio.get_running_loop())
    seen: list[float] = []
    task = asyncio.create_task(LoopMonitor(seen.append, loop.time).run())
    await asyncio.sleep(0.02)
    loop._now += 0.05  # busy from now on
    for wait_ms in range(5, 45):  # the blocks begin at every place of a sleep
        for block in (0.011, 0.025, 0.050):
            await asyncio.sleep(wait_ms * 1.01e-3)
            seen.clear()
            loop._now += block
            await asyncio.sleep(0.03)
            assert block - 0.005 - 1e-6 <= max(seen) <= block + 1e-6
    task.cancel()


@virtual_time
async def test_after_a_calm_second_the_loop_is_looked_at_seldom_until_it_is_late_again() -> None:
    loop = cast("VirtualTimeLoop", asyncio.get_running_loop())
    seen: list[float] = []
    task = asyncio.create_task(LoopMonitor(seen.append, loop.time).run())
    await asyncio.sleep(10.01)
    assert len(seen) == 500
    assert max(seen) < 1e-6
    loop._now += 0.03
    await asyncio.sleep(0.005)
    assert 0.01 <= seen[-1] <= 0.03  # the first block after a calm time: up to 20 ms too short
    seen.clear()
    await asyncio.sleep(0.5)
    assert len(seen) == 100
    await asyncio.sleep(1)
    seen.clear()
    await asyncio.sleep(1)
    assert len(seen) == 50
    task.cancel()


async def test_a_client_that_does_not_read_holds_the_stop_up_for_no_longer_than_it_may() -> None:
    side_port = SidePort("127.0.0.1", 0, "producer", Told(), CollectorRegistry())
    port = await side_port.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport can
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
    await writer.drain()
    began = time.monotonic()
    await side_port.stop(0.3)
    assert time.monotonic() - began < 1.5
    writer.transport.abort()
    del reader
