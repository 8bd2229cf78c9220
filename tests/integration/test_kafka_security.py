"""Both services over TLS, mutual TLS and SASL on the real broker, and what they say when they are not let in."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from demo.ports import HOST
from tests.kafka_security import OTHER_USER, PASSWORD, USER, SecuredKafka, front, key_pair
from tests.processes import ServiceProcess
from tests.scripted_api import http, scripted_api
from tests.servers import eventually, unique

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.servers import S3

WRONG: Final = "CANARY-wrong password"
QUOTES: Final = [b'{"symbol":"A","price":1.50}', b'{"symbol":"B","price":12345678901234567890}']
WAYS: Final = [
    ("SSL", ""),
    ("MTLS", ""),
    ("SASLPLAINTEXT", "PLAIN"),
    ("SASLSSL", "PLAIN"),
    ("SASLSSL", "SCRAM-SHA-512"),
    ("SASLSSL", "SCRAM-SHA-256"),
]
# An attempt takes the test's loop some time to note, on a busy machine.
LEAST_APART_SECONDS: Final = 0.8


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    folder = tmp_path_factory.mktemp("secured")
    kafka = SecuredKafka(folder)
    try:
        kafka.server.start()
        yield kafka
    finally:
        kafka.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def producer_environ(kafka: Mapping[str, str], api_url: str, topic: str) -> dict[str, str]:
    return {
        **kafka,
        "KAFKA_TOPIC": topic,
        "API_URL": api_url,
        "POLL_INTERVAL_SECONDS": "0.5",
        "SELECT": "all",
        "LOG_LEVEL": "DEBUG",
    }


def consumer_environ(kafka: Mapping[str, str], s3: S3, bucket: str, topic: str) -> dict[str, str]:
    return {
        **kafka,
        **s3.environ(),
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": f"group-{topic}",
        "S3_BUCKET": bucket,
        "BATCH_MAX_SECONDS": "0.5",
        "LOG_LEVEL": "DEBUG",
    }


async def everything_shown(service: ServiceProcess) -> str:
    """Its output and its pages."""
    pages = [await service.get(path) for path in ("/", "/readyz", "/healthz", "/metrics")]
    return service.output() + "".join(text for _, text in pages)


async def stored(s3: S3, bucket: str) -> list[bytes]:
    objects = await s3.objects(bucket, "topic=")
    return [line for found in objects.values() for line in gzip.decompress(found.body).splitlines()]


# ---- let in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listener", "mechanism"), WAYS, ids=lambda part: part or "no login")
async def test_records_go_through_both_services_and_no_password_is_shown(
    secured: SecuredKafka, s3: S3, bucket: str, tmp_path: Path, listener: str, mechanism: str
) -> None:
    topic = await secured.plain.create_topic(2)
    kafka = secured.environ(listener, mechanism)
    async with scripted_api(http(b"[%s]" % b",".join(QUOTES))) as api:
        with ServiceProcess(["producer"], producer_environ(kafka, api.url, topic), tmp_path) as producer:
            environ = consumer_environ(kafka, s3, bucket, topic)
            with ServiceProcess(["consumer"], environ, tmp_path) as consumer:
                await producer.logged("Message sent", count=2)
                await consumer.logged("Uploaded")
                await eventually(producer.is_ready, "the producer's readiness")
                await eventually(consumer.is_ready, "the consumer's readiness")
                shown = await everything_shown(producer) + await everything_shown(consumer)
                assert await producer.stop() == 0
                acknowledged = sum(int(str(line["records"])) for line in producer.lines("Message sent"))
                in_topic = [r.value or b"" for found in (await secured.plain.read(topic)).values() for r in found]

                async def all_stored() -> bool:
                    return len(await stored(s3, bucket)) >= len(in_topic)

                await eventually(all_stored, "every record in S3", every_seconds=0.3)
                assert await consumer.stop() == 0
                shown += producer.output() + consumer.output()
    assert len(in_topic) == acknowledged
    assert sorted(await stored(s3, bucket)) == sorted(in_topic)
    assert set(in_topic) == set(QUOTES)
    assert f"Authenticated as {USER}" in shown or not mechanism, "aiokafka told at DEBUG what it does"
    assert PASSWORD not in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(("listener", "mechanism"), [("MTLS", ""), ("SASLSSL", "SCRAM-SHA-512")])
async def test_check_and_verify_are_let_in_as_the_services_are(
    secured: SecuredKafka, s3: S3, bucket: str, tmp_path: Path, listener: str, mechanism: str
) -> None:
    topic = await secured.plain.create_topic()
    await secured.plain.produce(topic, QUOTES)
    kafka = secured.environ(listener, mechanism)
    environ = consumer_environ(kafka, s3, bucket, topic)
    async with scripted_api(http(b"[]")) as api:
        with (
            ServiceProcess(["producer", "check"], producer_environ(kafka, api.url, topic), tmp_path) as producer,
            ServiceProcess(["consumer", "check"], environ, tmp_path) as consumer,
        ):
            assert await producer.ended() == 0
            assert await consumer.ended() == 0
    with ServiceProcess(["consumer"], environ, tmp_path) as running:
        await running.logged("Uploaded")
        assert await running.stop() == 0
    with ServiceProcess(["consumer", "verify", "--deep", "--json"], environ, tmp_path) as verify:
        assert await verify.ended() == 0
    shown = producer.output() + consumer.output() + running.output() + verify.output()
    assert PASSWORD not in shown
    assert "Traceback" not in shown


# ---- not let in ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A way to ask `listener` wrongly: as for the listener `asked`, with some settings otherwise (None = not set)."""

    listener: str
    words: str  # what is said of it
    setting: str  # to be looked at
    asked: str = ""
    mechanism: str = ""
    settings: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # by the name of the certificates' attribute

    def environ(self, secured: SecuredKafka) -> dict[str, str]:
        environ: dict[str, str | None] = dict(secured.environ(self.asked or self.listener, self.mechanism))
        for setting, name in self.files.items():
            files = getattr(secured.certificates, name)
            environ |= key_pair(files) if isinstance(files, tuple) else {setting: str(files)}
        environ |= {"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{secured.port(self.listener)}", **self.settings}
        return {name: value for name, value in environ.items() if value is not None}


LOGIN = "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
CLIENT_FILES = "KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
REFUSALS: Final = {
    "wrong password, PLAIN": Refusal(
        listener="SASLSSL",
        mechanism="PLAIN",
        settings={"KAFKA_SASL_PASSWORD": WRONG},
        words=f"it refuses user '{USER}' by PLAIN",
        setting=LOGIN,
    ),
    "wrong password, SCRAM": Refusal(
        listener="SASLPLAINTEXT",
        mechanism="SCRAM-SHA-512",
        settings={"KAFKA_SASL_PASSWORD": WRONG},
        words=f"it refuses user '{USER}' by SCRAM-SHA-512",
        setting=LOGIN,
    ),
    "unknown user": Refusal(
        listener="SASLSSL",
        mechanism="SCRAM-SHA-512",
        settings={"KAFKA_SASL_USERNAME": "nobody"},
        words="it refuses user 'nobody' by SCRAM-SHA-512",
        setting=LOGIN,
    ),
    "no login": Refusal(
        listener="SASLPLAINTEXT",
        asked="PLAINTEXT",
        words="it hangs up at the first request; does it want a login?",
        setting="KAFKA_SECURITY_PROTOCOL",
    ),
    "wrong authority": Refusal(
        listener="SSL",
        files={"KAFKA_SSL_CAFILE": "other_authority"},
        words="its certificate is not signed by an authority in KAFKA_SSL_CAFILE",
        setting="check KAFKA_SSL_CAFILE",
    ),
    "expired": Refusal(listener="EXPIRED", words="its certificate (or its authority's) has expired", setting="clock"),
    "another name": Refusal(
        listener="MISNAMED",
        words="its certificate is for another name (IP address mismatch, certificate is not valid for '127.0.0.1')",
        setting="KAFKA_BOOTSTRAP_SERVERS",
    ),
    "no client certificate": Refusal(listener="MTLS", asked="SSL", words="client certificate", setting=CLIENT_FILES),
    "client certificate of another authority": Refusal(
        listener="MTLS",
        files={"KAFKA_SSL_CERTFILE": "strange_client"},
        words="client certificate",
        setting=CLIENT_FILES,
    ),
    "expired client certificate": Refusal(
        listener="MTLS",
        files={"KAFKA_SSL_CERTFILE": "expired_client"},
        words="client certificate",
        setting=CLIENT_FILES,
    ),
    "plaintext to TLS": Refusal(
        listener="SSL", asked="PLAINTEXT", words="it speaks TLS", setting="KAFKA_SECURITY_PROTOCOL (PLAINTEXT;"
    ),
    "TLS to plaintext": Refusal(
        listener="PLAINTEXT",
        asked="SSL",
        words="it breaks off the TLS handshake",
        setting="KAFKA_SECURITY_PROTOCOL and the port",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_who_is_not_let_in_says_why_in_one_line_knocks_slowly_and_stays_up(
    secured: SecuredKafka, s3: S3, tmp_path: Path, refusal: Refusal
) -> None:
    topic, bucket = unique("unseen"), unique("unseen")
    kafka = refusal.environ(secured)
    began = time.monotonic()
    async with AsyncExitStack() as opened:
        api = await opened.enter_async_context(scripted_api(http(b"[]")))
        fronts = [await opened.enter_async_context(front(secured.port(refusal.listener))) for _ in range(2)]
        places = [{**kafka, "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{through.port}"} for through in fronts]
        environs = [producer_environ(places[0], api.url, topic), consumer_environ(places[1], s3, bucket, topic)]
        processes = opened.enter_context(ExitStack())
        services = [
            processes.enter_context(ServiceProcess([name], environ, tmp_path))
            for name, environ in zip(("producer", "consumer"), environs, strict=True)
        ]
        checks = [
            processes.enter_context(ServiceProcess([name, "check"], {**environ, **kafka}, tmp_path))
            for name, environ in zip(("producer", "consumer"), environs, strict=True)
        ]
        for service, through in zip(services, fronts, strict=True):
            reasons = await service.ready_reason(refusal.words)
            assert refusal.setting in reasons
            await eventually(lambda through=through: len(through.made) >= 3, "going on to knock")  # type: ignore[misc]
            apart = [later - earlier for earlier, later in zip(through.made, through.made[1:], strict=False)]
            assert min(apart) >= LEAST_APART_SECONDS, f"{service.log_file.name}: {apart}"
            assert (await service.get("/healthz"))[0] == 200
            told = [line for line in service.lines() if refusal.words in str(line.get("reason"))]
            assert 1 <= len(told) <= 1 + (time.monotonic() - began) // 60, told
            assert f"{HOST}:{through.port}" in str(told[0]["reason"])
            assert {line["event"] for line in service.lines() if str(line["logger"]).startswith("aiokafka")} <= {
                "Sending username and password in the clear"
            }
            assert not [line for line in service.lines() if line["level"] == "error"]
            assert await service.stop() == 0
        for check, kind in zip(checks, ("broker", "Kafka"), strict=True):
            assert await check.ended() == 1
            (line,) = [line for line in check.output().splitlines() if line.split()[1:2] == [kind]]
            assert line.split()[0] in {"FAIL", "FAULT"}
            assert refusal.words in line
            assert refusal.setting in line
        shown = "".join(process.output() for process in (*services, *checks))
    assert WRONG not in shown
    assert PASSWORD not in shown
    assert "Traceback" not in shown


async def test_a_password_put_right_lets_both_services_in_at_the_start_and_in_mid_run(
    secured: SecuredKafka, s3: S3, bucket: str, tmp_path: Path
) -> None:
    topic = await secured.plain.create_topic()
    mechanism, refused = "SCRAM-SHA-512", f"it refuses user '{OTHER_USER}'"
    kafka = secured.environ("FRONTED", mechanism, user=OTHER_USER, password="CANARY-later")
    kafka["KAFKA_BOOTSTRAP_SERVERS"] = f"{HOST}:{secured.front_port}"

    async def sets(password: str) -> None:
        await asyncio.to_thread(secured.set_password, mechanism, password)

    try:
        async with (
            scripted_api(http(b"[%s]" % QUOTES[0])) as api,
            front(secured.port("FRONTED"), secured.front_port) as through,
        ):
            with (
                ServiceProcess(["producer"], producer_environ(kafka, api.url, topic), tmp_path) as producer,
                ServiceProcess(["consumer"], consumer_environ(kafka, s3, bucket, topic), tmp_path) as consumer,
            ):
                for service in (producer, consumer):
                    await service.ready_reason(refused)
                await sets("CANARY-later")
                for service in (producer, consumer):
                    await eventually(service.is_ready, "let in at the start")
                await consumer.logged("Uploaded")

                await sets("CANARY-changed")
                knocked = time.monotonic()
                through.cut()
                for service in (producer, consumer):
                    await service.ready_reason(refused)
                seconds = time.monotonic() - knocked
                assert through.since(knocked) <= 2 * (seconds + 2), f"{through.since(knocked)} in {seconds:.1f} s"
                for service in (producer, consumer):
                    (line,) = service.lines("No connection to Kafka")[:1]
                    assert refused in str(line["reason"])
                    assert len(service.lines("No connection to Kafka")) <= 1 + seconds // 60

                await sets("CANARY-later")
                for service in (producer, consumer):
                    await eventually(service.is_ready, "let in again in mid-run")
                assert await producer.stop() == 0
                count = len((await secured.plain.read(topic))[0])
                assert count == len(producer.lines("Message sent"))

                async def all_stored() -> bool:
                    return len(await stored(s3, bucket)) == count

                await eventually(all_stored, "every record in S3", every_seconds=0.3)
                assert await consumer.stop() == 0
                shown = producer.output() + consumer.output()
    finally:
        await sets(PASSWORD)
    assert "CANARY" not in shown
    assert "Traceback" not in shown
