"""Log lines: their shape, the libraries' noise, secrets that libraries would print."""

from __future__ import annotations

import inspect
import io
import json
import logging
import sys
from typing import TYPE_CHECKING

import aiokafka.client
import pytest
import structlog
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, StaleMetadata

from shared import logs
from shared.logs import NOISE_INTERVAL_SECONDS, NoiseLimit

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Logging as it was, after each test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in (*logs._QUIETED, *logs._SILENCED)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


class Stream(io.StringIO):
    """Takes the lines; may be a terminal, may refuse."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal
        self.broken = False

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def configured(fmt: str = "json", level: str = "INFO", *, terminal: bool = False) -> Stream:
    stream = Stream(terminal=terminal)
    logs.configure(level, fmt, "consumer", stream)
    return stream


def test_a_line_is_one_json_object_with_event_level_timestamp_and_the_fields() -> None:
    stream = configured()
    logs.get_logger("consumer.worker").warning("Retrying", key="a/b", attempt=3)
    (line,) = stream.lines()
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "Retrying",
        "level": "warning",
        "key": "a/b",
        "attempt": 3,
        "logger": "consumer.worker",
        "service": "consumer",
    }


def test_bound_fields_come_along() -> None:
    stream = configured()
    logs.get_logger("x").bind(partition=4).info("Uploaded", key="k")
    assert stream.lines()[0]["partition"] == 4


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"a":"\xc3\xa4"}', '{"a":"ä"}'),
        (b"\xff", "\\xff"),
        ({"n": 1}, {"n": 1}),
        ("line\nbreak", "line\nbreak"),
        (float("nan"), "nan"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (OSError("gone"), "gone"),
        ("\udcff", "\udcff"),
    ],
)
def test_any_value_makes_one_line_of_json(value: object, shown: object) -> None:
    stream = configured()
    logs.get_logger("x").info("Event", field=value)
    (line,) = stream.lines()
    assert line["field"] == shown


def test_a_level_below_the_set_one_is_not_written() -> None:
    stream = configured(level="WARNING")
    logs.get_logger("x").info("Event")
    logging.getLogger("library").info("event")
    assert stream.getvalue() == ""


def test_an_exception_is_a_field_without_local_variables() -> None:
    stream = configured()
    password = "hunter" + "2"
    try:
        raise ValueError(len(password))
    except ValueError:
        logs.get_logger("x").exception("Crashed")
    (line,) = stream.lines()
    assert "ValueError: 7" in str(line["exception"])
    assert "hunter2" not in str(line)


def test_the_console_prints_no_local_variables_either() -> None:
    stream = configured("console")
    password = "hunter" + "2"
    try:
        raise ValueError(len(password))
    except ValueError:
        logs.get_logger("x").exception("Crashed")
    assert "ValueError: 7" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    ("event", "fields", "shown"),
    [
        ("Message sent", {"record": b'{"symbol":"AAPL"}', "key": "AAPL"}, 'Message sent: {"symbol":"AAPL"} '),
        ("Message sent", {"records": 5, "seconds": 0.1}, "Message sent "),
        ("Received message", {"record": '{"a":1}'}, 'Received message: {"a":1} '),
        ("Uploaded", {"key": "a/b.json", "records": 1}, "Uploaded a/b.json to S3 "),
        ("Adopted", {"key": "a/b.json"}, "Adopted "),
    ],
)
def test_the_console_shows_the_lines_of_the_original_system(event: str, fields: dict[str, object], shown: str) -> None:
    stream = configured("console")
    logs.get_logger("x").info(event, **fields)
    (line,) = stream.getvalue().splitlines()
    assert f"] {shown}" in line


def test_a_sentence_does_not_say_its_field_twice_and_keeps_the_others() -> None:
    stream = configured("console")
    logs.get_logger("x").info("Uploaded", key="a/b.json", records=7)
    assert stream.getvalue().count("a/b.json") == 1
    assert "records=7" in stream.getvalue()


@pytest.mark.parametrize(("terminal", "is_json"), [(True, False), (False, True)])
def test_auto_is_console_on_a_terminal_and_json_elsewhere(*, terminal: bool, is_json: bool) -> None:
    stream = configured("auto", terminal=terminal)
    logs.get_logger("x").info("Event")
    assert stream.getvalue().startswith("{") == is_json


def test_library_lines_have_the_same_shape() -> None:
    stream = configured()
    logging.getLogger("aiokafka.conn").error("Failed fetch messages from %s: %s", 1, "refused")
    (line,) = stream.lines()
    assert (line["event"], line["level"]) == ("Failed fetch messages from 1: refused", "error")
    assert line["logger"] == "aiokafka.conn"
    assert "timestamp" in line


@pytest.mark.parametrize(("level", "told"), [("DEBUG", True), ("INFO", False), ("ERROR", False)])
@pytest.mark.parametrize("name", ["aiokafka.consumer", "botocore.credentials"])
def test_the_chatter_of_libraries_is_told_at_debug_only(name: str, level: str, *, told: bool) -> None:
    stream = configured(level=level)
    logging.getLogger(name).info("chatter")
    assert ("chatter" in stream.getvalue()) is told


@pytest.mark.parametrize("name", ["httpx", "httpcore.connection"])
def test_no_url_is_logged_by_httpx(name: str) -> None:
    stream = configured(level="DEBUG")
    logging.getLogger(name).info("HTTP Request: GET https://host/?apikey=hunter2")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_first() -> None:
    first, second = configured(), configured()
    logging.getLogger("x").error("event")
    assert (first.getvalue(), len(second.lines())) == ("", 1)


def test_repeated_noise_is_limited_and_counted() -> None:
    now = 0.0
    limit = NoiseLimit("aiokafka", lambda: now)

    def passes(template: str, name: str = "aiokafka.client") -> logging.LogRecord | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, template, (), None)
        return record if limit.filter(record) else None

    assert passes("no route")
    assert not passes("no route")
    assert not passes("no route")
    assert passes("another")
    assert passes("no route", "aiokafka.conn")
    assert passes("no route", "consumer.worker")
    assert passes("no route", "consumer.worker")
    assert passes("no route", "aiokafkaesque")
    assert passes("no route", "aiokafkaesque")
    now = NOISE_INTERVAL_SECONDS
    record = passes("no route")
    assert record is not None
    assert record.__dict__["suppressed"] == 2
    now *= 2
    record = passes("no route")
    assert record is not None
    assert "suppressed" not in record.__dict__


def test_the_memory_for_noise_is_bounded() -> None:
    limit = NoiseLimit("aiokafka", lambda: 0.0)
    for number in range(10_000):
        assert limit.filter(logging.LogRecord("aiokafka", logging.ERROR, "", 0, f"{number}", (), None))
    assert len(limit._seen) <= 256


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ('Unable connect to "%s:%s": %s', ("h", 1, "refused")),
        ('Unable to request metadata from "%s:%s": %s', ("h", 1, "refused")),
        ("Unable to update metadata from %s", ([1],)),
        ("Unable connect to node with id %s: %s", (1, KafkaConnectionError("refused"))),
    ],
)
def test_that_there_is_no_connection_is_left_to_those_who_know_why(template: str, words: tuple[object, ...]) -> None:
    stream = configured(level="DEBUG")
    logging.getLogger("aiokafka.client").error(template, *words)
    assert stream.getvalue() == ""
    assert template in inspect.getsource(aiokafka.client), "aiokafka words it in another way now"


def test_requests_without_a_connection_are_not_told_each() -> None:
    stream = configured(level="DEBUG")
    logging.getLogger("aiokafka.producer.sender").warning("Got error: %s", NodeNotReadyError("not ready"))
    assert stream.getvalue() == ""


def test_what_aiokafka_says_of_something_else_is_told() -> None:
    stream = configured()
    logging.getLogger("aiokafka.client").error("Unable connect to node with id %s: %s", 1, StaleMetadata("unknown"))
    logging.getLogger("aiokafka.client").error("%(a)s", {"a": 1})
    assert [line["event"] for line in stream.lines()] == [
        "Unable connect to node with id 1: StaleMetadata: unknown",
        "1",
    ]


def test_the_suppressed_count_is_a_field() -> None:
    stream = configured()
    record = logging.LogRecord("aiokafka.client", logging.ERROR, "", 0, "no route", (), None)
    record.suppressed = 12
    logging.getLogger("aiokafka.client").handle(record)
    assert stream.lines()[0]["suppressed"] == 12


def test_aiokafka_floods_are_limited_once_configured() -> None:
    stream = configured()
    for node in range(50):
        logging.getLogger("aiokafka.client").error("Unable connect to node with id %s", node)
    assert len(stream.lines()) == 1


def test_lines_that_cannot_be_written_are_counted_and_told_when_it_works_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = configured()
    stream.broken = True
    for _ in range(3):
        logs.get_logger("x").info("Lost")
    stream.broken = False
    logs.get_logger("x").info("Back")
    assert [line["event"] for line in stream.lines()] == ["Log lines lost: 3", "Back"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_encoding_cannot_refuse_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    logs.configure("INFO", "console", "producer")
    logs.get_logger("x").info("Message sent", record="ä€")
    assert b"Message sent: \\xe4\\u20ac" in raw.getvalue()
