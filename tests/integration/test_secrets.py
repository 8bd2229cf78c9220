"""No secret reaches anybody: not by the log, a page, a metric, an error, an event, nor a request to another host.

The canaries of one producer process differ in their ends only, so one search finds whichever leaks; at LOG_LEVEL=DEBUG,
while an API throws the key back in every way it can.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest

from tests.processes import ServiceProcess
from tests.scripted_api import Answer, ScriptedApi, gzipped, hang, http, reset, scripted_api
from tests.servers import Kafka, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY = "CANARY+Key/5e1f=Ab\"'<&>"  # whatever may be escaped; in a header only these may stand
USER, WORD = "CANARY-user-77", "CANARY-word-88"
QUERY = "CANARY-query-99"
PASSWORD = "CANARY-sasl-66"
PATHS = ("/", "/readyz", "/healthz", "/metrics")


def spellings(secret: str) -> list[str]:
    """What a secret looks like in a URL, JSON, HTML, base64."""
    return [
        secret,
        quote(secret, safe=""),
        quote(secret, safe="").lower(),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        base64.b64encode(secret.encode()).decode(),
    ]


def leaks(text: str) -> list[str]:
    """Each secret that the text holds, in any spelling, or the beginning of."""
    basic = base64.b64encode(f"{USER}:{WORD}".encode()).decode()
    wanted = {spelling for secret in (KEY, USER, WORD, QUERY, PASSWORD) for spelling in spellings(secret)}
    found = [text.find(spelling) for spelling in {*wanted, "CANARY", basic}]
    return [text[max(0, at - 200) : at + 80] for at in sorted(found) if at >= 0]


def echoes(key: str, elsewhere: str) -> Iterable[Answer]:
    """Answers that throw the key back: in every spelling, place and status, and where an excerpt is cut."""
    for spelling in dict.fromkeys(spellings(key)):
        text = spelling.encode()
        yield http(b"unknown key " + text, status="401 Unauthorized")
        inner = spelling if "\\" in spelling else json.dumps(spelling)[1:-1]
        yield http(b'{"error":"unknown key ' + inner.encode() + b'"}')
        yield http(status="302 Found", headers=[f"Location: {elsewhere}?apiKey={spelling}"])
        yield gzipped(b"<p>" + text + b"</p>", status="403 Forbidden")
    text = key.encode()
    for before in range(185, 201, 3):  # an excerpt has 200 characters
        yield http(b"x" * before + text + b"y" * 50)
    for before in range(60, 80, 5):  # of a record set aside 80 bytes are kept
        yield http(b'["' + b"x" * before + text.replace(b'"', b'\\"') + b'"]')
    yield http(text, status="429 Too Many Requests", headers=["Retry-After: 0", f"Set-Cookie: k={key}"])
    yield http(b"", status="307 Moved", headers=[f"Location: http://{quote(key, safe='')}@other.example/{key}"])
    yield http(b"", status="307 Moved", headers=[f"Location: http://{quote(key, safe='')}.example/"])
    yield b"HTTP/1.1 2OO " + text + b"\r\n\r\n"
    yield b"HTTP/1.1 200 OK\r\n" + text + b"\r\n\r\n"
    yield b"HTTP/1.1 200 OK\r\nContent-Length: " + text + b"\r\n\r\n"
    yield http(b"[]", headers=[f"Content-Encoding: {key}"])
    yield http(text[:20])
    yield reset
    yield hang


def environ(kafka: Kafka, topic: str, api: ScriptedApi, **settings: str) -> dict[str, str]:
    return {
        "API_URL": api.url.replace("http://", f"http://{USER}:{WORD}@") + f"?token={QUERY}",
        "API_KEY": KEY,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "POLL_INTERVAL_SECONDS": "0.1",
        "API_TIMEOUT_SECONDS": "0.4",
        "LOG_LEVEL": "DEBUG",
        **settings,
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("auth", ["query:apiKey", "header:X-Api-Key", "bearer"])
async def test_no_secret_shows_whatever_the_api_does_with_it(
    kafka: Kafka, topic: str, tmp_path: Path, auth: str, log_format: str
) -> None:
    good = http(b'[{"symbol":"A"}]')
    async with scripted_api(good) as api, scripted_api(http(b"[]")) as elsewhere:
        answers = list(echoes(KEY, elsewhere.url))
        api.answers[:] = [*answers, good]
        settings = environ(kafka, topic, api, API_AUTH=auth, LOG_FORMAT=log_format)
        if auth == "bearer":  # user info is the other Authorization
            settings["API_URL"] = f"{api.url}?token={QUERY}"
        seen: list[str] = []
        with ServiceProcess(["producer"], settings | {"SELECT": "all"}, tmp_path) as producer:
            port = int(api.url.rpartition(":")[2].partition("/")[0])

            async def done() -> bool:
                if "Listening" in producer.output():
                    seen.extend([(await producer.get(path))[1] for path in PATHS] if log_format == "json" else [])
                return len(api.requests) > len(answers) + 2

            await eventually(done, "every answer to have been given", 100, every_seconds=0.02)
            assert await producer.stop() == 0
            output = producer.output()
        assert elsewhere.requests == []
        everything = "\n".join([output, *seen])
    assert leaks(everything) == []
    assert "Poll failed" in output
    assert "HTTP 401" in output
    assert str(port) in output
    assert "Traceback" not in output
    records = [record for found in (await kafka.read(topic)).values() for record in found]
    assert records
    for record in records:
        assert leaks(repr([(name, value) for name, value in record.headers])) == []
        assert dict(record.headers)["ce_source"] == api.url.encode()


@pytest.mark.parametrize("command", ["check", "once"])
@pytest.mark.parametrize("auth", ["query:apiKey", "header:X-Api-Key"])
async def test_no_secret_shows_in_what_a_command_says(
    kafka: Kafka, topic: str, tmp_path: Path, command: str, auth: str
) -> None:
    for answer in (
        http(f"unknown key {KEY}".encode(), status="401 Unauthorized"),
        http(f"<p>{WORD} {QUERY} {USER}".encode()),
        http(f'["{USER}", {{"symbol":"A"}}]'.encode()),
        b"HTTP/1.1 2OO " + KEY.encode() + b"\r\n\r\n",
        http(status="302 Found", headers=[f"Location: http://other.example/?k={quote(KEY, safe='')}"]),
    ):
        async with scripted_api(answer) as api:
            settings = environ(kafka, topic, api, API_AUTH=auth, API_TIMEOUT_SECONDS="1")
            with ServiceProcess(["producer", command], settings, tmp_path) as producer:
                assert await producer.ended(40) in {0, 1}
                output = producer.output()
        assert leaks(output) == []
        assert "api" in output
        assert "Traceback" not in output


async def test_the_sasl_password_shows_nowhere_when_it_cannot_be_used(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """The broker speaks no SASL on this port: every attempt fails, over and over."""
    sasl = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "ticklake",
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "SHUTDOWN_TIMEOUT_SECONDS": "2",
    }
    async with scripted_api(http(f'[{{"symbol":"{PASSWORD}","note":"{PASSWORD}"}}, "{PASSWORD}"]'.encode())) as api:
        settings = environ(kafka, topic, api, API_AUTH="query:k", **sasl)
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            text = await producer.ready_reason(kafka.bootstrap_servers, 30)
            await eventually(lambda: len(api.requests) >= 3, "polls")
            pages = [(await producer.get(path))[1] for path in PATHS]
            assert await producer.stop() == 1
            output = producer.output()
        with ServiceProcess(["producer", "check"], settings, tmp_path) as producer:
            assert await producer.ended(40) == 1
            output += producer.output()
    assert leaks("\n".join([output, text, *pages])) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"API_URL": f"http://{USER}:{WORD}@h:99999999/?token={QUERY}"},
        {"API_URL": f"{USER}:{WORD}@h/?token={QUERY}"},
        {"API_URL": f"http://{USER}:{WORD}@[::1/?{QUERY}"},
        {"API_URL": f"http://{USER} {WORD}@h/"},
        {"API_URL": KEY},
        {"API_URL": "http://h/", "API_KEY": f"{KEY}\n"},
        {"API_URL": "http://h/", "API_KEY": f" {KEY}"},
        {"API_URL": "http://h/", "API_KEY": f"{KEY}\u00e9"},
        {"API_URL": "http://h/", "API_KEY": KEY, "API_AUTH": KEY},
        {"API_URL": "http://h/", "API_KEY": KEY, "API_AUTH": f"query:k={KEY}"},
        {"API_URL": "http://h/", "API_KEY": KEY, "API_AUTH": "none"},
        {"API_URL": f"http://{USER}:{WORD}@h/", "API_KEY": KEY},
        {"API_URL": f"http://h/?k={QUERY}", "API_KEY": KEY, "API_AUTH": "query:k"},
        {"API_URL": "http://h/", "KAFKA_SASL_PASSWORD": PASSWORD},
        {"API_URL": "http://h/", "API_KEY": KEY, "NO_PROXY": "", "HTTP_PROXY": f"htp://{USER}:{WORD}@h:1"},
        {"API_URL": "http://h/", "API_KEY": KEY, "NO_PROXY": "", "ALL_PROXY": f"http://{USER}:{WORD}@h:nan"},
        {"API_URL": "http://h/", "API_KEY": KEY, "HTTP_PORT": "0x"},
    ],
)
async def test_no_secret_shows_in_a_fault_of_the_settings(settings: dict[str, str], tmp_path: Path) -> None:
    with ServiceProcess(["producer"], settings, tmp_path) as producer:
        assert await producer.ended() == 2
        output = producer.output()
    assert leaks(output) == []
    assert output.strip()


async def test_a_proxys_credentials_and_the_key_in_its_error_show_nowhere(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    async with scripted_api(
        http(f"no {KEY}".encode(), status="407 Proxy Authentication Required"),
        http(f"no {KEY}".encode(), status="502 Bad Gateway"),
        reset,
        http(b"[]"),
    ) as proxy:
        settings = environ(kafka, topic, proxy, API_AUTH="query:apiKey", API_TIMEOUT_SECONDS="1")
        settings["API_URL"] = f"http://api.invalid/?token={QUERY}"
        settings["NO_PROXY"] = ""
        settings["HTTP_PROXY"] = f"http://{USER}:{WORD}@127.0.0.1:{proxy.port}"
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            await eventually(lambda: len(proxy.requests) >= 5, "requests to the proxy")
            pages = [(await producer.get(path))[1] for path in PATHS]
            assert await producer.stop() == 0
            output = producer.output()
    assert "407" in output
    assert leaks("\n".join([output, *pages])) == []


async def test_no_secret_shows_in_a_crash(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """The side-port's address is taken, which ends the process with a fault, traceback or not."""
    async with scripted_api(http(b"[]")) as api:
        settings = environ(kafka, topic, api, API_AUTH="query:apiKey", HTTP_PORT=str(api.port))
        with ServiceProcess(["producer"], settings, tmp_path) as producer:
            assert await producer.ended(40) != 0
            output = producer.output()
    assert str(api.port) in output
    assert leaks(output) == []
