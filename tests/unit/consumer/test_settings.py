"""Every consumer setting with values that are refused, what the fault line says, and the exit of the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bootstrap import ROOT
from consumer.settings import Settings
from shared.settings import CONSUMER_VARIABLES, SettingsError, load

GOOD = {"S3_BUCKET": "bucket"}
CANARY = "CANARY-8f3a1c"
SECONDS = "is not allowed; allowed: a number of seconds above 0"
COUNT = "is not allowed; allowed: a whole number from 1"

BAD = [
    ("KAFKA_START_FROM", "newest", "'newest' is not allowed; allowed: one of earliest, latest"),
    ("KAFKA_ON_DATA_LOSS", "ignore", "'ignore' is not allowed; allowed: one of stop, skip"),
    ("KAFKA_SESSION_TIMEOUT_SECONDS", "0", SECONDS),
    ("KAFKA_SESSION_TIMEOUT_SECONDS", "inf", SECONDS),
    ("KAFKA_REBALANCE_TIMEOUT_SECONDS", "nan", SECONDS),
    ("KAFKA_REBALANCE_TIMEOUT_SECONDS", "-1", SECONDS),
    ("S3_BUCKET", "", "not set; allowed: the name of one general-purpose bucket"),
    ("S3_BUCKET", "Upper", "'Upper' is not allowed; allowed: the name of one general-purpose bucket"),
    ("S3_BUCKET", "arn:aws:s3:::bucket", "allowed: the name of one general-purpose bucket"),
    ("S3_BUCKET", "bucket/path", "no ARN, no path"),
    ("S3_BUCKET", "b--use1-az4--x-s3", "allowed: the name of one general-purpose bucket"),
    ("S3_PREFIX", "/a", "'/a' is not allowed; allowed: a folder like market/data/"),
    ("S3_PREFIX", "a//b", "no empty segment"),
    ("S3_PREFIX", "../a", "'.' or '..'"),
    ("S3_KEY_TEMPLATE", "{start}.{ext}", "{partition} is required"),
    ("S3_KEY_TEMPLATE", "{partition}.{ext}", "{start} is required"),
    ("S3_KEY_TEMPLATE", "{partition}{start}", "need something between them that is no digit"),
    ("S3_KEY_TEMPLATE", "{partition}-{start}-{uuid}", "unknown field {uuid}; allowed: dt, ext"),
    ("S3_KEY_TEMPLATE", "{partition}-{start", "a brace that belongs to no field"),
    ("S3_KEY_TEMPLATE", "{partition}-{start:>20}", "only whole numbers take a format"),
    ("S3_KEY_TEMPLATE", "_ticklake/{partition}-{start}", "is the folder of layout and quarantine"),
    ("S3_KEY_TEMPLATE", "x" * 1024 + "{partition}-{start}", "S3 allows 1024"),
    ("S3_SSE", "rot13", "'rot13' is not allowed; allowed: one of AES256, aws:kms, aws:kms:dsse"),
    ("S3_SSE_KMS_KEY_ID", "key", "set, but S3_SSE is not aws:kms"),
    ("S3_EXPECTED_BUCKET_OWNER", "123", "'123' is not allowed; allowed: an AWS account's number of 12 digits"),
    ("S3_EXPECTED_BUCKET_OWNER", "12345678901\N{FULLWIDTH DIGIT TWO}", "allowed: an AWS account's number of 12 digits"),
    ("AWS_ENDPOINT_URL_S3", "s3.local:9000", "is not allowed; allowed: an http:// or https:// URL"),
    ("AWS_ENDPOINT_URL_S3", f"ftp://me:{CANARY}@h/", "'ftp://h/' is not allowed; allowed: an http:// or https:// URL"),
    ("BATCH_MAX_RECORDS", "0", COUNT),
    ("BATCH_MAX_RECORDS", "1e5", COUNT),
    ("BATCH_MAX_BYTES", "16M", COUNT),
    (
        "BATCH_MAX_BYTES",
        str(1 << 30),
        "is more than a quarter of MEMORY_LIMIT_BYTES (268435456); allowed: at most 67",
    ),
    ("BATCH_MAX_SECONDS", "-0.1", SECONDS),
    ("COMPRESSION_LEVEL", "0", "'0' is not allowed; allowed: a whole number: 1 to 9 with gzip, 1 to 19 with zstd"),
    ("COMPRESSION", "lz4", "'lz4' is not allowed; allowed: one of gzip, zstd, none"),
    ("COMPRESSION_LEVEL", "10", "10 is above what gzip has; allowed: 1 to 9"),
    ("RECORD_FORMAT", "avro", "'avro' is not allowed; allowed: one of value, envelope"),
    ("MEMORY_LIMIT_BYTES", "1000", "'1000' is not allowed; allowed: a whole number from 16777216 (16 MiB)"),
    ("UPLOAD_CONCURRENCY", "0", "'0' is not allowed; allowed: a whole number from 1 to 1000"),
    ("UPLOAD_CONCURRENCY", "1001", "allowed: a whole number from 1 to 1000"),
    ("UPLOAD_TIMEOUT_SECONDS", "soon", SECONDS),
]
# Any text but one that is not UTF-8 may be right: the group's and the bucket's owners know.
BAD += [(name, "\udcff", "'\\udcff' is not allowed; allowed: text") for name in ("KAFKA_GROUP_ID", "S3_ACL")]
BAD += [("S3_STORAGE_CLASS", "\udcff", "'\\udcff' is not allowed; allowed: text")]


def test_every_consumer_setting_has_a_bad_value_below() -> None:
    assert {name for name, _, _ in BAD} == set(CONSUMER_VARIABLES)


def faults(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(Settings, {**GOOD, **environ})
    return caught.value.faults


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_a_bad_value_is_one_line_that_names_it_and_what_is_allowed(name: str, value: str, said: str) -> None:
    (fault,) = faults({name: value})
    assert fault.startswith(f"{name}: ")
    assert said in fault
    assert "\n" not in fault
    assert CANARY not in fault


def test_the_original_layout_is_allowed() -> None:
    settings = load(
        Settings,
        {
            **GOOD,
            "BATCH_MAX_RECORDS": "1",
            "COMPRESSION": "none",
            "S3_KEY_TEMPLATE": "stock_market_{unix}_{partition}_{start}.{ext}",
        },
    )
    assert settings.keys.render(partition=3, start=7, timestamp=1_700_000_000_123) == "stock_market_1700000000_3_7.json"


def test_contradictions_wait_until_every_field_is_right() -> None:
    environ = {"S3_SSE_KMS_KEY_ID": "key", "S3_KEY_TEMPLATE": "x", "BATCH_MAX_RECORDS": "x", "COMPRESSION": "y"}
    assert [fault.split(":")[0] for fault in faults(environ)] == ["BATCH_MAX_RECORDS", "COMPRESSION"]
    del environ["BATCH_MAX_RECORDS"], environ["COMPRESSION"]
    assert [fault.split(":")[0] for fault in faults(environ)] == ["S3_KEY_TEMPLATE", "S3_SSE_KMS_KEY_ID"]


def test_empty_means_unset_everywhere() -> None:
    assert load(Settings, {**dict.fromkeys(CONSUMER_VARIABLES, ""), **GOOD}) == load(Settings, GOOD)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, ["S3_BUCKET"]),
        (
            {"S3_BUCKET": "B", "UPLOAD_CONCURRENCY": "0", "KAFKA_SASL_PASSWORD": f"{CANARY}\udcff"},
            ["KAFKA_SASL_PASSWORD", "S3_BUCKET", "UPLOAD_CONCURRENCY"],
        ),
        (
            {"S3_BUCKET": "bucket", "KAFKA_SASL_PASSWORD": CANARY, "KAFKA_SASL_USERNAME": "u"},
            ["KAFKA_SASL_PASSWORD", "KAFKA_SASL_USERNAME"],
        ),
    ],
)
def test_the_process_exits_with_2_and_a_line_a_fault(environ: dict[str, str], named: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "consumer"],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert sorted(line.split(":")[0] for line in lines) == named
    assert all("; allowed: " in line for line in lines)
    assert "Traceback" not in done.stderr + done.stdout
    assert CANARY not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"COMPRESSION": "none", "COMPRESSION_LEVEL": "1"}, "1 is set, but COMPRESSION is none"),
        (
            {"COMPRESSION": "zstd", "COMPRESSION_LEVEL": "12"},
            "allowed: a level of which 16 fit into MEMORY_LIMIT_BYTES (268435456), or a limit of at least",
        ),
    ],
)
def test_a_level_that_the_codec_or_the_memory_cannot_bear_is_refused(environ: dict[str, str], said: str) -> None:
    (fault,) = faults(environ)
    assert fault.startswith("COMPRESSION_LEVEL: ")
    assert said in fault
    assert "allowed: " in fault


def test_a_level_is_handed_to_the_codec() -> None:
    settings = load(Settings, {**GOOD, "COMPRESSION": "zstd", "COMPRESSION_LEVEL": "9"})
    assert settings.compression_level == 9
