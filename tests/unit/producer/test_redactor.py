from __future__ import annotations

import base64
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


def test_an_excerpt_is_one_printable_line() -> None:
    assert Redactor([]).excerpt(b"a\nb\x1b[31m\xffc") == "a�b�[31m�c"
