"""The DEMO_ variables."""

from __future__ import annotations

import pytest

from demo.options import HELP, KNOWN, OptionsError, read

S3 = {"DEMO_S3": "http://s3:9000", "DEMO_S3_ACCESS_KEY": "a", "DEMO_S3_SECRET_KEY": "s"}


def test_without_variables_it_runs_until_stopped_on_servers_of_its_own() -> None:
    options = read({"KAFKA_BOOTSTRAP_SERVERS": "production:9092", "DEMO_SECONDS": ""})
    assert (options.seconds, options.kafka, options.s3, options.topic) == (None, None, None, "task")


def test_named_servers_are_taken_and_have_state_of_their_own() -> None:
    options = read({"DEMO_KAFKA": "k:9092", "DEMO_SECONDS": "60", **S3})
    assert (options.kafka, options.s3, options.seconds) == ("k:9092", "http://s3:9000", 60)
    folders = {read(given).folder for given in ({}, {"DEMO_KAFKA": "k:9092"}, S3, S3 | {"DEMO_S3_BUCKET": "other"})}
    assert len(folders) == 4
    assert str(read(S3 | {"DEMO_STATE": "/elsewhere"}).folder) == "/elsewhere"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"DEMO_SECONDS": "soon"}, "DEMO_SECONDS=soon: a number from 1"),
        ({"DEMO_SECONDS": "nan"}, "DEMO_SECONDS=nan: a number from 1"),
        ({"DEMO_SYMBOLS": "12001"}, "DEMO_SYMBOLS=12001: a number from 1 to 12,000"),
        ({"DEMO_S3": "s3:9000"}, "DEMO_S3=s3:9000: a URL"),
        ({"DEMO_S3": "http://s3:9000", "DEMO_S3_ACCESS_KEY": "a"}, "DEMO_S3_SECRET_KEY is wanted"),
        ({"DEMO_SECOND": "5"}, "DEMO_SECOND is unknown"),
    ],
)
def test_what_cannot_be_used_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(OptionsError, match=f"^{told}"):
        read(environ)


def test_the_help_names_every_variable() -> None:
    assert all(name in HELP for name in KNOWN)
