"""The file of `API_ENDPOINTS`: what is read, what is refused with which line, and that no line shows a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootstrap import ROOT
from producer.endpoint_settings import EndpointTable
from producer.selection import Select
from producer.settings import Settings
from shared.settings import SettingsError, effective, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from producer.plan import Plan

CANARY = "CANARY-8f3a1c"
KEYS = {"VENDOR_KEY": CANARY}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.toml"


def loaded(path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    path.write_text(text)
    return load(Settings, {"API_ENDPOINTS": str(path), **KEYS, **(environ or {})})


def faults(path: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """The fault lines without what is the same in each; every one says what to do, none shows the canary."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"API_ENDPOINTS": str(path), **KEYS, **(environ or {})})
    for fault in caught.value.faults:
        assert "\n" not in fault
        assert CANARY not in fault
        assert re.search(
            r"; (allowed: |did you mean |unset one |remove one )|needs key_variable, which is not set$", fault
        )
    return [fault.replace("API_ENDPOINTS: ", "").replace(f" of {str(path)!r}", "") for fault in caught.value.faults]


def table(name: str = "quotes", url: str = "http://h/q", **members: str) -> str:
    """One table; the members' values as TOML."""
    lines = [f'name = "{name}"', f'url = "{url}"', *(f"{member} = {value}" for member, value in members.items())]
    return "\n".join(["[[endpoint]]", *lines, ""])


# ---- what is read


def test_every_member_of_a_table_arrives(path: Path) -> None:
    text = table(
        name="a-1_b",
        url="https://api.example:8443/v2?x=1",
        auth='"Header:X-Key"',
        key_variable='"VENDOR_KEY"',
        records_pointer='"/results"',
        next_pointer='"/next_url"',
        key_pointer='"/T"',
        interval_seconds="0.5",
        timeout_seconds="30",
        max_body_bytes="1_000",
        max_records="7",
        select='"Changed"',
        topic='"bars"',
        rate_limit_per_minute="5",
    )
    assert set(re.findall(r"^(\w+) =", text, re.MULTILINE)) == set(EndpointTable.model_fields)
    (endpoint,) = loaded(path, text).endpoints
    assert endpoint.name == "a-1_b"
    assert endpoint.endpoint.url == "https://api.example:8443/v2?x=1"
    assert endpoint.endpoint.source == "https://api.example:8443/v2"
    assert endpoint.endpoint.headers["x-key"] == CANARY
    assert endpoint.records_pointer.text == "/results"
    assert endpoint.next_pointer is not None
    assert endpoint.next_pointer.text == "/next_url"
    assert endpoint.key_pointer is not None
    assert endpoint.key_pointer.text == "/T"
    assert (endpoint.interval_seconds, endpoint.timeout_seconds) == (0.5, 30.0)
    assert (endpoint.max_body_bytes, endpoint.max_records, endpoint.rate_limit_per_minute) == (1000, 7, 5)
    assert (endpoint.select, endpoint.topic) == (Select.CHANGED, "bars")


def shown(endpoint: Plan) -> tuple[object, ...]:
    pointers = (endpoint.records_pointer, endpoint.next_pointer, endpoint.key_pointer)
    return (
        *(None if pointer is None else pointer.text for pointer in pointers),
        endpoint.interval_seconds,
        endpoint.timeout_seconds,
        endpoint.max_body_bytes,
        endpoint.max_records,
        endpoint.select,
        endpoint.topic,
        endpoint.rate_limit_per_minute,
    )


def test_a_member_not_given_has_the_value_of_the_general_variable(path: Path) -> None:
    general = {
        "RECORD_KEY_POINTER": "/T",
        "POLL_INTERVAL_SECONDS": "7",
        "API_TIMEOUT_SECONDS": "8",
        "API_MAX_BODY_BYTES": "9",
        "API_MAX_RECORDS": "10",
        "SELECT": "all",
        "KAFKA_TOPIC": "ticks",
    }
    (endpoint,) = loaded(path, table(), general).endpoints
    assert shown(endpoint) == ("", None, "/T", 7.0, 8.0, 9, 10, Select.ALL, "ticks", None)
    (endpoint,) = loaded(path, table()).endpoints
    assert shown(endpoint) == ("", None, "/symbol", 2.0, 10.0, 67_108_864, 100_000, Select.RANDOM, "task", None)


def test_the_short_form_is_one_endpoint_named_api() -> None:
    short = load(Settings, {"API_URL": "http://h", "API_NEXT_POINTER": "/next", "API_RATE_LIMIT_PER_MINUTE": "5"})
    (endpoint,) = short.endpoints
    assert endpoint.name == "api"
    assert shown(endpoint) == ("", "/next", "/symbol", 2.0, 10.0, 67_108_864, 100_000, Select.RANDOM, "task", 5)
    assert short.api_endpoints is None


def test_an_empty_text_is_a_member_not_given(path: Path) -> None:
    words = [
        member
        for member, field in EndpointTable.model_fields.items()
        if "str" in str(field.annotation) and not field.is_required()
    ]
    assert {"auth", "key_variable", "next_pointer", "select", "topic"} <= set(words)
    empty = loaded(path, table(**dict.fromkeys(words, '""'))).endpoints
    plain = loaded(path, table()).endpoints
    assert shown(empty[0]) == shown(plain[0])
    assert empty[0].endpoint == plain[0].endpoint
    (fault,) = faults(path, table(url=""))
    assert fault.startswith("endpoint 'quotes': url: not set; allowed: http://HOST[:PORT]/PATH[?QUERY] or https://…")


def test_endpoints_are_in_the_order_of_the_file_and_topics_are_told_once(path: Path) -> None:
    text = table("b", topic='"x"') + table("a") + table("c", topic='"x"') + table("d", topic='"y"')
    read = loaded(path, text)
    assert [endpoint.name for endpoint in read.endpoints] == ["b", "a", "c", "d"]
    assert read.topics == ("x", "task", "y")


def test_the_same_api_may_be_polled_twice(path: Path) -> None:
    assert len(loaded(path, table("a") + table("b")).endpoints) == 2


def test_a_byte_order_mark_and_windows_line_ends_are_borne(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + table().replace("\n", "\r\n").encode())
    assert len(load(Settings, {"API_ENDPOINTS": str(path)}).endpoints) == 1


def test_each_key_goes_with_its_own_endpoint(path: Path) -> None:
    text = table("a", key_variable='"A_KEY"') + table("b", key_variable='"B_KEY"', auth='"query:k"') + table("c")
    read = loaded(path, text, {"A_KEY": "key-of-a", "B_KEY": "key-of-b"})
    a, b, c = (repr(dict(e.endpoint.headers)) + e.endpoint.url for e in read.endpoints)
    assert ("key-of-a" in a, "key-of-b" in a) == (True, False)
    assert ("key-of-a" in b, "key-of-b" in b) == (False, True)
    assert "key-of" not in c


# ---- members that are refused

_SECONDS = "a number of seconds above 0, at most 31536000"
_COUNT = "a whole number from 1 to 10^15"
BAD = [
    ("name", '"Quotes"', "endpoint 1: name: 'Quotes' is not allowed; allowed: 1 to 40 of a-z, 0-9, '_' and '-', the"),
    ("name", f'"{"x" * 41}"', "endpoint 1: name: 'xxx"),
    ("name", '"-a"', "endpoint 1: name: '-a' is not allowed"),
    ("name", '"a\\n"', "endpoint 1: name: 'a\\n' is not allowed"),
    ("name", "5", "endpoint 1: name: the number 5 is not allowed"),
    ("url", f'"ftp://me:{CANARY}@h/?k={CANARY}"', "url: 'ftp://h/' is not allowed; allowed: http://HOST[:PORT]/PATH"),
    ("url", f'"http://h/a b?k={CANARY}"', "url: 'http://h/a b' is not allowed; allowed: http://HOST"),
    ("url", f'"{CANARY}"', "url: '********' is not allowed; allowed: http://HOST"),
    ("url", f'["{CANARY}"]', "url: an array is not allowed; allowed: http://HOST"),
    ("auth", '"basic"', "auth: 'basic' is not allowed; allowed: bearer, query:NAME, header:NAME, none"),
    ("auth", '"header:Host"', "auth: 'header:Host' is not allowed; allowed: bearer, query:NAME"),
    ("auth", f'"query:apiKey={CANARY}"', "auth: 'query:********' is not allowed; allowed: bearer, query:NAME"),
    ("auth", f'"Bearer {CANARY}"', "auth: '********' is not allowed; allowed: bearer, query:NAME"),
    ("auth", f'{{ bearer = "{CANARY}" }}', "auth: a table is not allowed; allowed: bearer, query:NAME"),
    ("key_variable", f'"{CANARY}"', "key_variable: '********' is not allowed; allowed: the name of the environment"),
    ("key_variable", '"vendor_key"', "key_variable: '********' is not allowed; allowed: the name of the environment"),
    ("key_variable", '"API_KEY"', "key_variable: 'API_KEY' is not allowed; allowed: the name of the environment varia"),
    (
        "key_variable",
        "12345678",
        "key_variable: a number is not allowed; allowed: the name of the environment variable",
    ),
    (
        "key_variable",
        '"NO_SUCH_KEY"',
        "key_variable: the variable NO_SUCH_KEY is not set; allowed: the name of one that",
    ),
    ("key_variable", '"Q7RTX2AB99"', "key_variable: the variable ******** is not set; allowed: the name of one that"),
    (
        "records_pointer",
        '"tickers"',
        "records_pointer: 'tickers' is not allowed; allowed: unset for the root, or a JSON",
    ),
    ("records_pointer", "0", "records_pointer: the number 0 is not allowed; allowed: unset for the root, or a JSON"),
    (
        "next_pointer",
        '"next_url"',
        "next_pointer: 'next_url' is not allowed; allowed: unset for no further pages, or a",
    ),
    ("key_pointer", '"/a~"', "key_pointer: '/a~' is not allowed; allowed: none for no keys, or a JSON pointer"),
    ("interval_seconds", '"2"', f"interval_seconds: the text '2' is not allowed; allowed: {_SECONDS}"),
    ("interval_seconds", "0", f"interval_seconds: the number 0 is not allowed; allowed: {_SECONDS}"),
    ("interval_seconds", "true", f"interval_seconds: true is not allowed; allowed: {_SECONDS}"),
    ("interval_seconds", "inf", f"interval_seconds: the number inf is not allowed; allowed: {_SECONDS}"),
    ("timeout_seconds", "nan", f"timeout_seconds: the number nan is not allowed; allowed: {_SECONDS}"),
    ("timeout_seconds", "-1.5", f"timeout_seconds: the number -1.5 is not allowed; allowed: {_SECONDS}"),
    ("timeout_seconds", "10:00:00", f"timeout_seconds: a date or time is not allowed; allowed: {_SECONDS}"),
    ("max_body_bytes", "1.0", f"max_body_bytes: the number 1.0 is not allowed; allowed: {_COUNT} (bytes)"),
    ("max_body_bytes", f"0x{'f' * 9000}", f"max_body_bytes: a huge number is not allowed; allowed: {_COUNT} (bytes)"),
    ("max_records", "false", f"max_records: false is not allowed; allowed: {_COUNT}"),
    ("max_records", '"100"', f"max_records: the text '100' is not allowed; allowed: {_COUNT}"),
    ("select", '"some"', "select: 'some' is not allowed; allowed: random, all, changed"),
    ("select", "true", "select: true is not allowed; allowed: random, all, changed"),
    (
        "topic",
        '"a b"',
        "topic: 'a b' is not allowed; allowed: a topic's name: letters, digits, '.', '_' and '-', at most",
    ),
    ("rate_limit_per_minute", "0", f"rate_limit_per_minute: the number 0 is not allowed; allowed: {_COUNT}"),
    ("rate_limit_per_minute", "2.5", f"rate_limit_per_minute: the number 2.5 is not allowed; allowed: {_COUNT}"),
]


def test_every_member_has_a_bad_value_above() -> None:
    assert {member for member, _, _ in BAD} == set(EndpointTable.model_fields)


@pytest.mark.parametrize(("member", "value", "said"), BAD, ids=[f"{member}={value[:30]}" for member, value, _ in BAD])
def test_a_bad_value_is_one_line_that_names_endpoint_member_and_what_is_allowed(
    path: Path, member: str, value: str, said: str
) -> None:
    members = {"name": '"quotes"', "url": '"http://h/"', member: value}
    (fault,) = faults(path, "[[endpoint]]\n" + "".join(f"{name} = {text}\n" for name, text in members.items()))
    assert fault.startswith(said if member == "name" else f"endpoint 'quotes': {said}")
    assert len(fault) < 500


@pytest.mark.parametrize(
    ("member", "variable", "value"),
    [
        ("url", "API_URL", "ftp://u:p@h/?q"),
        ("auth", "API_AUTH", "basic:x y"),
        ("records_pointer", "API_RECORDS_POINTER", "x"),
        ("next_pointer", "API_NEXT_POINTER", "x~"),
        ("key_pointer", "RECORD_KEY_POINTER", "x"),
        ("select", "SELECT", "none"),
        ("topic", "KAFKA_TOPIC", ".."),
    ],
)
def test_both_forms_refuse_the_same_in_the_same_words(path: Path, member: str, variable: str, value: str) -> None:
    members = {"url": "http://h/", member: value}
    written = "".join(f'{name} = "{text}"\n' for name, text in members.items())
    (in_file,) = faults(path, f'[[endpoint]]\nname = "quotes"\n{written}')
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"API_URL": "http://h/", variable: value})
    assert f"{variable}: {in_file.partition(f'{member}: ')[2]}" == caught.value.faults[0]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            f'key = "{CANARY}"',
            "key: keys never stand in the file; allowed: key_variable, the name of the variable that",
        ),
        (f'API_KEY = "{CANARY}"', "API_KEY: keys never stand in the file; allowed: key_variable, the name of the"),
        (f'token = "{CANARY}"', "token: keys never stand in the file; allowed: key_variable, the name of the variable"),
        (f'intervall_seconds = "{CANARY}"', "intervall_seconds: no such member; did you mean interval_seconds?"),
        ("rate_limit = 5", "rate_limit: no such member; did you mean rate_limit_per_minute?"),
        (f'"{CANARY[:1]} odd\\n" = "{CANARY}"', "'C odd\\n': no such member; allowed: name, url, auth, key_variable,"),
        (f'zzz.deep = "{CANARY}"', "zzz: no such member; allowed: name, url, auth, key_variable, records_pointer,"),
    ],
)
def test_an_unknown_member_is_refused_with_the_nearest_name_and_without_its_value(
    path: Path, written: str, said: str
) -> None:
    (fault,) = faults(path, table() + written)
    assert fault.startswith(f"endpoint 'quotes': {said}")


def test_every_fault_is_told_at_once_the_variables_too(path: Path) -> None:
    text = "x = 1\n" + table(select='"y"', topic='"z z"') + table("other", max_records="0", selekt="1")
    found = faults(path, text, {"API_MAX_RECORDS": "0", "LOG_LEVEL": "loud"})
    assert [fault.partition(" is ")[0] for fault in found] == [
        "LOG_LEVEL: 'loud'",
        "API_MAX_RECORDS: '0'",
        f"{str(path)!r}: x: no such member; allowed: endpoint",
        "endpoint 'quotes': select: 'y'",
        "endpoint 'quotes': topic: 'z z'",
        "endpoint 'other': max_records: the number 0",
        "endpoint 'other': selekt: no such member; did you mean select?",
    ]


def test_a_name_is_told_of_where_it_comes_the_second_time(path: Path) -> None:
    assert faults(path, table("a") + table("b") + table("a", select='"x"')) == [
        "endpoint 3: select: 'x' is not allowed; allowed: random, all, changed",
        "endpoint 3: name: 'a' is that of endpoint 1 already; allowed: a name of its own",
    ]


def test_an_endpoint_without_a_name_is_told_of_by_its_number(path: Path) -> None:
    assert faults(path, table() + '[[endpoint]]\nurl = "http://h/"\nselect = "x"\n') == [
        "endpoint 2: name: not set; allowed: 1 to 40 of a-z, 0-9, '_' and '-', the first a letter or a digit",
        "endpoint 2: select: 'x' is not allowed; allowed: random, all, changed",
    ]


# ---- the file as a whole

_FILE = "allowed: a TOML file of [[endpoint]] tables, see docs/endpoints.md"
_NO_TABLE = f"holds an endpoint that is not written as a table [[endpoint]]; {_FILE}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", f"holds no [[endpoint]]; {_FILE}"),
        (b"# nothing\n", f"holds no [[endpoint]]; {_FILE}"),
        (b"endpoint = []\n", f"holds no [[endpoint]]; {_FILE}"),
        (b"[[endpoints]]\nname = 'a'\n", f"holds no [[endpoint]], but endpoints; {_FILE}"),
        (b"[endpoint]\nname = 'a'\n", _NO_TABLE),
        (b"endpoint = [1]\n", _NO_TABLE),
        (f"endpoint = '{CANARY}'\n".encode(), _NO_TABLE),
        (f"[[endpoint]]\nkey = {CANARY}\n".encode(), f"is not TOML (line 2, column 7); {_FILE}"),
        (f"[[endpoint]]\n'{CANARY}' = 1\n'{CANARY}' = 2\n".encode(), f"is not TOML (line 3, column 20); {_FILE}"),
        (f"{CANARY}.a = 1\n[{CANARY}]\n[{CANARY}]\n".encode(), "is not TOML (line "),
        (f'[[endpoint]]\nkey = "{CANARY}'.encode(), f"is not TOML (end of document); {_FILE}"),
        (f"[[endpoint]]\n# {CANARY} \xe9\n".encode("latin-1"), f"is not UTF-8 (byte 29); {_FILE}"),
        (b"a = " + b"[" * 100_000, f"is nested too deeply; {_FILE}"),
        (b"a = " + b"9" * 5000, f"is not TOML (a number too long); {_FILE}"),
        (b"#" * (1024 * 1024 + 1), f"is larger than 1048576 bytes; {_FILE}"),
        (b'a = "\x00"', "is not TOML (line 1, column "),
    ],
    ids=range(16),
)
def test_a_file_that_cannot_be_used_is_one_line_that_quotes_nothing_of_it(
    path: Path, content: bytes, said: str
) -> None:
    (fault,) = faults(path, content)
    assert fault.startswith(f"{str(path)!r} {said}")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("no-such", "No such file or directory"),
        (".", "Is a directory"),
        ("a\0b", "no path"),
        ("f/x", "Not a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_the_reason(tmp_path: Path, where: str, reason: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"API_ENDPOINTS": f"{tmp_path}/{where}"})
    assert caught.value.faults == (f"API_ENDPOINTS: {f'{tmp_path}/{where}'!r} cannot be read ({reason}); {_FILE}",)


def test_a_file_without_the_right_to_read_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(
        SettingsError, match=r"^API_ENDPOINTS: 'x' cannot be read \(Permission denied\); allowed: a TOML"
    ):
        load(Settings, {"API_ENDPOINTS": "x"})


# ---- what contradicts each other

SET_BESIDE = {
    "API_URL": ("http://h/", "url"),
    "API_KEY": (CANARY, "key_variable"),
    "API_AUTH": ("bearer", "auth"),
    "API_RECORDS_POINTER": ("/x", "records_pointer"),
    "API_NEXT_POINTER": ("/x", "next_pointer"),
    "API_RATE_LIMIT_PER_MINUTE": ("5", "rate_limit_per_minute"),
}


@pytest.mark.parametrize("variable", SET_BESIDE)
def test_a_variable_of_one_api_beside_the_file_is_refused_and_names_the_member(path: Path, variable: str) -> None:
    value, member = SET_BESIDE[variable]
    said = f"set, but API_ENDPOINTS is too; allowed: one of them, in the file the member {member} stands for it"
    assert faults(path, table(), {variable: value}) == [f"{variable}: {said}"]
    assert loaded(path, table(), dict.fromkeys(SET_BESIDE, "")).endpoints


def test_without_either_form_the_line_names_both() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"LOG_LEVEL": "loud"})
    _, fault = caught.value.faults
    assert fault.startswith("API_URL: not set; allowed: http://HOST[:PORT]/PATH[?QUERY] or https://…")
    assert fault.endswith("; for several APIs set API_ENDPOINTS, a file, instead")


@pytest.mark.parametrize(
    ("members", "url", "said"),
    [
        ({"auth": '"query:k"'}, "http://h/", "auth: query:k needs key_variable, which is not set"),
        ({"auth": '"header:X-K"'}, "http://h/", "auth: header:X-K needs key_variable, which is not set"),
        (
            {"auth": '"none"', "key_variable": '"VENDOR_KEY"'},
            "http://h/",
            "auth: none sends no key, but key_variable is set; unset one of them",
        ),
        (
            {"key_variable": '"VENDOR_KEY"'},
            f"http://me:{CANARY}@h/",
            "url: its user info and key_variable would both be the Authorization header; remove one of them",
        ),
        (
            {"auth": '"query:k"', "key_variable": '"VENDOR_KEY"'},
            f"http://h/?k={CANARY}",
            "auth: the query of url has the parameter k already; remove one of them",
        ),
        (
            {"key_variable": '"WITH_NEWLINE"'},
            "http://h/",
            (
                "key_variable: '********' is not allowed with auth='bearer'; allowed: a key sent in a header has"
                " printable ASCII characters only and no spaces around it"
            ),
        ),
        (
            {"key_variable": '"NO_TEXT"', "auth": '"query:k"'},
            "http://h/",
            "key_variable: '********' in the variable NO_TEXT is not allowed; allowed: text in UTF-8",
        ),
        (
            {"key_variable": '"EMPTY_KEY"'},
            "http://h/",
            "key_variable: the variable EMPTY_KEY is not set; allowed: the name of one that holds the key",
        ),
    ],
)
def test_members_that_contradict_each_other_are_one_line_in_the_words_of_the_file(
    path: Path, members: dict[str, str], url: str, said: str
) -> None:
    environ = {"WITH_NEWLINE": CANARY + "\n", "NO_TEXT": CANARY + "\udcff", "EMPTY_KEY": ""}
    assert faults(path, table("other") + table("quotes", url, **members), environ) == [f"endpoint 'quotes': {said}"]


def test_contradictions_of_all_endpoints_are_told_at_once_and_after_the_rest(path: Path) -> None:
    text = table("a", auth='"query:k"') + table("b", auth='"header:K"')
    assert [fault[:12] for fault in faults(path, text)] == ["endpoint 'a'", "endpoint 'b'"]
    assert [fault[:12] for fault in faults(path, text + table("c", select='"x"'))] == ["endpoint 'c'"]


# ---- what is shown


SECRETIVE = (
    table("a", f"https://me:{CANARY}-1@a.example/x?token={CANARY}-2#f", auth='"query:k"', key_variable='"API_KEY_A"')
    + table("b", f"https://b.example/y?{CANARY}-3", auth='"header:X-K"', key_variable='"API_KEY_B"')
    + table("c", topic='"t"')
)
SECRETS = {
    "API_KEY_A": f"{CANARY}-4",
    "API_KEY_B": f"{CANARY}-5",
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "u",
    "KAFKA_SASL_PASSWORD": f"{CANARY}-6",
}


def test_the_secrets_are_those_of_every_endpoint_and_of_kafka(path: Path) -> None:
    read = loaded(path, SECRETIVE, SECRETS)
    assert {f"{CANARY}-{number}" for number in range(1, 7)} <= set(read.secrets)
    assert len(set(read.secrets)) == len(read.secrets)
    assert CANARY not in repr(read)
    assert CANARY not in repr(read.endpoints)


def test_the_start_up_line_shows_every_endpoint_whole_and_no_secret(path: Path) -> None:
    lines: dict[str, Any] = effective(loaded(path, SECRETIVE, {**SECRETS, "POLL_INTERVAL_SECONDS": "9"}))
    assert CANARY not in repr(lines)
    assert lines["API_ENDPOINTS"] == str(path)
    assert [endpoint["url"] for endpoint in lines["endpoints"]] == [
        "https://a.example/x",
        "https://b.example/y",
        "http://h/q",
    ]
    assert lines["endpoints"][1] == {
        "name": "b",
        "url": "https://b.example/y",
        "auth": "header:X-K",
        "key_variable": "API_KEY_B",
        "records_pointer": "",
        "next_pointer": None,
        "key_pointer": "/symbol",
        "interval_seconds": 9.0,
        "timeout_seconds": 10.0,
        "max_body_bytes": 67_108_864,
        "max_records": 100_000,
        "select": "random",
        "topic": "task",
        "rate_limit_per_minute": None,
    }
    assert "endpoints" not in effective(load(Settings, {"API_URL": "http://h/"}))


def test_a_variable_that_a_table_names_is_no_misspelling(path: Path) -> None:
    text = table(key_variable='"API_KEY_A"')
    read = loaded(path, text, {"API_KEY_A": "k", "API_KEY_B": "k"})
    assert read.warnings == ("API_KEY_B: no such setting, ignored; did you mean API_KEY?",)


def test_messages_call_a_member_by_where_its_value_comes_from(path: Path) -> None:
    (endpoint,) = loaded(path, table(select='"all"')).endpoints
    assert endpoint.setting("records_pointer") == "records_pointer of endpoint 'quotes'"
    assert endpoint.setting("select") == "select of endpoint 'quotes'"
    assert endpoint.setting("key_pointer") == "RECORD_KEY_POINTER"
    (endpoint,) = load(Settings, {"API_URL": "http://h/"}).endpoints
    assert endpoint.setting("records_pointer") == "API_RECORDS_POINTER"
    assert endpoint.setting("key_pointer") == "RECORD_KEY_POINTER"
    assert endpoint.setting("timeout_seconds") == "API_TIMEOUT_SECONDS"


# ---- whatever stands in it

_NAMES = st.sampled_from([*EndpointTable.model_fields, "key", "password", "keys", "Name"])
_VALUES = st.one_of(
    st.integers(-1, 70).map(str),
    st.sampled_from(["true", "inf", "0.5", "1e400", "1979-05-27", "07:32:00"]),
    st.sampled_from(["VENDOR_KEY", "all", "none", "http://h/", "bearer", "query:k", "/a", "task", "", "a b"]).map(repr),
    st.sampled_from(
        [f'"{CANARY}"', f"['{CANARY}']", f"{{ a = '{CANARY}' }}", f'"http://{CANARY}:{CANARY}@h/?{CANARY}"']
    ),
)
_TABLES = st.lists(st.dictionaries(_NAMES, _VALUES), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=_TABLES)
def test_whatever_the_tables_hold_they_load_or_are_told_in_lines_without_a_secret(
    path: Path, tables: list[dict[str, str]]
) -> None:
    text = "".join("[[endpoint]]\n" + "".join(f"{n} = {v}\n" for n, v in members.items()) for members in tables)
    path.write_text(text)
    try:
        read = load(Settings, {"API_ENDPOINTS": str(path), **KEYS})
    except SettingsError as error:
        assert (len(error.faults) > 0, error.__cause__) == (True, None)  # noqa: PT017 -- either outcome is right
        for fault in error.faults:
            assert fault.startswith("API_ENDPOINTS: ")
            # What is not taken for the place of a key is shown as it is when it stands there alone.
            if CANARY in fault:
                place = re.search(
                    r"^API_ENDPOINTS: endpoint \S+ of '[^']+': (\w+): (?:the text )?'[^']*' is not", fault
                )
                assert place is not None
                assert place[1] not in {"url", "auth", "key_variable"}
                assert place[1] in EndpointTable.model_fields
            assert "\n" not in fault
    else:
        assert len(read.endpoints) == len(tables) > 0
        assert all(endpoint.interval_seconds > 0 and endpoint.max_records > 0 for endpoint in read.endpoints)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text("[]{}=\"'.,#\\\n ae1\x00é", max_size=60).map(str.encode)))
def test_no_content_at_all_is_more_than_a_line_of_fault(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(Settings, {"API_ENDPOINTS": str(path)})
    assert all(fault.startswith("API_ENDPOINTS: ") and "\n" not in fault for fault in caught.value.faults)


# ---- what the documentation says

DOCUMENT = (ROOT / "docs" / "endpoints.md").read_text()


def test_the_file_of_the_documentation_is_understood(path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    read = loaded(path, block, {"MASSIVE_API_KEY": "k"})
    assert [endpoint.name for endpoint in read.endpoints] == ["snapshot", "dividends", "rates"]
    limits = [endpoint.rate_limit_per_minute for endpoint in read.endpoints if "k" in endpoint.endpoint.secrets]
    assert limits == [4, 1], "the free plan's 5 a minute, divided"


def test_the_documentation_lists_every_member() -> None:
    (rows,) = re.findall(r"^\| member \|.*\n\|---.*\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    listed = [name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert sorted(listed) == sorted(EndpointTable.model_fields)
