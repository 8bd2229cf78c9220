"""What the shell's variables can do to the demo and the tests: nothing."""

from __future__ import annotations

import os

import pytest

from demo import environment
from shared.settings import VARIABLES

SHELL = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "KAFKA_BOOTSTRAP_SERVERS": "production:9092",
    "AWS_PROFILE": "production",
    "https_proxy": "http://proxy",
    "PYTHONPATH": "/elsewhere",
    "SSL_CERT_FILE": "/ca.pem",
}


def test_a_service_sees_its_settings_and_no_other_variable_of_the_shell() -> None:
    seen = environment.for_service(SHELL, {"KAFKA_TOPIC": "task"})
    assert {name: seen.get(name) for name in SHELL} == {
        **dict.fromkeys(SHELL),
        "PATH": "/bin",
        "HOME": "/home/me",
    }
    assert seen["KAFKA_TOPIC"] == "task"
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == seen["AWS_CONFIG_FILE"] == os.devnull


@pytest.mark.parametrize(
    "name", [*VARIABLES, "AWS_PROFILE", "aws_session_token", "HTTP_PROXY", "no_proxy", "ALL_PROXY"]
)
def test_every_variable_that_could_lead_astray_is_taken_away(name: str) -> None:
    shell = {name: "x", "PATH": "/bin", "SSL_CERT_FILE": "/ca.pem"}
    environment.shield(shell)
    assert shell == {"PATH": "/bin", "SSL_CERT_FILE": "/ca.pem", **environment.SHIELD}


def test_this_very_test_run_is_shielded() -> None:
    assert set(environment.leaking(os.environ)) <= environment.SHIELD.keys()
