"""From settings to aiokafka's keyword arguments."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import AuthenticationFailedError, ClusterAuthorizationFailedError, KafkaConnectionError, KafkaError

from shared import kafka, kafka_connection
from shared.kafka import CONNECTION_VARIABLES, MskTokenProvider, connection_options, connection_trouble, unreachable
from shared.kafka_diagnosis import explained
from shared.settings import KafkaSettings, SettingsError, load

if TYPE_CHECKING:
    from pathlib import Path

MSK = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "AWS_REGION": "eu-west-1"}
SCRAM = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
    "KAFKA_SASL_USERNAME": "me",
    "KAFKA_SASL_PASSWORD": "hunter2",
}


def options(environ: dict[str, str]) -> dict[str, object]:
    return connection_options(load(KafkaSettings, environ))


def test_plaintext_is_servers_and_protocol_alone() -> None:
    assert options({"KAFKA_BOOTSTRAP_SERVERS": "a:1, b:2"}) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_user_and_password_are_handed_over(mechanism: str) -> None:
    given = options({**SCRAM, "KAFKA_SASL_MECHANISM": mechanism})
    assert given["sasl_mechanism"] == mechanism
    assert (given["sasl_plain_username"], given["sasl_plain_password"]) == ("me", "hunter2")
    assert "ssl_context" not in given


def test_tls_verifies_the_certificate_and_the_host() -> None:
    context = options({"KAFKA_SECURITY_PROTOCOL": "SSL"})["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("client", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient])
@pytest.mark.parametrize("environ", [{}, SCRAM, MSK, {"KAFKA_SECURITY_PROTOCOL": "SSL"}])
def test_every_client_knows_every_option(client: type, environ: dict[str, str]) -> None:
    assert set(options(environ)) <= set(inspect.signature(client).parameters)


def test_msk_iam_is_oauthbearer_with_tokens_signed_for_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    given = options(MSK)
    assert given["sasl_mechanism"] == "OAUTHBEARER"
    assert "sasl_plain_password" not in given
    provider = given["sasl_oauth_token_provider"]
    assert isinstance(provider, MskTokenProvider)
    token = asyncio.run(provider.token())
    assert len(token) > 100
    assert "hunter2" not in token


def test_signing_that_hangs_is_given_up_and_holds_no_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "TOKEN_TIMEOUT_SECONDS", 0.05)
    released = threading.Event()

    def sign() -> str:
        released.wait(60)
        return "late"

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(MskTokenProvider(sign).token())  # which waits for the loop's own threads
    assert time.monotonic() - began < 20
    released.set()


async def test_a_token_that_cannot_be_signed_is_a_failed_attempt_that_says_why() -> None:
    """Not the end of the client, as an error that aiokafka does not know would be."""

    def sign() -> str:
        raise ValueError("Unable to locate credentials")

    with pytest.raises(KafkaError, match=r"no token for AWS_MSK_IAM \(ValueError: Unable to locate") as caught:
        await MskTokenProvider(sign).token()
    told = explained(caught.value, protocol="SASL_SSL", mechanism="OAUTHBEARER", user=None)
    assert "Unable to locate credentials" in told
    assert "check the AWS credentials" in told


def test_brokers_that_fail_alike_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options({"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"})
    attempts = kafka_connection.Attempts()
    monkeypatch.setattr(kafka_connection, "ATTEMPTS", attempts)
    assert connection_trouble(given) is None
    login = kafka_connection.Login.of_options(given)
    attempts.failed("a:1", login, "it is away")
    attempts.failed("b:2", login, "it has expired")
    attempts.failed("c:3", login, "it is away")
    assert connection_trouble(given) == "a:1,c:3: it is away; b:2: it has expired"
    error = KafkaConnectionError("Unable to bootstrap")
    assert unreachable(given, error) == "a:1,b:2 cannot be used: a:1,c:3: it is away; b:2: it has expired"


def test_a_file_that_is_no_certificate_is_a_fault_that_names_the_variable(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    with pytest.raises(SettingsError, match=r"^KAFKA_SSL_CAFILE: .*garbage\.pem' cannot be used \(.*; allowed: PEM"):
        options({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(garbage)})
    environ = {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CERTFILE": str(garbage),
        "KAFKA_SSL_KEYFILE": str(garbage),
    }
    with pytest.raises(SettingsError, match=r"^KAFKA_SSL_CERTFILE: "):
        options(environ)


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")


def certificate(folder: Path, *, encrypted: bool) -> dict[str, str]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    protection = ["-passout", "pass:hunter2"] if encrypted else ["-nodes"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=test"),
            *("-keyout", str(key), "-out", str(cert), *protection),
        ],
        check=True,
        capture_output=True,
    )
    return {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(cert),
        "KAFKA_SSL_CERTFILE": str(cert),
        "KAFKA_SSL_KEYFILE": str(key),
    }


@needs_openssl
def test_a_certificate_with_its_key_is_loaded(tmp_path: Path) -> None:
    context = options(certificate(tmp_path, encrypted=False))["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert len(context.get_ca_certs()) == 1


@needs_openssl
def test_an_encrypted_key_is_refused_without_asking_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^KAFKA_SSL_CERTFILE: .*the private key is encrypted"):
        options(certificate(tmp_path, encrypted=True))


def test_what_cannot_be_reached_is_told_with_what_to_check() -> None:
    options = {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "SSL"}
    check = f"; check {CONNECTION_VARIABLES}"
    refused = KafkaConnectionError("Unable to bootstrap from [('a', 1, <AddressFamily.AF_INET: 2>)]")
    assert unreachable(options, refused) == f"a:1,b:2 cannot be used: none accepts the connection as SSL{check}"
    assert unreachable(options, TimeoutError()) == f"a:1,b:2 cannot be used: no answer in time{check}"
    assert unreachable(options, NotImplementedError()) == f"a:1,b:2 cannot be used: NotImplementedError{check}"
    assert "wrong password" in unreachable(options, AuthenticationFailedError("wrong password"))
    denied = unreachable(options, ClusterAuthorizationFailedError())
    assert denied.startswith("a:1,b:2 lets the user in, but not write: grant WRITE on the topic")
