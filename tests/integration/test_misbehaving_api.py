"""A producer process and an API that does everything wrong, on real Kafka.

Most faults share one process, an endpoint each: it must live through all of them, tell each, and lose no record that
comes between them. What is made to cost memory has processes of its own (`test_heavy_bodies`).
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chaos.jumping_clock import set_shift
from tests.heavy_bodies import HEAVY, HeavyBody
from tests.misbehaviour import FAULTS, ODD_RECORDS, ODDITIES, SIBLING, TIMEOUT_SECONDS, good
from tests.processes import ServiceProcess
from tests.scripted_api import Answer, ScriptedApi, http, late, scripted_api
from tests.servers import Kafka, eventually

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MB = 1_000_000
PEAK_BYTES = 200 * MB
FULL_PEAK_BYTES = 256 << 20
SLACK_SECONDS = 0.75  # of a machine that is busy with other tests
CANARY = "CANARY-Key-7c1e"
LONGEST_LINE = 2_500


def environ(
    kafka: Kafka, topic: str, api: ScriptedApi, folder: Path, names: Iterable[str], members: str = ""
) -> dict[str, str]:
    tables = [
        f'[[endpoint]]\nname = "{name}"\nurl = "{api.url}/{name}"\nkey_variable = "KEY"\n{members}\n' for name in names
    ]
    file = folder / "endpoints.toml"
    file.write_text("\n".join(tables))
    return {
        "API_ENDPOINTS": str(file),
        "KEY": CANARY,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "SELECT": "all",
        "POLL_INTERVAL_SECONDS": str(TIMEOUT_SECONDS),
        "API_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
        "API_MAX_BODY_BYTES": str((1 << 20) + 1),
        "API_MAX_RECORDS": "1000",
    }


async def reasons(producer: ServiceProcess) -> dict[str, str]:
    """What readiness says, by endpoint."""
    text = (await producer.get("/readyz"))[1]
    return dict(re.findall(r"endpoint ([a-z0-9_-]+), \S+ since \S+: ([^\n]*)", text))


async def all_told(producer: ServiceProcess, words: Mapping[str, str]) -> None:
    """Wait until readiness has given each endpoint's reason."""
    untold = dict(words)
    found: dict[str, str] = {}

    async def told() -> bool:
        found.update(await reasons(producer))
        for name in [name for name, part in untold.items() if part in found.get(name, "")]:
            del untold[name]
        return not untold

    try:
        await eventually(told, "every reason", 40, every_seconds=0.2)
    except AssertionError:
        lines = [f"{name}: {part!r} is not in {found.get(name)!r}" for name, part in untold.items()]
        pytest.fail("\n".join(lines))
    assert all(len(reason) < LONGEST_LINE for reason in found.values())


async def polled(api: ScriptedApi, names: Iterable[str], times: int) -> None:
    """Wait until each path has been asked so many times more."""
    wanted = {f"/quotes/{name}": times for name in names}
    start = len(api.exchanges)

    def all_asked() -> bool:
        over = [exchange.path for exchange in api.exchanges[start:]]
        return all(over.count(path) >= count for path, count in wanted.items())

    await eventually(all_asked, "a few requests to each", 60)


def no_complaint(producer: ServiceProcess, requests: int, peak_bytes: int = PEAK_BYTES) -> None:
    """The output is bounded, holds no traceback and no key; the process lives and has not used too much memory."""
    assert producer.process.poll() is None
    output = producer.output()
    lines = [line for line in output.splitlines() if '"event": "Starting"' not in line]
    assert "Traceback" not in output
    assert CANARY not in output
    assert len(lines) < 3 * requests + 50
    assert max(map(len, lines)) < LONGEST_LINE
    assert producer.peak_memory_bytes() < peak_bytes


async def test_every_fault_is_told_and_costs_neither_the_process_nor_a_record(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api() as api, scripted_api(http(b"[]")) as elsewhere:
        redirects = redirections(elsewhere)
        told = {name: fault.words for name, fault in FAULTS.items()} | dict.fromkeys(
            redirects, "redirected to the host"
        )
        wrong = {name: fault.answer for name, fault in FAULTS.items()} | redirects
        asked_for = {f"/quotes/{name}": good(f"{name}.1") for name in wrong}
        api.by_path.update(asked_for)
        with ServiceProcess(["producer"], environ(kafka, topic, api, tmp_path, wrong), tmp_path) as producer:
            await eventually(producer.is_ready, "readiness while all is well", 30)
            for turn in ("2", "3"):
                api.by_path.update({f"/quotes/{name}": answer for name, answer in wrong.items()})
                await all_told(producer, told)
                assert (await producer.get("/healthz"))[0] == 200
                api.by_path.update({f"/quotes/{name}": good(f"{name}.{turn}") for name in wrong})
                await eventually(producer.is_ready, f"readiness after every fault, time {turn}", 30)
            no_complaint(producer, len(api.requests))
            assert await producer.stop() == 0
        assert elsewhere.requests == []
        slowest = max(api.exchanges, key=lambda exchange: exchange.seconds)
    assert slowest.seconds < TIMEOUT_SECONDS + SLACK_SECONDS, slowest
    keys = {record.key for records in (await kafka.read(topic)).values() for record in records}
    assert keys == {f"{name}.{turn}".encode() for name in wrong for turn in (1, 2, 3)}


def redirections(elsewhere: ScriptedApi) -> dict[str, Answer]:
    host = elsewhere.url.removeprefix("http:")
    found: dict[str, Answer] = {
        f"redirect-{status}": http(status=f"{status} Moved", headers=[f"Location: http:{host}"])
        for status in (301, 302, 303, 307, 308)
    }
    found["redirect-without-scheme"] = http(status="302 Found", headers=[f"Location: {host}"])
    found["redirect-by-refresh"] = http(
        status="302 Found", headers=[f"Location: http:{host}", f"Refresh: 0;url={host}"]
    )
    return found


async def test_what_only_looks_wrong_costs_no_record(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    answers = {**ODDITIES, "odd-records": http(b"[" + b",".join(ODD_RECORDS) + b"]")}
    async with scripted_api() as api:
        api.by_path.update({f"/quotes/{name}": answer for name, answer in answers.items()})
        with ServiceProcess(["producer"], environ(kafka, topic, api, tmp_path, answers), tmp_path) as producer:
            await polled(api, answers, 4)
            assert await reasons(producer) == {}
            assert await producer.is_ready()
            no_complaint(producer, len(api.requests))
            assert await producer.stop() == 0
        asked = len(api.requests)
    values = [record.value for records in (await kafka.read(topic)).values() for record in records]
    assert set(values) == {SIBLING, *ODD_RECORDS}
    assert values.count(SIBLING) >= 3 * (len(ODDITIES) - 1)
    assert len(values) <= asked * len(ODD_RECORDS)


NINES = "9" * 400
RETRY_AFTER = {
    "zero": (["0"], 0),
    "one": (["1"], 1),
    "leading-zeros": (["0" * 5000 + "1"], 1),
    "negative": (["-5"], 60),
    "fraction": (["1.5"], 60),
    "exponent": (["1e3"], 60),
    "not-a-number": (["nan"], 60),
    "infinite": (["inf"], 60),
    "huge": ([NINES], 900),
    "digits-of-latin-1": (["\xb2"], 60),
    "empty": ([""], 60),
    "garbage": (["soon, or later; maybe"], 60),
    "none": ([], 60),
    "two": (["5", "700"], 700),
    "two-of-two-kinds": (["5", "soon"], 60),
    "past": (["Wed, 21 Oct 2015 07:28:00 GMT"], 0),
    "far-future": (["Fri, 31 Dec 9999 23:59:59 GMT"], 900),
    "year-of-400-digits": ([f"Wed, 21 Oct {NINES} 07:28:00 GMT"], 60),
    "no-such-day": (["Wed, 31 Feb 2096 07:28:00 GMT"], 60),
}


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_told_to_wait_it_asks_nothing_meanwhile_however_absurd_the_wait_is_written(
    kafka: Kafka, topic: str, tmp_path: Path, status: str
) -> None:
    """Of a 503 only a wait that can be read counts; the others are retried, as any 503."""
    forms = {name: form for name, form in RETRY_AFTER.items() if status.startswith("429") or form[1] != 60}
    async with scripted_api() as api:
        for name, (values, _) in forms.items():
            headers = [f"Retry-After: {value}" for value in values]
            answer = http(b"slow down", status=status, headers=headers).decode().encode("latin-1")
            api.by_path[f"/quotes/{name}"] = answer
        settings = environ(kafka, topic, api, tmp_path, forms, "interval_seconds = 0.5")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await all_told(producer, {name: f"told to wait {seconds} s" for name, (_, seconds) in forms.items()})
            brief = [name for name, (_, seconds) in forms.items() if seconds <= 1]
            await polled(api, brief, 3)
            asked = [request.path.rpartition("/")[2] for request in api.requests]
            assert {name: asked.count(name) for name in forms if name not in brief} == dict.fromkeys(
                forms.keys() - set(brief), 1
            )
            assert (await producer.get("/healthz"))[0] == 200
            api.by_path.update({f"/quotes/{name}": good(name) for name in forms})

            async def only_the_long_waits_are_left() -> bool:
                return (await reasons(producer)).keys() == forms.keys() - set(brief)

            await eventually(only_the_long_waits_are_left, "polls once the wait is over", 30)
            skipped = (await producer.get("/metrics"))[1]
            assert re.search(r'ticks_skipped_total\{endpoint="far-future",reason="throttled"\} [1-9]', skipped)
            no_complaint(producer, len(api.requests))
            assert await producer.stop() == 0
    keys = {record.key for records in (await kafka.read(topic)).values() for record in records}
    assert keys == {name.encode() for name in brief}


async def test_answers_of_three_periods_are_used_one_at_a_time_and_what_they_cost_is_counted(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(late(good("slow"), seconds=1.5)) as api:
        settings = environ(kafka, topic, api, tmp_path, ["slow"], "interval_seconds = 0.5\ntimeout_seconds = 10")
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await eventually(producer.is_ready, "readiness", 30)
            await polled(api, ["slow"], 3)
            assert await producer.is_ready()
            metrics = (await producer.get("/metrics"))[1]
            no_complaint(producer, len(api.requests))
            assert await producer.stop() == 0
    assert api.most_open["/quotes/slow"] == 1
    ticks = (
        float(found[1]) if (found := re.search(r'ticks_total\{endpoint="slow",outcome="ok"\} (\S+)', metrics)) else 0
    )
    missed = (
        float(found[1])
        if (found := re.search(r'skipped_total\{endpoint="slow",reason="overrun"\} (\S+)', metrics))
        else 0
    )
    assert ticks >= 3
    assert missed >= 3 * ticks  # of each answer's four grid points one is the next request's


async def test_steps_of_the_wall_clock_move_no_tick_and_cost_no_record(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    period = 0.5
    served: list[float] = []

    async def numbered(writer: asyncio.StreamWriter) -> None:
        served.append(time.monotonic())
        writer.write(http(b'[{"symbol":"N%d"}]' % len(served)))
        await writer.drain()

    clock = tmp_path / "clock"
    set_shift(clock, 0)
    async with scripted_api(numbered) as api:
        settings = environ(kafka, topic, api, tmp_path, ["clock"], f"interval_seconds = {period}")
        command = ["tests.chaos.jumping_clock", "producer"]
        with ServiceProcess(command, {**settings, "CHAOS_CLOCK": str(clock)}, tmp_path) as producer:
            await eventually(producer.is_ready, "readiness", 30)
            for hours in (0.5, -5, 0, -0.5, 0.9):
                set_shift(clock, 3600 * hours)
                before = len(served)
                await eventually(partial(asked_thrice, api, before), f"polls at {hours} hours", 10)
                assert (await producer.get("/healthz"))[0] == 200
                assert await producer.is_ready(), (hours, await producer.get("/readyz"))
            # A clock that is hours ahead, Kafka refuses (message.timestamp.after.max.ms): told, and made good again.
            set_shift(clock, 3600 * 5)
            said = await producer.ready_reason(topic, 30)
            assert "timestamp" in said.lower() or "clock" in said.lower(), said
            set_shift(clock, 0)
            await eventually(producer.is_ready, "readiness once the clock is right", 60)
            no_complaint(producer, len(api.requests) + 100)
            assert await producer.stop() == 0
    gaps = [later - earlier for earlier, later in itertools.pairwise(served)]
    assert min(gaps) > period / 2, "no burst"
    assert sorted(gaps)[int(len(gaps) * 0.9)] < period * 1.5, "no pause"
    keys = [record.key for records in (await kafka.read(topic)).values() for record in records]
    numbers = sorted(int((key or b"")[1:]) for key in keys)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= len(served) - 1, "the last one's answer may have been cut off by the stop"


def asked_thrice(api: ScriptedApi, since: int) -> bool:
    return len(api.requests) >= since + 3


HEAVY_TOGETHER = [name for name, body in HEAVY.items() if not body.settings and not body.full]


async def test_no_body_made_to_cost_memory_does(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """One after the other in one process, a good answer after each: the first that costs more than it may is named."""
    await heavy_bodies_pass(kafka, topic, tmp_path, HEAVY_TOGETHER, PEAK_BYTES)


@pytest.mark.parametrize("name", [name for name in HEAVY if name not in HEAVY_TOGETHER])
async def test_no_body_within_the_caps_costs_more_than_256_mib(
    kafka: Kafka, topic: str, tmp_path: Path, name: str
) -> None:
    await heavy_bodies_pass(kafka, topic, tmp_path, [name], FULL_PEAK_BYTES if HEAVY[name].full else PEAK_BYTES)


async def heavy_bodies_pass(kafka: Kafka, topic: str, folder: Path, names: Iterable[str], peak_bytes: int) -> None:
    async with scripted_api(http(b"[]")) as api:
        settings = {
            "API_URL": api.url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic,
            "SELECT": "all",
            "POLL_INTERVAL_SECONDS": "0.5",
            **HEAVY[next(iter(names))].settings,
        }
        asked = 0
        wanted = 0
        with ServiceProcess(["producer"], settings, folder) as producer:
            await eventually(producer.is_ready, "readiness", 30)
            for name in names:
                body = HEAVY[name]
                before = len(api.requests)
                served: list[None] = []

                async def once(
                    writer: asyncio.StreamWriter, body: HeavyBody = body, name: str = name, served: list[None] = served
                ) -> None:
                    if served:
                        writer.write(good(name))
                        await writer.drain()
                        return
                    served.append(None)
                    await body.give(writer)

                api.answers[:] = [once]
                await eventually(partial(asked_thrice, api, before), f"polls after {name}", 60)
                await eventually(producer.is_ready, f"readiness after {name}", 30)
                assert (await producer.get("/healthz"))[0] == 200
                if body.words is not None:
                    assert body.words in str(producer.lines("Poll failed")[-1]["reason"]), name
                peak = producer.peak_memory_bytes()
                assert peak < peak_bytes, f"{peak / MB:.0f} MB at {name}"
                wanted += body.published
                asked = len(api.requests)
            no_complaint(producer, asked + 100, peak_bytes)
            assert await producer.stop() == 0
    by_key = Counter(record.key for records in (await kafka.read(topic)).values() for record in records)
    assert by_key.keys() >= {name.encode() for name in names if not HEAVY[name].settings}
    assert sum(by_key.values()) - sum(by_key[name.encode()] for name in names) == wanted
