"""S3 that loses answers, refuses, or is away."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.processes import failing_seconds
from tests.servers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.arena import Arena
    from tests.chaos.wire import Request
    from tests.processes import ServiceProcess

MIB = 1 << 20
MEMORY_LIMIT_BYTES = 64 * MIB
OUTAGE_ALLOWANCE_BYTES = 120 * MIB  # beside the limit, resident
RECOVERY_ALLOWANCE_BYTES = 200 * MIB  # when all that was held is put at once: what the start-up warning counts with
OUTAGE_SECONDS = 30.0
FILLED_SHARE = 0.6  # of the limit at least, or the outage would not try memory
POLL_BYTES = 8 * MIB  # what one poll may bring above it
# What overfills MEMORY_LIMIT_BYTES within the outage: 150 MB, which compress to three quarters. A partition holds no
# more than a small chunk (of a second) and one open batch, so few partitions could not fill it.
FLOOD_RECORDS_PER_SECOND, FLOOD_VALUE_BYTES = 2500, 2000
FLOOD_PARTITIONS = 12
LOSSY_SHARES = {
    faults.LOST_ANSWER: 0.10,
    faults.LATE: 0.04,
    faults.CONFLICT: 0.04,
    faults.INTERNAL: 0.03,
    faults.SLOW_DOWN: 0.03,
    faults.RESET: 0.03,
    faults.RESET_MID_BODY: 0.03,
    faults.INTERNAL.done(): 0.03,
}
EACH_FAULT = 2
FLOOD_SETTINGS = {"MEMORY_LIMIT_BYTES": str(MEMORY_LIMIT_BYTES), "BATCH_MAX_BYTES": str(16 * MIB)}


@scenario(
    "lossy-s3",
    "A tenth of all answers is lost after the effect, one request in six meets 500, 503, 409 or a reset, some take"
    " effect seconds later, until puts have met each of them; two replicas, one of them replaced meanwhile.",
    ci=True,
    settings={"BATCH_MAX_SECONDS": "0.5"},  # more puts to strike
)
async def lossy_s3(arena: Arena) -> None:
    proxy = arena.proxy
    first, second = arena.consumer(), arena.consumer()
    await arena.assigned(first, second)
    for fault, share in LOSSY_SHARES.items():
        proxy.inject(fault, share=share, method="PUT" if fault in (faults.LATE, faults.CONFLICT) else None)
    async with arena.load(3000):
        await arena.objects_grow(30)
        third = arena.consumer()
        await arena.assigned(third)
        await arena.stop(first)
        await eventually(lambda: not _seldom(arena), "each fault met by some puts", 50)
    await arena.proven(seconds=80)
    assert not _seldom(arena), f"met by fewer than {EACH_FAULT} puts: {_seldom(arena)}"
    told = sum(line.get("outcome") == "own" for each in arena.consumers for line in each.lines("Uploaded"))
    assert told, "no put of a lost answer was recognized as the process's own: the scenario proves little"


def _seldom(arena: Arena) -> list[str]:
    """The faults that hardly a put has met."""
    return [fault.name for fault in LOSSY_SHARES if arena.proxy.counts[f"{fault.name} PUT"] < EACH_FAULT]


@scenario(
    "s3-outage",
    "S3 is away for 30 s while more arrives than memory may hold: the process stays in the group, memory stays bounded,"
    " readiness says why and since when, and it catches up by itself.",
    ci=True,
    partitions=FLOOD_PARTITIONS,
    settings=FLOOD_SETTINGS,
)
async def s3_outage(arena: Arena) -> None:
    consumer = arena.consumer()
    await arena.assigned(consumer)
    async with arena.load(1000):
        await arena.objects_grow(4)
        async with arena.proxy.away(), arena.load(FLOOD_RECORDS_PER_SECOND, value_bytes=FLOOD_VALUE_BYTES):
            began = time.monotonic()
            await _red(consumer, r"S3 fails for \d+ s: .*(cannot be reached|connection broke)")
            most = await _most_buffered(consumer, until=began + OUTAGE_SECONDS)
            arena.note("most_buffered_bytes", most)
            assert FILLED_SHARE * MEMORY_LIMIT_BYTES <= most <= MEMORY_LIMIT_BYTES + POLL_BYTES, (
                f"{most} bytes buffered"
            )
            reasons = (await consumer.get("/readyz"))[1]
            _since(reasons, at_least=OUTAGE_SECONDS - 5)
            assert re.search(r"partition \d+ (retrying|stalled) for \d+ s", reasons), reasons
            assert (await consumer.get("/healthz"))[0] == 200
            _within(arena, "peak_memory_in_the_outage_bytes", OUTAGE_ALLOWANCE_BYTES)
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        await _green(consumer)
    await arena.proven()
    _stayed(consumer)
    _within(arena, "peak_memory_at_recovery_bytes", RECOVERY_ALLOWANCE_BYTES)


@scenario(
    "s3-denied",
    "S3 answers 403 to everything for 30 s: shown, retried, healed without a restart.",
)
async def s3_denied(arena: Arena) -> None:
    consumer = arena.consumer()
    await arena.assigned(consumer)
    async with arena.load(2000):
        await arena.objects_grow(4)
        with arena.proxy.injecting(faults.DENIED):
            began = time.monotonic()
            await _red(consumer, r"S3 fails for \d+ s: .*(403|denied|refus)")
            await asyncio.sleep(OUTAGE_SECONDS - (time.monotonic() - began))
            _since((await consumer.get("/readyz"))[1], at_least=OUTAGE_SECONDS - 5)
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        await _green(consumer)
    await arena.proven()
    _stayed(consumer)


@scenario(
    "credentials-expire",
    "S3 answers 400 ExpiredToken for 15 s, then takes the same credentials again: healed without a restart.",
)
async def credentials_expire(arena: Arena) -> None:
    consumer = arena.consumer()
    await arena.assigned(consumer)
    async with arena.load(2000):
        await arena.objects_grow(4)
        with arena.proxy.injecting(faults.EXPIRED):
            began = time.monotonic()
            await _red(consumer, r"S3 fails for \d+ s: .*renew the credentials")
            await asyncio.sleep(15 - (time.monotonic() - began))
        arena.note("recovery_seconds", await arena.caught_up(seconds=60))
        await _green(consumer)
    await arena.proven()
    _stayed(consumer)


@scenario(
    "credentials-renewed",
    "The credentials of a shared credentials file expire for good, others are written there: read anew, no restart.",
)
async def credentials_renewed(arena: Arena) -> None:
    file = arena.folder / "credentials"
    _write_credentials(file, "FIRSTKEY")
    consumer = arena.consumer(
        AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_SHARED_CREDENTIALS_FILE=str(file), AWS_PROFILE="default"
    )
    await arena.assigned(consumer)
    async with arena.load(2000):
        await arena.objects_grow(4)
        arena.proxy.inject(faults.EXPIRED, where=lambda request: _signed_by(request, "FIRSTKEY"))
        await _red(consumer, r"S3 fails for \d+ s: .*renew the credentials")
        _write_credentials(file, "SECONDKEY")
        arena.note("recovery_seconds", await arena.caught_up(seconds=70))
        await _green(consumer)
    await arena.proven()
    _stayed(consumer)


@scenario(
    "s3-killed",
    "The S3 server is killed with SIGKILL in the middle of puts and started again on its data, twice; two replicas.",
    own_s3=True,
)
async def s3_killed(arena: Arena) -> None:
    first, second = arena.consumer(), arena.consumer()
    await arena.assigned(first, second)
    async with arena.load(3000):
        for _ in range(2):
            await arena.objects_grow(6)
            await asyncio.sleep(arena.random.uniform(0.0, 1.0))  # anywhere between two puts of a partition
            arena.s3.server.kill()
            await _red(first, r"S3 fails for \d+ s")
            await arena.restart(arena.s3.server)
            arena.note_longest("recovery_seconds", await arena.caught_up(seconds=40))
    await arena.proven()


# ---- what must hold --------------------------------------------------------------------------------------------------


async def _red(consumer: ServiceProcess, pattern: str) -> None:
    """Readiness is red, S3 named as the reason, since when too."""
    text = await consumer.ready_reason("S3 fails for", seconds=30)
    assert re.search(pattern, text), f"readiness says {text!r}, {pattern!r} is expected"


def _within(arena: Arena, name: str, allowance: int) -> None:
    """Resident memory never was above the limit and the allowance."""
    peak, allowed = arena.peak_memory_bytes(), MEMORY_LIMIT_BYTES + allowance
    arena.note(name, peak)
    assert peak <= allowed, f"{name}: {peak / MIB:.0f} MiB, {allowed / MIB:.0f} are allowed"


async def _most_buffered(consumer: ServiceProcess, *, until: float) -> int:
    """The most that the consumer says it has buffered, asked every second."""
    most = 0.0
    while time.monotonic() < until:
        for line in (await consumer.get("/metrics"))[1].splitlines():
            if line.startswith("ticklake_consumer_buffered_bytes "):
                most = max(most, float(line.split()[1]))
        await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))
    return int(most)


def _since(reasons: str, *, at_least: float) -> None:
    assert failing_seconds(reasons, "S3") >= at_least, f"since when is wrong: {reasons}"


async def _green(consumer: ServiceProcess) -> None:
    """Ready again, by itself."""
    status, text = await consumer.get("/readyz")
    assert status == 200, f"all is stored, but readiness says {text}"


def _stayed(consumer: ServiceProcess) -> None:
    """The fault caused no rebalance."""
    assigned, revoked = len(consumer.lines("Partitions assigned")), len(consumer.lines("Partitions revoked"))
    assert (assigned, revoked) == (1, 1), f"assigned {assigned} times, revoked {revoked} times (once, at the stop)"


def _write_credentials(file: Path, key: str) -> None:
    whole = file.with_suffix(".new")
    whole.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n")
    whole.replace(file)  # at once: half a file would be another fault


def _signed_by(request: Request, key: str) -> bool:
    return f"Credential={key}/" in request.headers.get("authorization", "")
