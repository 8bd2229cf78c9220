from __future__ import annotations

import pytest

from producer.endpoint import Endpoint, build_endpoint, parse_auth, split_url
from producer.pages import MAX_PAGES, Pages, next_link, next_page
from producer.parser import BodyError, Parsed, SetAside
from producer.pointer import parse_pointer


def endpoint(path: str = "/x") -> Endpoint:
    return build_endpoint(split_url(f"http://h{path}"), parse_auth("bearer"), "KEY")


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"next_url":"http://h/x?c=1"}', "http://h/x?c=1"),
        (b'{"next_url":"http:\\/\\/h\\/x?c=\\u0031"}', "http://h/x?c=1"),
        (b'{"next_url":""}', None),
        (b'{"next_url":null}', None),
        (b'{"next":"http://h/y"}', None),
        (b"[1,2]", None),
    ],
)
def test_the_link_to_the_next_page_is_the_text_at_the_pointer(body: bytes, link: str | None) -> None:
    assert next_link(body, parse_pointer("/next_url")) == link


@pytest.mark.parametrize("value", [b"1", b"true", b"{}", b'["http://h/x"]'])
def test_something_else_at_the_pointer_is_a_fault(value: bytes) -> None:
    with pytest.raises(BodyError, match=r"/next_url.*is no text"):
        next_link(b'{"next_url":' + value + b"}", parse_pointer("/next_url"))


def test_a_link_is_found_beside_a_record_that_no_decoder_follows() -> None:
    body = b'{"results":[{"a":1},{"d":' + b"[" * 100_000 + b"]" * 100_000 + b'}],"next_url":"/x"}'
    assert next_link(body, parse_pointer("/next_url")) == "/x"


@pytest.mark.parametrize("link", ["http://evil/x", "\ud800"])
def test_a_link_to_another_host_or_to_nowhere_is_a_fault(link: str) -> None:
    with pytest.raises(
        BodyError, match=r"the link to the next page (leads to http://evil, which is not asked|is no URL)"
    ):
        next_page(endpoint(), link)


def page(count: int, *, aside: int = 0, found: bool = True) -> Parsed:
    return Parsed(
        records=[b"{}"] * count,
        set_aside=[SetAside(index=n, reason="not_an_object", first_bytes=b"1") for n in range(aside)],
        found=found,
    )


def test_pages_add_up_and_what_is_set_aside_is_numbered_through_all_of_them() -> None:
    pages = Pages(max_records=10)
    pages.add(page(3, aside=1), 100)
    pages.add(page(2, aside=2, found=False), 50)
    assert (len(pages.records), pages.taken_bytes, pages.found) == (5, 150, True)
    assert [each.index for each in pages.set_aside] == [0, 4, 5]


def test_the_cap_on_records_holds_for_all_pages_together() -> None:
    pages = Pages(max_records=4)
    pages.add(page(3, aside=1), 100)
    with pytest.raises(BodyError, match=r"API_MAX_RECORDS \(4\)"):
        pages.add(page(1), 100)


def test_no_poll_goes_in_circles() -> None:
    pages = Pages(max_records=4)
    pages.asking(endpoint("/x"))
    pages.asking(endpoint("/x?c=1"))
    assert pages.number == 2
    with pytest.raises(BodyError, match="asked already"):
        pages.asking(endpoint("/x"))


def test_no_poll_goes_on_for_ever() -> None:
    pages = Pages(max_records=4)
    for number in range(MAX_PAGES):
        pages.asking(endpoint(f"/{number}"))
    with pytest.raises(BodyError, match=f"more than {MAX_PAGES} pages"):
        pages.asking(endpoint("/one-more"))
