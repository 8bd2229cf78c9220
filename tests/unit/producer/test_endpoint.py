from __future__ import annotations

import pytest

from producer.endpoint import build_endpoint, check_key, parse_auth, split_url
from producer.redactor import Redactor


def endpoint(url: str, auth: str = "bearer", key: str | None = "KEY") -> tuple[str, str, dict[str, str]]:
    built = build_endpoint(split_url(url), parse_auth(auth), key)
    ours = {
        name: value for name, value in built.headers.items() if name not in {"accept", "accept-encoding", "user-agent"}
    }
    return built.source, built.url, ours


def test_the_three_ways_to_send_a_key() -> None:
    url = "https://api.example:8443/v2/x?limit=5"
    source = "https://api.example:8443/v2/x"
    assert endpoint(url) == (source, url, {"authorization": "Bearer KEY"})
    assert endpoint(url, "header:X-Api-Key") == (source, url, {"x-api-key": "KEY"})
    assert endpoint(url, "query:apiKey", "K/E Y") == (source, url + "&apiKey=K%2FE%20Y", {})
    assert endpoint("https://api.example", "query:k") == ("https://api.example/", "https://api.example/?k=KEY", {})
    assert endpoint(url, "bearer", None) == (source, url, {})


def test_user_info_becomes_a_header_and_leaves_the_url() -> None:
    source, url, headers = endpoint("https://me:p%40ss@api.example/x#part", key=None)
    assert (source, url) == ("https://api.example/x", "https://api.example/x")
    assert headers == {"authorization": "Basic bWU6cEBzcw=="}


def test_no_secret_shows_in_a_repr() -> None:
    built = build_endpoint(split_url("https://me:pass-word@h/x?token=abcdef"), parse_auth("query:k"), "the-key")
    assert not any(secret in repr(built) for secret in ("pass-word", "abcdef", "the-key"))
    assert {"pass-word", "abcdef", "the-key", "token=abcdef"} <= set(built.secrets)


def test_only_gzip_is_offered() -> None:
    assert build_endpoint(split_url("http://h/"), parse_auth("none"), None).headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "text", ["", "Bearer", "query:", "query", "header:", "header:a b", "header:Host", "none:x", "basic"]
)
def test_an_unknown_way_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|own"):
        parse_auth(text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example/x",
        "ftp://h/",
        "http://",
        "http:///x",
        "http://h:0/",
        "http://h:99999/",
        "http://h:x/",
        "http://h/a b",
        "http://h/é",
        "http://[::1/",
    ],
)
def test_what_is_no_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="allowed: http://HOST") as caught:
        split_url(url)
    assert len(url) < 8 or url not in str(caught.value)


@pytest.mark.parametrize("key", ["a\r\nX: y", "é", " secret", "a\x00"])
def test_a_key_that_no_header_can_carry_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        check_key(key, parse_auth("bearer"))
    assert key not in str(caught.value)
    check_key(key, parse_auth("query:k"))


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("https://api.example/v3/x?cursor=abc", "https://api.example/v3/x?cursor=abc"),
        ("/v3/x?cursor=abc#part", "https://api.example/v3/x?cursor=abc"),
        ("?cursor=abc", "https://api.example/v2/quotes?cursor=abc"),
        ("other", "https://api.example/v2/other"),
        ("http://api.example/v3/x", "https://api.example/v3/x"),  # a server behind a TLS proxy
        ("https://me:pw@API.example/v3/x", "https://api.example/v3/x"),
        (" /v3/x?q=a b\r\nX: y ", "https://api.example/v3/x?q=a%20b%0D%0AX:%20y"),
        ("/v3/x?q=\u20ac%20", "https://api.example/v3/x?q=%E2%82%AC%20"),
    ],
)
def test_a_link_leads_to_a_page_of_the_same_host(link: str, url: str) -> None:
    first = build_endpoint(split_url("https://api.example/v2/quotes?limit=5"), parse_auth("bearer"), "KEY")
    page = first.page(link)
    assert page.url == url
    assert (page.source, page.headers, page.secrets) == (first.source, first.headers, first.secrets)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("https://evil.example/v2?k=SECRET", "leads to https://evil.example, which is not asked"),
        ("//evil.example/x", "leads to https://evil.example, which is not asked"),
        ("https://api.example:444/x", "leads to https://api.example:444, which is not asked"),
        ("https://api.example@evil.example/", "leads to https://evil.example, which is not asked"),
        ("https://api.example\\@evil.example/", "leads to"),
        ("ftp://api.example/x", "leads to ftp://api.example, which is not asked"),
        ("javascript:alert(1)", "leads to javascript://, which is not asked"),
        ("https://[api/x", "is no URL"),
        ("https://api.example:port/x", "is no URL"),
        ("/x?" + "c" * 20_000, "is longer than 16384 characters"),
    ],
)
def test_a_link_to_anywhere_else_is_refused_and_its_query_is_not_quoted(link: str, said: str) -> None:
    first = build_endpoint(split_url("https://api.example/v2/quotes"), parse_auth("bearer"), "KEY")
    with pytest.raises(ValueError, match=r".") as caught:
        first.page(link)
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_port_of_the_endpoint_is_kept_for_its_pages() -> None:
    first = build_endpoint(split_url("http://h:8080/x"), parse_auth("none"), None)
    assert first.page("http://h:8080/y").url == "http://h:8080/y"
    assert first.page("/y").url == "http://h:8080/y"
    assert first.page("http://h/y").url == "http://h:8080/y"
    plain = build_endpoint(split_url("https://h/x"), parse_auth("none"), None)
    assert plain.page("https://h:443/y").url == "https://h/y"
    with pytest.raises(ValueError, match=r"leads to https://\[::1\]:444, which"):
        plain.page("https://[::1]:444/y")


def test_a_key_in_the_query_goes_to_every_page_once() -> None:
    first = build_endpoint(split_url("http://h/x?limit=2"), parse_auth("query:api key"), "K/1")
    assert first.url == "http://h/x?limit=2&api%20key=K%2F1"
    second = first.page("/x?cursor=a")
    assert second.url == "http://h/x?cursor=a&api%20key=K%2F1"
    assert second.page("/x?api+key=REDACTED&cursor=b").url == "http://h/x?cursor=b&api%20key=K%2F1"
    assert "K" not in repr(second)


def test_user_info_without_a_password_is_a_secret_in_the_spelling_of_its_header_too() -> None:
    for user_info in ("TOKENxy", "TOKENxy:", ":TOKENxy"):
        built = build_endpoint(split_url(f"https://{user_info}@h/"), parse_auth("bearer"), None)
        header = built.headers["authorization"].removeprefix("Basic ")
        assert "TOKENxy" not in Redactor(built.secrets).mask("TOKENxy")
        assert Redactor(built.secrets).mask(header) == "***"
