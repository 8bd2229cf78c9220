from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from producer.redactor import Redactor

SECRET = "s3cr+t/Ke y?&"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        SECRET.upper(),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        html.escape(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_masked_in_every_spelling(spelling: str) -> None:
    assert Redactor([SECRET]).mask(f"before {spelling} after") == "before *** after"


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    assert Redactor(["abc", "abcdef"]).mask("abcdef abc") == "*** ***"


def test_nothing_secret_masks_nothing() -> None:
    assert Redactor(["", ""]).mask("text") == "text"


@pytest.mark.parametrize("offset", range(180, 205))
def test_no_part_of_a_secret_is_left_at_the_edge_of_an_excerpt(offset: int) -> None:
    secret = "QWERTZUIOPASDFGHJKL"
    excerpt = Redactor([secret]).excerpt(b"x" * offset + secret.encode() + b"x" * 500)
    assert len(excerpt) <= 200
    assert not set(excerpt) & set(secret)


@pytest.mark.parametrize("length", range(1, 80))
def test_no_half_of_a_secret_is_left_where_the_content_was_cut(length: int) -> None:
    secret = "QWERTZ/UIOPASDFGHJKL\N{LATIN SMALL LETTER E WITH ACUTE}QWERTZ"
    for spelling in (secret, secret.lower(), quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]):
        content = b"unknown key: " + spelling.encode()[:length]
        told = Redactor([secret]).excerpt(content).removeprefix("unknown key: ")
        if length <= 3:
            assert told == spelling[:length]
        else:
            assert told == "***"


def test_what_only_resembles_a_secret_is_left() -> None:
    redactor = Redactor(["QWERTZ"])
    assert redactor.excerpt(b"QWERTx") == "QWERTx"
    assert redactor.excerpt(b"QWERT.") == "QWERT."
    assert redactor.excerpt(b"see QWE") == "see QWE"


def test_a_content_full_of_the_secret_shows_none_of_it() -> None:
    for length in (26, 27, 1000):
        secret = ("CANARY-Key-5e1f-0123456789" * 50)[:length]
        assert set(Redactor([secret]).excerpt((secret + " ").encode() * 2000)) <= set("* …")


def test_an_excerpt_is_one_printable_line() -> None:
    assert Redactor([]).excerpt(b"a\nb\x1b[31m\xffc") == "a�b�[31m�c"
