"""The process around the worker: how it starts, how it ends, and with which exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import structlog

from consumer import service
from consumer.ports import SourceError
from consumer.service import Service, container_limit_bytes, unless
from consumer.settings import Settings
from shared.settings import CONSUMER_VARIABLES, SHARED_VARIABLES, SettingsError, load
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.fakes.store import Call, Fail, FakeStore
from tests.servers import eventually
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consumer.ports import Listener


async def work(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def fail() -> str:
    raise ZeroDivisionError


@virtual_time
async def test_a_start_ends_with_its_result_its_failure_or_the_stop() -> None:
    stop = asyncio.Event()
    assert await unless(stop, work(5)) == "done"
    with pytest.raises(ZeroDivisionError):
        await unless(stop, fail())
    asyncio.get_running_loop().call_later(3, stop.set)
    began = asyncio.get_running_loop().time()
    assert await unless(stop, work(1000)) is None
    assert asyncio.get_running_loop().time() - began < 4


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "536870912\n", 536870912),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "268435456\n", 268435456),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("nothing", "", None),
    ],
)
def test_the_containers_limit_is_read_from_either_version_of_control_groups(
    tmp_path: Path, name: str, text: str, limit: int | None
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert container_limit_bytes(tmp_path) == limit


# ---- the whole process on the fakes ----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Bench:
    """What a Service meets instead of Kafka and S3."""

    log: FakeLog = field(default_factory=lambda: FakeLog(1))
    store: FakeStore = field(default_factory=FakeStore)
    source: FakeSource = field(init=False)

    def __post_init__(self) -> None:
        self.source = FakeSource(FakeGroup(self.log, rebalance_timeout_seconds=60.0), batches_per_poll=4)

    async def run(self, **variables: str) -> int:
        environ = {"S3_BUCKET": "bucket", "HTTP_HOST": "127.0.0.1", "HTTP_PORT": "0", "BATCH_MAX_SECONDS": "0.05"}
        async with asyncio.timeout(60):
            return await Service(load(Settings, {**environ, **variables})).run()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench()
    monkeypatch.setattr(service, "new_source", lambda _: made.source)
    monkeypatch.setattr(service, "new_store", lambda _: nullcontext(made.store))
    yield made
    gc.unfreeze()


async def test_a_process_that_s3_never_answers_leaves_the_group_and_exits_1(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "GIVE_UP_SECONDS", 0.0)
    bench.store.plan = lambda asked: Fail(reason="as told") if asked.upload and "topic=" in asked.key else None
    bench.log.append(0, [b"1"])
    with structlog.testing.capture_logs() as lines:
        assert await bench.run() == 1
    (line,) = [line for line in lines if line["event"] == "Gave up"]
    assert "as told" in line["reason"]
    assert line["log_level"] == "error"
    with pytest.raises(SourceError):
        await bench.source.identity()  # it has left


async def test_a_signal_stops_it_with_0_and_what_was_open_stored(bench: Bench) -> None:
    bench.log.append(0, [b"1", b"2"])

    async def stop() -> None:
        await eventually(lambda: any("topic=" in key for key in bench.store.asked(Call.HEAD)), "the probe")
        os.kill(os.getpid(), signal.SIGTERM)

    with structlog.testing.capture_logs() as lines:
        code, _ = await asyncio.gather(bench.run(BATCH_MAX_SECONDS="60"), stop())
    assert code == 0
    (line,) = [line for line in lines if line["event"] == "Uploaded"]
    assert (line["records"], line["start"], line["next"]) == (2, 0, 2)


async def test_what_a_start_made_is_never_looked_through_for_garbage_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    began = bench.source.join

    def join(listener: Listener) -> None:
        kept.extend([gc.get_freeze_count(), len(gc.get_objects())])
        os.kill(os.getpid(), signal.SIGTERM)
        began(listener)

    monkeypatch.setattr(bench.source, "join", join)
    assert await bench.run() == 0
    frozen, others = kept
    assert frozen > 100 * others
    assert gc.isenabled()


async def test_the_start_up_line_has_every_setting_and_no_secret_and_odd_ones_are_told(bench: Bench) -> None:
    bench.store.place("_ticklake/task/layout.json", b"not a layout")
    secrets = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "user",
        "KAFKA_SASL_PASSWORD": "canary",
        "AWS_ENDPOINT_URL_S3": "http://u:canary@127.0.0.1:1",
        "BATCH_MAX_RECORD": "7",
    }
    with structlog.testing.capture_logs() as lines, pytest.raises(SettingsError, match=r"layout\.json cannot be read"):
        await bench.run(**secrets)
    (line,) = [line for line in lines if line["event"] == "Starting"]
    settings = line["settings"]
    assert set(settings) == {*SHARED_VARIABLES, *CONSUMER_VARIABLES} - {"AWS_DEFAULT_REGION"}
    assert "canary" not in str(lines)
    (line,) = [line for line in lines if line["event"] == "Odd setting"]
    assert "BATCH_MAX_RECORDS" in line["reason"]


@pytest.mark.parametrize(("container_bytes", "warned"), [(512 << 20, 0), (300 << 20, 1), (None, 0)])
async def test_a_container_without_room_for_the_memory_limit_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, container_bytes: int | None, warned: int
) -> None:
    bench.store.place("_ticklake/task/layout.json", b"not a layout")
    monkeypatch.setattr(service, "container_limit_bytes", lambda: container_bytes)
    with structlog.testing.capture_logs() as lines, pytest.raises(SettingsError):
        await bench.run()
    assert len([line for line in lines if line["event"] == "Container is small"]) == warned


async def test_a_stop_that_hangs_ends_at_the_budget_with_1(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    async def connect() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async def leave() -> None:
        await ended.wait()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(bench.source, "connect", connect)
    monkeypatch.setattr(bench.source, "leave", leave)
    began = asyncio.get_running_loop().time()
    with structlog.testing.capture_logs() as lines:
        await bench.run(SHUTDOWN_TIMEOUT_SECONDS="1")
    assert codes == [1]
    assert asyncio.get_running_loop().time() - began < 1
    (line,) = [line for line in lines if line["event"] == "Not stopped in time"]
    assert "nothing is lost" in line["hint"]
