"""Settings: what is read, what is refused, and that nothing secret is ever shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, SecretStr

from shared.settings import (
    CONSUMER_VARIABLES,
    MASK,
    OUR_PREFIXES,
    PRODUCER_VARIABLES,
    SHARED_VARIABLES,
    VARIABLES,
    Allowed,
    Bytes,
    Count,
    ServiceSettings,
    SettingsError,
    Shown,
    Text,
    effective,
    load,
    variables_of,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def _no_path(url: str) -> str:
    if url.count("/") > 2:
        raise ValueError(url)
    return url


class Sample(ServiceSettings):
    """A service's settings with one field of each kind."""

    api_url: Annotated[str, AfterValidator(_no_path), Allowed("a URL without a path"), Shown(without_credentials)]
    api_key: SecretStr | None = None
    batch_max_records: Count = 5
    memory_limit_bytes: Bytes | None = None
    s3_prefix: Text | None = None

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.batch_max_records == 13:
            yield "BATCH_MAX_RECORDS: 13 with any S3_PREFIX; allowed: luck"


GOOD = {"API_URL": "http://host"}


def faults(environ: Mapping[str, str], cls: type[ServiceSettings] = Sample) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(cls, {**GOOD, **environ})
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def test_defaults_hold_where_nothing_is_set() -> None:
    settings = load(ServiceSettings, {})
    assert settings.kafka_bootstrap_servers == "localhost:9092"
    assert settings.kafka_topic == "task"
    assert settings.kafka_security_protocol == "PLAINTEXT"
    assert (settings.log_level, settings.log_format) == ("INFO", "auto")
    assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8080)
    assert settings.shutdown_timeout_seconds == 25
    assert settings.warnings == ()


def test_every_variable_may_be_empty_and_is_then_unset() -> None:
    assert load(ServiceSettings, dict.fromkeys(VARIABLES, "")) == load(ServiceSettings, {})


def test_a_required_variable_that_is_empty_is_missing() -> None:
    assert faults({"API_URL": ""}) == ("API_URL: not set; allowed: a URL without a path",)


def test_only_the_given_mapping_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_TOPIC", "elsewhere")
    monkeypatch.setitem(os.environ, "kafka_topic", "elsewhere")
    assert load(ServiceSettings, {}).kafka_topic == "task"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "host:99999", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:0", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://a:1", "host:port"),
        ("KAFKA_TOPIC", "a b", "letters"),
        ("KAFKA_TOPIC", "..", "letters"),
        ("KAFKA_TOPIC", "x" * 250, "249"),
        ("KAFKA_TOPIC", "task\n", "letters"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI", "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, AWS_MSK_IAM"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "xml", "one of auto, console, json"),
        ("HTTP_PORT", "65536", "0 to 65535"),
        ("HTTP_PORT", "-1", "0 to 65535"),
        ("HTTP_PORT", "http", "0 to 65535"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "0", "above 0"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "-0.0", "above 0"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "inf", "above 0"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "nan", "above 0"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "1e300", "at most"),
        ("BATCH_MAX_RECORDS", "x", "a whole number from 1"),
        ("BATCH_MAX_RECORDS", "0", "a whole number from 1"),
        ("BATCH_MAX_RECORDS", "1.5", "a whole number from 1"),
        ("BATCH_MAX_RECORDS", str(10**15 + 1), "10^15"),
        ("BATCH_MAX_RECORDS", "9" * 400, "a whole number from 1"),
        ("MEMORY_LIMIT_BYTES", "1GB", "a whole number from 1"),
    ],
)
def test_a_wrong_value_is_one_line_with_name_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    (fault,) = faults({variable: value})
    assert fault.startswith(f"{variable}: {value[:20]!r}"[:-1])
    assert " is not allowed; allowed: " in fault
    assert allowed in fault.partition("allowed: ")[2]
    assert "\n" not in fault
    assert len(fault) < 500


@pytest.mark.parametrize("value", ["a:1", "a:1, b:2", "[::1]:9092", "a", "b-1.x.kafka.eu-west-1.amazonaws.com:9098"])
def test_lists_of_servers_are_taken(value: str) -> None:
    assert load(ServiceSettings, {"KAFKA_BOOTSTRAP_SERVERS": value}).kafka_bootstrap_servers == value


def test_words_are_taken_in_any_case() -> None:
    settings = load(ServiceSettings, {"LOG_LEVEL": "debug", "LOG_FORMAT": "JSON"})
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def test_all_wrong_fields_are_told_at_once_and_contradictions_only_after_them() -> None:
    environ = {"HTTP_PORT": "x", "LOG_LEVEL": "y", "KAFKA_SASL_MECHANISM": "PLAIN", "BATCH_MAX_RECORDS": "13"}
    assert [fault.partition(":")[0] for fault in faults(environ)] == ["LOG_LEVEL", "HTTP_PORT"]
    del environ["HTTP_PORT"], environ["LOG_LEVEL"]
    assert [fault.partition(":")[0] for fault in faults(environ)] == ["KAFKA_SASL_MECHANISM", "BATCH_MAX_RECORDS"]


SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "me",
    "KAFKA_SASL_PASSWORD": "hunter2",
}
MSK = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "AWS_MSK_IAM", "AWS_REGION": "eu-west-1"}


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({**SASL, "KAFKA_SECURITY_PROTOCOL": "SSL"}, ["MECHANISM", "USERNAME", "PASSWORD"]),
        ({**SASL, "KAFKA_SASL_MECHANISM": ""}, ["MECHANISM"]),
        ({**SASL, "KAFKA_SASL_USERNAME": ""}, ["USERNAME"]),
        ({**SASL, "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_PASSWORD": ""}, ["PASSWORD"]),
        ({**SASL, **MSK}, ["USERNAME", "PASSWORD"]),
        ({**MSK, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, ["PROTOCOL"]),
        ({**MSK, "AWS_REGION": ""}, ["REGION"]),
        ({"KAFKA_SSL_CAFILE": __file__}, ["CAFILE"]),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/no/such"}, ["CAFILE"]),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/"}, ["CAFILE"]),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTFILE": __file__}, ["KEYFILE"]),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEYFILE": __file__}, ["CERTFILE"]),
    ],
)
def test_contradictions_about_kafka_are_refused(environ: Mapping[str, str], named: list[str]) -> None:
    found = faults(environ)
    assert [fault.partition(":")[0].rpartition("_")[2] for fault in found] == named
    assert all("; allowed: " in fault for fault in found)


@pytest.mark.parametrize("environ", [SASL, MSK, {**SASL, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}])
def test_whole_sasl_settings_are_taken(environ: Mapping[str, str]) -> None:
    assert load(ServiceSettings, environ).kafka_sasl_mechanism == environ["KAFKA_SASL_MECHANISM"]


def test_an_alias_counts_where_the_first_name_is_empty() -> None:
    assert load(ServiceSettings, {"AWS_REGION": "", "AWS_DEFAULT_REGION": "b"}).aws_region == "b"
    assert load(ServiceSettings, {"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}).aws_region == "a"


def test_a_misspelt_variable_is_warned_of_with_the_nearest_name_and_without_its_value() -> None:
    settings = load(ServiceSettings, {"KAFKA_SASL_PASSWRD": "hunter2", "API_KEI": "hunter3", "S3_ZZZZZZZZ": "1"})
    assert settings.warnings == (
        "API_KEI: no such setting, ignored; did you mean API_KEY?",
        "KAFKA_SASL_PASSWRD: no such setting, ignored; did you mean KAFKA_SASL_PASSWORD?",
        "S3_ZZZZZZZZ: no such setting, ignored",
    )


@pytest.mark.parametrize("environ", [dict.fromkeys(VARIABLES, ""), {"HTTP_PROXY": "x", "PATH": "y", "API_KEI": ""}])
def test_nothing_else_is_warned_of(environ: Mapping[str, str]) -> None:
    assert load(ServiceSettings, environ).warnings == ()


def test_neither_service_warns_of_the_others_variables() -> None:
    other = dict.fromkeys((*PRODUCER_VARIABLES, *CONSUMER_VARIABLES), "1")
    assert load(ServiceSettings, other).warnings == ()


def test_every_variable_of_ours_begins_like_ours() -> None:
    assert [name for name in VARIABLES if not name.startswith((*OUR_PREFIXES, "AWS_"))] == []
    assert len(set(VARIABLES)) == len(VARIABLES)


def test_the_list_of_shared_variables_is_what_the_shared_settings_read() -> None:
    read = [name for field in ServiceSettings.model_fields.items() for name in variables_of(*field)]
    assert sorted(read) == sorted(SHARED_VARIABLES)


def test_the_effective_settings_name_every_variable_and_no_secret() -> None:
    environ = {**SASL, "API_URL": "http://user:hunter3@host?key=hunter4", "API_KEY": "hunter5"}
    shown = effective(load(Sample, environ))
    assert shown["API_URL"] == "http://host"
    assert shown["API_KEY"] == shown["KAFKA_SASL_PASSWORD"] == MASK
    assert shown["KAFKA_SASL_USERNAME"] == "me"
    assert shown["BATCH_MAX_RECORDS"] == 5
    assert shown["S3_PREFIX"] is None
    assert shown["AWS_REGION"] is None
    assert "hunter" not in repr(shown)


secrets = st.text(st.characters(exclude_categories=["Cc"]), min_size=6).map("hunter{}".format)


@given(secret=secrets, faulty=st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(["", "x", "0", "-1", "?"])))
def test_no_fault_and_no_warning_contains_a_secret(secret: str, faulty: dict[str, str]) -> None:
    environ = {
        **faulty,
        "API_URL": f"http://user:{secret}@host/path/too/long?key={secret}",
        "API_KEY": secret,
        "KAFKA_SASL_PASSWORD": secret,
        "KAFKA_SASL_PASWORD": secret,
    }
    with pytest.raises(SettingsError) as caught:
        load(Sample, environ)
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text()))
def test_whatever_is_set_either_loads_or_is_told_one_line_each(environ: dict[str, str]) -> None:
    try:
        settings = load(Sample, environ)
    except SettingsError as error:
        assert error.faults  # noqa: PT017 -- either outcome is right
        for fault in error.faults:
            variable, _, rest = fault.partition(": ")
            assert variable in VARIABLES
            assert "; allowed: " in rest
            assert "\n" not in fault
    else:
        assert settings.batch_max_records >= 1
        assert 0 < settings.shutdown_timeout_seconds < float("inf")


@given(st.integers())
def test_a_count_is_any_whole_number_within_its_bounds(number: int) -> None:
    if 1 <= number <= 10**15 and number != 13:
        assert load(Sample, {**GOOD, "BATCH_MAX_RECORDS": str(number)}).batch_max_records == number
    else:
        assert len(faults({"BATCH_MAX_RECORDS": str(number)})) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host:8443/a/b?apikey=1#frag", "https://host:8443/a/b"),
        ("https://user:p@w@host/", "https://host/"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://[broken", MASK),
        ("key-without-url", MASK),
        ("https:///pw", MASK),
        ("https://user:p/w@host/", f"https://{MASK}"),
        ("https://user:1?w@host/", f"https://{MASK}"),
        ("https://user:1#w@host/", f"https://{MASK}"),
        ("https://user:p@a/w@host/", f"https://{MASK}"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_value_that_is_not_utf8_is_a_fault_not_a_crash() -> None:
    (fault,) = faults({"HTTP_HOST": "\udcff"})
    assert fault == "HTTP_HOST: '\\udcff' is not allowed; allowed: text"


def test_a_secret_that_is_not_utf8_is_a_fault_beside_the_others() -> None:
    environ = {"API_URL": "", "KAFKA_SASL_PASSWORD": "hunter2\udcff", "HTTP_PORT": "x"}
    assert [fault.partition(":")[0] for fault in faults(environ)] == ["KAFKA_SASL_PASSWORD", "HTTP_PORT", "API_URL"]
    assert "hunter2" not in "".join(faults(environ))


def test_a_very_long_value_is_cut(tmp_path: Path) -> None:
    environ = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(tmp_path / ("x" * 3000))}
    (fault,) = faults(environ)
    assert len(fault) < 400
