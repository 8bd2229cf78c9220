"""Every producer setting with values that are refused, and what the fault line says. See test_shared_* for the rest."""

from __future__ import annotations

import pytest

from producer.pointer import parse_pointer
from producer.selection import Select
from producer.settings import Settings
from shared.settings import PRODUCER_VARIABLES, SHARED_VARIABLES, SettingsError, effective, load, variables_of

GOOD = {"API_URL": "https://api.example/v2/quotes"}
CANARY = "CANARY-8f3a1c"

BAD = [
    ("API_URL", "", "not set; allowed: http://HOST[:PORT]/PATH[?QUERY]"),
    ("API_URL", "api.example", "is not allowed; allowed: http://HOST"),
    ("API_URL", f"ftp://me:{CANARY}@h/?k={CANARY}", "'ftp://h/' is not allowed; allowed: http://HOST"),
    ("API_URL", f"http://h/a b?k={CANARY}", "allowed: http://HOST"),
    ("API_URL", f"http://h:port/?k={CANARY}", "allowed: http://HOST"),
    ("API_KEY", f"{CANARY}\nX: y", "'********' is not allowed with API_AUTH='bearer'; allowed: a key sent in a header"),
    ("API_AUTH", "basic", "'basic' is not allowed; allowed: bearer, query:NAME, header:NAME, none"),
    ("API_AUTH", "query:", "allowed: bearer, query:NAME"),
    ("API_AUTH", "header:Host", "allowed: bearer, query:NAME"),
    ("API_AUTH", f"query:apiKey={CANARY}", "'query:********' is not allowed; allowed: bearer, query:NAME"),
    ("API_AUTH", f"Bearer {CANARY}", "'********' is not allowed; allowed: bearer, query:NAME"),
    ("API_AUTH", f"header:X-Key: {CANARY}", "'header:********' is not allowed; allowed: bearer, query:NAME"),
    ("API_RECORDS_POINTER", "tickers", "'tickers' is not allowed; allowed: unset for the root, or a JSON pointer"),
    ("API_RECORDS_POINTER", "/a~", "a JSON pointer"),
    ("API_TIMEOUT_SECONDS", "0", "'0' is not allowed; allowed: a number of seconds above 0"),
    ("API_TIMEOUT_SECONDS", "inf", "a number of seconds"),
    ("API_TIMEOUT_SECONDS", "nan", "a number of seconds"),
    ("API_TIMEOUT_SECONDS", "ten", "a number of seconds"),
    ("API_MAX_BODY_BYTES", "0", "a whole number from 1"),
    ("API_MAX_BODY_BYTES", "64M", "a whole number from 1"),
    ("API_MAX_RECORDS", "-1", "a whole number from 1"),
    ("API_NEXT_POINTER", "next_url", "'next_url' is not allowed; allowed: unset for no further pages, or a JSON"),
    ("API_RATE_LIMIT_PER_MINUTE", "0", "'0' is not allowed; allowed: a whole number from 1"),
    ("API_RATE_LIMIT_PER_MINUTE", "2.5", "'2.5' is not allowed; allowed: a whole number from 1"),
    ("API_ENDPOINTS", "/no/such/file", "'/no/such/file' cannot be read (No such file or directory); allowed: a TOML"),
    ("PUBLISH_MAX_UNACKED_BYTES", "1.5", "a whole number from 1"),
    ("POLL_INTERVAL_SECONDS", "0", "a number of seconds"),
    ("POLL_INTERVAL_SECONDS", "-2", "a number of seconds"),
    ("SELECT", "some", "'some' is not allowed; allowed: random, all, changed"),
    ("RECORD_KEY_POINTER", "symbol", "'symbol' is not allowed; allowed: none for no keys, or a JSON pointer"),
]


def test_every_producer_setting_has_a_bad_value_below() -> None:
    assert {name for name, _, _ in BAD} == set(PRODUCER_VARIABLES)


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_a_bad_value_is_one_line_that_names_it_and_what_is_allowed(name: str, value: str, said: str) -> None:
    environ = {**GOOD, name: value}
    if name == "API_KEY":
        environ["API_AUTH"] = "bearer"
    with pytest.raises(SettingsError) as caught:
        load(Settings, environ)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{name}: ")
    assert said in fault
    assert "\n" not in fault
    assert CANARY not in fault


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"API_KEY": CANARY, "API_AUTH": "none"}, "API_AUTH: none sends no key, but API_KEY is set; unset one of them"),
        ({"API_AUTH": "query:apiKey"}, "API_AUTH: query:apiKey needs API_KEY, which is not set"),
        ({"API_AUTH": "header:X-Key"}, "API_AUTH: header:X-Key needs API_KEY, which is not set"),
        (
            {"API_URL": f"https://me:{CANARY}@h/", "API_KEY": CANARY},
            "API_URL: its user info and API_KEY would both be the Authorization header; remove one of them",
        ),
        (
            {"API_URL": f"https://me:{CANARY}@h/", "API_KEY": CANARY, "API_AUTH": "header:authorization"},
            "API_URL: its user info and API_KEY would both be the Authorization header; remove one of them",
        ),
        (
            {"API_URL": f"https://h/?apiKey={CANARY}", "API_KEY": CANARY, "API_AUTH": "query:apiKey"},
            "API_AUTH: the query of API_URL has the parameter apiKey already; remove one of them",
        ),
        (
            {"API_KEY": f"{CANARY} ", "API_AUTH": "header:X-K"},
            (
                "API_KEY: '********' is not allowed with API_AUTH='header:X-K'; allowed: a key sent in a header has"
                " printable ASCII characters only and no spaces around it"
            ),
        ),
        (
            {"KAFKA_SASL_PASSWORD": CANARY},
            (
                "KAFKA_SASL_PASSWORD: set, but KAFKA_SECURITY_PROTOCOL is 'PLAINTEXT'; allowed: with SASL_SSL or"
                " SASL_PLAINTEXT only"
            ),
        ),
    ],
)
def test_contradictions_are_one_line_without_secrets(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Settings, {**GOOD, **environ})
    assert caught.value.faults == (said,)
    assert CANARY not in said


@pytest.mark.parametrize(
    ("url", "auth", "key"),
    [("http://h/", "bearer", ""), ("http://u:p@h/", "query:k", "k"), ("http://h/", "none", ""), ("http://h/", "", "")],
)
def test_what_goes_together_is_accepted(url: str, auth: str, key: str) -> None:
    assert load(Settings, {"API_URL": url, "API_AUTH": auth, "API_KEY": key}).endpoints


def test_contradictions_wait_until_every_field_is_right() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Settings, {**GOOD, "API_KEY": "k", "API_AUTH": "none", "API_MAX_RECORDS": "x", "SELECT": "y"})
    assert sorted(fault.split(":")[0] for fault in caught.value.faults) == ["API_MAX_RECORDS", "SELECT"]


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load(Settings, {**GOOD, **dict.fromkeys(("API_KEY", "SELECT", "API_RATE_LIMIT_PER_MINUTE"), "")})
    assert settings.api_auth == "bearer"
    (endpoint,) = settings.endpoints
    assert endpoint.records_pointer.text == ""
    assert settings.api_timeout_seconds == 10.0
    assert (settings.api_max_body_bytes, settings.api_max_records) == (67_108_864, 100_000)
    assert settings.publish_max_unacked_bytes == 67_108_864
    assert settings.poll_interval_seconds == 2.0
    assert endpoint.select is Select.RANDOM
    assert endpoint.key_pointer is not None
    assert endpoint.key_pointer.text == "/symbol"


def test_values_are_taken_in_any_case() -> None:
    settings = load(
        Settings, {**GOOD, "SELECT": "ALL", "RECORD_KEY_POINTER": "None", "API_AUTH": "Header:X-K", "API_KEY": "k"}
    )
    (endpoint,) = settings.endpoints
    assert endpoint.select is Select.ALL
    assert endpoint.key_pointer is None
    assert endpoint.endpoint.headers["x-k"] == "k"
    assert endpoint.records_pointer.names == parse_pointer("").names


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("API_ENDPOINT", "API_ENDPOINTS"),
        ("API_ENDPOINT_FILE", "API_ENDPOINTS"),
        ("API_NEXT_POINTR", "API_NEXT_POINTER"),
        ("API_NEXT_PAGE_POINTER", "API_NEXT_POINTER"),
        ("API_RATE_LIMIT", "API_RATE_LIMIT_PER_MINUTE"),
        ("API_RATELIMIT_PER_MINUTE", "API_RATE_LIMIT_PER_MINUTE"),
        ("API_RATE_LIMIT_PER_MIN", "API_RATE_LIMIT_PER_MINUTE"),
        ("API_KEYS", "API_KEY"),
        ("API_URI", "API_URL"),
        ("API_AUTHENTICATION", "API_AUTH"),
        ("API_TIMEOUT", "API_TIMEOUT_SECONDS"),
        ("API_MAX_BODY_SIZE", "API_MAX_BODY_BYTES"),
        ("API_RECORD_POINTER", "API_RECORDS_POINTER"),
        ("POLL_INTERVAL", "POLL_INTERVAL_SECONDS"),
        ("POLL_INTERVALL_SECONDS", "POLL_INTERVAL_SECONDS"),
        ("SELECTION", "SELECT"),
        ("SELECT_MODE", "SELECT"),
        ("RECORD_KEY", "RECORD_KEY_POINTER"),
        ("PUBLISH_MAX_UNACKED", "PUBLISH_MAX_UNACKED_BYTES"),
    ],
)
def test_a_misspelling_is_warned_of_with_the_nearest_name(typo: str, meant: str) -> None:
    settings = load(Settings, {**GOOD, typo: CANARY})
    assert settings.warnings == (f"{typo}: no such setting, ignored; did you mean {meant}?",)


def test_the_start_up_line_has_every_setting_and_no_secret() -> None:
    environ = {
        "API_URL": f"https://me:{CANARY}@h:8443/x?token={CANARY}#f",
        "API_KEY": CANARY,
        "API_AUTH": "query:k",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "u",
        "KAFKA_SASL_PASSWORD": CANARY + "2",
    }
    settings = load(Settings, environ)
    shown = effective(settings)
    assert CANARY not in repr(shown)
    assert CANARY not in repr(settings)
    assert shown["API_URL"] == "https://h:8443/x"
    assert {CANARY, CANARY + "2"} <= set(settings.secrets)


def test_every_variable_of_the_producer_is_a_field() -> None:
    ours = {name for key, field in Settings.model_fields.items() for name in variables_of(key, field)}
    assert ours == {*SHARED_VARIABLES, *PRODUCER_VARIABLES}


def test_a_misspelt_name_of_what_is_missing_is_told_with_the_fault() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"API_ULR": "http://h/"})
    missing, hint = caught.value.faults
    assert missing.startswith("API_URL: not set; ")
    assert hint == "API_ULR: no such setting, ignored; did you mean API_URL?"
