from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.pointer import parse_pointer

# RFC 6901 §5
DOCUMENT = (
    rb'{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,'
    rb'"o":{"p":[{"q":null}]}}'
)


def find(text: str, document: bytes = DOCUMENT) -> bytes | None:
    found = parse_pointer(text).find(msgspec.Raw(document))
    return None if found is None else bytes(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DOCUMENT),
        ("/foo", b'["bar","baz"]'),
        ("/foo/0", b'"bar"'),
        ("/", b"0"),
        ("/a~1b", b"1"),
        ("/c%d", b"2"),
        ("/e^f", b"3"),
        ("/g|h", b"4"),
        ("/i\\j", b"5"),
        ('/k"l', b"6"),
        ("/ ", b"7"),
        ("/m~0n", b"8"),
        ("/o/p/0/q", b"null"),
    ],
)
def test_the_examples_of_rfc_6901_are_found(text: str, expected: bytes) -> None:
    assert find(text) == expected


@pytest.mark.parametrize(
    "text", ["/nope", "/foo/2", "/foo/-", "/foo/01", "/foo/x", "/a~1b/c", "/o/p/0/q/r", "/foo/0/0"]
)
def test_a_path_that_leads_nowhere_is_none(text: str) -> None:
    assert find(text) is None


@pytest.mark.parametrize("text", ["foo", "#/foo", "/a~", "/a~2b"])
def test_text_that_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON pointer"):
        parse_pointer(text)


def test_of_duplicate_names_the_last_counts() -> None:
    assert find("/a", b'{"a":1,"a":2}') == b"2"


def test_an_escaped_tilde_does_not_begin_an_escape() -> None:
    assert find("/a~01", b'{"a/":1,"a~1":2}') == b"2"


names = st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=8)


@given(path=st.lists(names, min_size=1, max_size=4), value=st.integers() | st.text(alphabet="aé€", max_size=5))
def test_every_member_is_found_under_its_escaped_name_byte_for_byte(path: list[str], value: int | str) -> None:
    document: object = value
    for name in reversed(path):
        document = {name: document, name + "x": 1}
    text = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)
    body = json.dumps(document, ensure_ascii=False).encode()
    assert find(text, body) == json.dumps(value, ensure_ascii=False).encode()
