"""The store's disk is full; its bucket is meddled with."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from demo import installation, s3_server
from demo.buckets import S3Access
from tests.chaos import faults
from tests.chaos.registry import NotHereError, scenario
from tests.oracle import chain_ends
from tests.servers import S3, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from tests.chaos.arena import Arena
    from tests.processes import ServiceProcess

DISK_BYTES = 32 << 20
FULL_SECONDS = 8.0
MOUNT_SECONDS = 10.0
PREFIX = "lake/"
RETRYING = "retrying for"  # of a partition: S3 as a whole does not fail, for HEAD is answered


@scenario(
    "disk-full",
    "The store's disk (versitygw, 32 MiB) is full, twice, the second time at a start: shown, retried, nothing committed"
    " that is not stored, healed without help.",
    partitions=2,
    settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def disk_full(arena: Arena) -> None:
    async with _small_store(arena) as disk:
        consumer = arena.consumer()
        await arena.assigned(consumer)
        async with arena.load(800):
            await arena.objects_grow(4)
            with _filled(disk):
                reasons = await consumer.ready_reason(RETRYING, seconds=30)
                assert "InsufficientStorage" in reasons, reasons
                await _commits_only_what_is_stored(arena, consumer)
                assert (await consumer.get("/healthz"))[0] == 200
            arena.note("recovery_seconds", await arena.caught_up())
            await eventually(consumer.is_ready, "readiness green", 10)
            with _filled(disk):
                await consumer.ready_reason(RETRYING, seconds=30)
                arena.kill(consumer)
                consumer = arena.consumer()
                await _commits_only_what_is_stored(arena, consumer)
            await arena.objects_grow(4)
        await arena.proven()


async def _commits_only_what_is_stored(arena: Arena, consumer: ServiceProcess) -> None:
    """For some seconds no committed offset is beyond the last object of its chain, and readiness is red then."""
    began = time.monotonic()
    while time.monotonic() - began < FULL_SECONDS:
        commits = await arena.kafka.committed(arena.group, arena.topic)
        ends = await chain_ends(arena.s3, arena.bucket)  # asked later, so never behind what may be committed
        for partition, found in commits.items():
            end = ends.get(partition, 0)
            assert found.offset <= end, f"partition {partition}: {found.offset} is committed, stored is {end}"
        await asyncio.sleep(0.5)
    await consumer.ready_reason(RETRYING, seconds=30)


@scenario(
    "store-corner",
    "layout.json is deleted under a running replica: it goes on, a new one is refused until it is back. Then somebody's"
    " object lies where the next one belongs: that partition stalls, the others go on; moved away, it heals.",
    partitions=3,
    settings={"S3_PREFIX": PREFIX},
)
async def store_corner(arena: Arena) -> None:
    first = arena.consumer()
    await arena.assigned(first)
    async with arena.load(2000):
        await arena.objects_grow(6)
        async with _without_layout(arena):
            await arena.objects_grow(6)
            refused = arena.consumer()
            assert await refused.ended() == 2, refused.output()
            assert "layout.json" in refused.output()
        second = arena.consumer()
        await arena.assigned(second)
        await arena.spread(first, second)
        key = await _foreign_object(arena)
        await eventually(lambda: len(_stalls(arena)) == 1, "one partition stalled", 30)
        owner, stall = _stalls(arena)[0]
        assert stall["key"] == key, stall
        reasons = await owner.ready_reason("a foreign object lies where the next one belongs", seconds=10)
        assert key in reasons, reasons
        await arena.objects_grow(8)
        await _move_away(arena, key)
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        await eventually(owner.is_ready, "readiness green", 10)
    await arena.proven()
    assert len(_stalls(arena)) == 1, "it stalled again"


@contextlib.asynccontextmanager
async def _without_layout(arena: Arena) -> AsyncIterator[None]:
    """The layout file is gone for the time of the block."""
    found = await arena.s3.objects(arena.bucket, f"{PREFIX}_ticklake/")
    (layout,) = (stored for stored in found.values() if stored.key.endswith("layout.json"))
    await arena.s3.delete(arena.bucket, layout.key)
    yield
    await arena.s3.put(arena.bucket, layout.key, layout.body, layout.metadata)


async def _foreign_object(arena: Arena) -> str:
    """Put an object of somebody else at the key of a put that is under way; the key."""
    arena.proxy.inject(faults.HELD, method="PUT", key_part=f"{PREFIX}topic=", times=1)
    await eventually(lambda: bool(arena.proxy.held), "a put under way", 30)
    key = arena.proxy.held[0].key
    objects = await arena.s3.objects(arena.bucket, f"{PREFIX}topic=")
    other = arena.random.choice(list(objects.values()))
    kinds: Mapping[str, Mapping[str, str]] = {
        "without metadata": {},
        "copy of one of ours": other.metadata,
        "another chain's": {**other.metadata, "chain-id": "0" * 32},
    }
    kind = arena.random.choice(list(kinds))
    arena.note("foreign_object", kind)
    await arena.s3.put(arena.bucket, key, other.body, kinds[kind])
    arena.proxy.release()
    return key


async def _move_away(arena: Arena, key: str) -> None:
    stored = (await arena.s3.objects(arena.bucket, key))[key]
    await arena.s3.put(arena.bucket, f"moved-away/{key}", stored.body, stored.metadata)
    await arena.s3.delete(arena.bucket, key)


def _stalls(arena: Arena) -> list[tuple[ServiceProcess, dict[str, object]]]:
    """The log lines that say a partition stalls, the first of each stall."""
    lines = [(consumer, line) for consumer in arena.consumers for line in consumer.lines("Stalled")]
    return [(consumer, line) for consumer, line in lines if line["for_seconds"] == 0]


# ---- a small disk ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _small_store(arena: Arena) -> AsyncIterator[Path]:
    """versitygw on a tmpfs of DISK_BYTES as the arena's store; the folder that is full when the disk is.

    Not MiniStack, which answers 200 for what its full disk did not take (docs/decisions/0012).
    """
    folder = arena.folder / "small"
    data = folder / "data"
    data.mkdir(parents=True)
    binary = _versitygw()
    _mount(data)
    server, before = s3_server.VersityGateway(binary, folder), arena.s3
    try:
        server.spawn()
        await asyncio.to_thread(server.wait_ready)
        access = S3Access(
            endpoint_url=server.endpoint_url,
            access_key=s3_server.ACCESS_KEY,
            secret_key=s3_server.SECRET_KEY,
            region=s3_server.REGION,
        )
        arena.s3 = S3(server, access)
        await arena.s3.create_bucket(arena.bucket)
        arena.settings |= arena.s3.environ()
        yield data
    finally:
        for consumer in arena.running():
            consumer.kill()  # a failure: nobody may ask a store that has gone
        arena.s3 = before
        server.stop()
        done = _run("umount", str(data))
        assert not done.returncode, f"{data} is still mounted: {done.stderr}"


def _versitygw() -> Path:
    """The binary. To build it takes minutes, which no scenario has."""
    if shutil.which("versitygw") is None and not (installation.STATE / "bin" / "versitygw").exists():
        raise NotHereError("versitygw is not here; `python -m tests.chaos --s3 versitygw --subset ci` builds it (Go)")
    return s3_server.versitygw_binary()


def _mount(folder: Path) -> None:
    try:
        done = _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
    except OSError as error:
        raise NotHereError(f"no file system can be mounted here: {error}") from error
    if done.returncode:
        raise NotHereError(f"no tmpfs can be mounted here (root is needed): {done.stderr.strip()}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_SECONDS, check=False)


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    """A ballast takes what is left of the disk, to the last byte, for the time of the block."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    assert ballast.stat().st_size
    try:
        yield
    finally:
        ballast.unlink()
