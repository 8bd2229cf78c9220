"""The pace of attempts to connect, and the memory of why they failed."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError

from shared import kafka_connection
from shared.kafka import connection_options, connection_trouble, unreachable
from shared.kafka_connection import FRESH_SECONDS, PACE_SECONDS, Attempts, Login, paced, watch
from shared.logs import REMIND_SECONDS, Reminders
from shared.settings import KafkaSettings, load

LOGIN = Login(protocol="SASL_PLAINTEXT", ssl_context=None, mechanism="PLAIN", user="me", password="hunter2")
OTHER = Login(protocol="SASL_PLAINTEXT", ssl_context=None, mechanism="PLAIN", user="me", password="better")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def connection(*, running: bool = True) -> Any:
    return SimpleNamespace(
        host="h",
        port=1,
        _security_protocol="PLAINTEXT",
        _ssl_context=None,
        _sasl_mechanism="PLAIN",
        _sasl_plain_username=None,
        _sasl_plain_password=None,
        _on_close_cb=print if running else None,
    )


def test_a_failed_attempt_bars_the_next_one_for_a_second_and_gives_its_reason() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    assert attempts.barred("h:1", LOGIN) is None
    attempts.failed("h:1", LOGIN, "it is away")
    clock.now += PACE_SECONDS - 0.01
    assert attempts.barred("h:1", LOGIN) == "it is away"
    assert attempts.barred("h:2", LOGIN) is None
    assert attempts.barred("h:1", OTHER) is None, "another password may be right"
    clock.now += 0.01
    assert attempts.barred("h:1", LOGIN) is None


def test_what_failed_lately_is_remembered_until_it_works_or_is_old() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    attempts.failed("h:1", LOGIN, "it is away")
    clock.now += 1
    attempts.failed("h:2", LOGIN, "it has expired")
    attempts.failed("h:2", OTHER, "it is another's business")
    assert attempts.reasons(LOGIN) == {"h:1": "it is away", "h:2": "it has expired"}
    clock.now += FRESH_SECONDS - 1
    assert attempts.reasons(LOGIN) == {"h:2": "it has expired"}
    attempts.made("h:2", LOGIN)
    assert attempts.reasons(LOGIN) == {}
    assert attempts.reasons(OTHER) == {"h:2": "it is another's business"}


def test_brokers_that_come_and_go_by_name_do_not_fill_the_memory() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for number in range(1000):
        clock.now += 1
        attempts.failed(f"h:{number}", LOGIN, "it is away")
    assert len(attempts._failed) <= FRESH_SECONDS + 1


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(LOGIN)


def test_a_fact_is_due_once_a_minute_while_it_lasts() -> None:
    clock = Clock()
    reminders = Reminders(clock)
    assert reminders.due("h:1", "it is away")
    assert not reminders.due("h:1", "it is away")
    assert reminders.due("h:1", "it has expired")
    clock.now += REMIND_SECONDS - 0.01
    assert not reminders.due("h:1", "it is away")
    clock.now += 0.01
    assert reminders.due("h:1", "it is away")
    assert not reminders.due("h:1", "it is away")


async def test_attempts_within_the_second_are_not_made_and_a_good_one_forgets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    attempts = Attempts(clock)
    errors: list[Exception | None] = [ConnectionRefusedError(111, "x"), ValueError("bad signature"), None]
    made = 0

    async def connect(_connection: Any) -> str:
        nonlocal made
        made += 1
        error = errors[made - 1]
        if error is not None:
            raise error
        return "connected"

    trying = paced(connect, attempts)
    for expected in (1, 1, 2, 2):
        with pytest.raises(KafkaConnectionError, match=r"^KafkaConnectionError: h:1: "):
            await trying(connection())
        assert made == expected
        clock.now += PACE_SECONDS / 2
    assert await trying(connection()) == "connected"
    assert attempts.reasons(Login.of_connection(connection())) == {}
    said = capsys.readouterr().out
    assert said.count("No connection to Kafka") == 2, "once for each reason"


async def test_what_fails_while_a_client_starts_is_left_to_its_owner_to_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def connect(_connection: Any) -> None:
        raise ConnectionRefusedError(111, "x")

    attempts = Attempts()
    with pytest.raises(KafkaConnectionError):
        await paced(connect, attempts)(connection(running=False))
    assert "No connection to Kafka" not in capsys.readouterr().out
    assert list(attempts.reasons(Login.of_connection(connection()))) == ["h:1"]


async def test_an_attempt_cut_off_by_a_deadline_is_told_and_one_that_is_stopped_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(_connection: Any) -> None:
        await asyncio.Event().wait()

    attempts = Attempts()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await paced(connect, attempts)(connection())
    assert attempts.reasons(Login.of_connection(connection())) == {}
    monkeypatch.setattr(kafka_connection, "PACE_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await paced(connect, attempts)(connection())
    (reason,) = attempts.reasons(Login.of_connection(connection())).values()
    assert "it has not answered" in reason


def test_to_watch_twice_changes_nothing() -> None:
    watch()
    first = AIOKafkaConnection.connect, AIOKafkaConnection.close
    watch()
    assert (AIOKafkaConnection.connect, AIOKafkaConnection.close) == first
    assert not hasattr(first[0].__wrapped__, "__wrapped__")


def test_options_that_are_not_given_are_as_aiokafka_takes_them() -> None:
    client = {"bootstrap_servers": "h:1"}
    assert Login.of_options(client) == Login.of_connection(connection())
    assert unreachable({"bootstrap_servers": ["h:1"]}, TimeoutError()).startswith("h:1 cannot be used: no answer")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"KAFKA_SECURITY_PROTOCOL": "SSL"},
        {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": "me",
            "KAFKA_SASL_PASSWORD": "hunter2",
        },
    ],
)
async def test_a_client_with_these_options_fails_with_a_login_known_by_these_options(environ: dict[str, str]) -> None:
    """What is remembered by connection is found by settings. Real clients, at a port where nobody listens."""
    options = connection_options(load(KafkaSettings, {**environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}))
    assert connection_trouble(options) is None or not environ
    client = AIOKafkaConsumer(**options)
    try:
        with pytest.raises(KafkaConnectionError) as caught:
            await client.start()
    finally:
        await client.stop()
    reason = "nothing listens there (connection refused): is it up? Check KAFKA_BOOTSTRAP_SERVERS"
    assert unreachable(options, caught.value) == f"127.0.0.1:1 cannot be used: {reason}"
    began = time.monotonic()
    assert "127.0.0.1:1 cannot be used: no answer in time; 127.0.0.1:1: nothing" in unreachable(options, TimeoutError())
    assert time.monotonic() - began < 1
