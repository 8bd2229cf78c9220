"""The way from page to page, with an API of the test's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from producer.collector import Collector, Harvest
from producer.fetcher import Ask, Fetched, FetchError
from producer.ledger import Record
from producer.memory import Memory
from producer.parser import ApiError, BodyError
from producer.pointer import parse_pointer
from producer.selection import Select
from tests.unit.producer.plans import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "http://h"


@dataclass(slots=True, kw_only=True)
class Site:
    """Pages by URL; an error instead of a body is raised. `asked` in order."""

    pages: dict[str, bytes | FetchError | None]
    etag: str = ""
    asked: list[Ask] = field(default_factory=list)

    async def fetch(self, ask: Ask, end: float) -> Fetched:
        self.asked.append(ask)
        body = self.pages[ask.endpoint.url.removeprefix(HOST)]
        if isinstance(body, FetchError):
            raise body
        unchanged = bool(self.etag) and ask.validators.get("if-none-match") == self.etag
        return Fetched(
            body=None if body is None or unchanged else bytearray(body),
            arrived_wall=float(len(self.asked)),
            arrived_monotonic=end,
            unchanged=unchanged,
            validators={"if-none-match": self.etag} if self.etag else {},
        )

    def unusable(self, error: BodyError) -> FetchError:
        return FetchError("api_error" if isinstance(error, ApiError) else "unusable", error.reason)


def collector(
    site: Site, select: Select = Select.ALL, *, next_pointer: str | None = "/next", most: int = 9
) -> Collector:
    pointers = {
        "records_pointer": parse_pointer("/results"),
        "next_pointer": None if next_pointer is None else parse_pointer(next_pointer),
    }
    memory = Memory(max_keys=100) if select is Select.CHANGED else None
    return Collector(
        plan(f"{HOST}/x", select=select, max_records=most, **pointers), site, memory, lambda count: count - 1
    )


def page(*symbols: str, link: str | None = None) -> bytes:
    return json.dumps({"results": [{"symbol": symbol} for symbol in symbols], "next": link}).encode()


def symbols(harvest: Harvest) -> list[str]:
    return [(record.key or b"").decode() for record in harvest.records]


NOTHING: Mapping[str, str] = {}


async def test_the_records_of_all_pages_are_one_poll_in_their_order() -> None:
    site = Site(pages={"/x": page("A", "B", link="/x?c=1"), "/x?c=1": page("C", link="?c=2"), "/x?c=2": page("D")})
    harvest = await collector(site).collect(NOTHING, 5.0)
    assert symbols(harvest) == ["A", "B", "C", "D"]
    assert next(record.value for record in harvest.records) == b'{"symbol": "A"}'
    assert harvest.arrived_wall == 3.0  # when the last of them came


async def test_each_page_may_fill_what_the_ones_before_left_of_the_cap() -> None:
    first = page("A", link="/x?c=1")
    site = Site(pages={"/x": first, "/x?c=1": page("B")})
    await collector(site).collect(NOTHING, 5.0)
    assert [ask.taken_bytes for ask in site.asked] == [0, len(first)]


async def test_one_of_all_pages_records_is_picked_at_random() -> None:
    site = Site(pages={"/x": page("A", "B", link="/x?c=1"), "/x?c=1": page("C")})
    assert symbols(await collector(site, Select.RANDOM).collect(NOTHING, 5.0)) == ["C"]


async def test_without_a_pointer_to_the_next_page_there_is_one() -> None:
    site = Site(pages={"/x": page("A", link="/x?c=1")})
    assert symbols(await collector(site, next_pointer=None).collect(NOTHING, 5.0)) == ["A"]


@pytest.mark.parametrize(
    ("second", "outcome", "reason"),
    [
        (FetchError("throttled", "HTTP 429", 7.0), "throttled", "page 2: HTTP 429"),
        (b'{"results":[{]}', "unusable", "page 2: not strict JSON"),
        (b'{"status":"ERROR","error":"cursor expired"}', "api_error", "page 2: the API answered with an error"),
        (page("C", link="/x"), "unusable", "page 2: the link to the next page leads to one that this poll has asked"),
        (page("C", link="http://evil/y"), "unusable", "page 2: the link to the next page leads to http://evil"),
        (page(*"CDEFGHIJ"), "unusable", "page 2: the pages hold more records than max_records (9)"),
    ],
)
async def test_a_page_that_fails_fails_the_poll_and_names_the_page(
    second: bytes | FetchError, outcome: str, reason: str
) -> None:
    site = Site(pages={"/x": page("A", "B", link="/x?c=1"), "/x?c=1": second})
    with pytest.raises(FetchError) as caught:
        await collector(site).collect(NOTHING, 5.0)
    assert caught.value.outcome == outcome
    assert caught.value.reason.startswith(reason)
    assert caught.value.wait_seconds == (7.0 if outcome == "throttled" else 0.0)


async def test_a_first_page_that_fails_says_nothing_of_pages() -> None:
    with pytest.raises(FetchError, match=r"^gone$"):
        await collector(Site(pages={"/x": FetchError("unreachable", "gone")})).collect(NOTHING, 5.0)


async def test_in_changed_mode_only_what_is_new_since_it_was_remembered_is_there() -> None:
    site = Site(pages={"/x": page("A", "B")})
    mine = collector(site, Select.CHANGED, next_pointer=None)
    first = await mine.collect(NOTHING, 5.0)
    assert symbols(first) == ["A", "B"]
    assert symbols(await mine.collect(NOTHING, 5.0)) == ["A", "B"]  # the first was never remembered
    assert mine._memory is not None
    assert first.changes is not None
    mine._memory.remember(first.changes)
    site.pages["/x"] = page("A", "B", "C")
    assert symbols(await mine.collect(NOTHING, 5.0)) == ["C"]


async def test_in_changed_mode_an_unchanged_answer_is_no_records_and_keeps_the_validators() -> None:
    site = Site(pages={"/x": page("A")}, etag='"v1"')
    mine = collector(site, Select.CHANGED, next_pointer=None)
    first = await mine.collect(NOTHING, 5.0)
    assert first.validators == {"if-none-match": '"v1"'}
    second = await mine.collect(first.validators, 5.0)
    assert (second.records, second.found, second.keyed) == ((), True, True)
    assert second.validators == {"if-none-match": '"v1"'}
    assert second.changes is None


@pytest.mark.parametrize("select", [Select.ALL, Select.RANDOM])
async def test_validators_are_for_changed_mode_only(select: Select) -> None:
    harvest = await collector(Site(pages={"/x": page("A")}, etag='"v1"'), select, next_pointer=None).collect(
        NOTHING, 5.0
    )
    assert harvest.validators == {}


async def test_validators_are_not_for_several_pages() -> None:
    harvest = await collector(Site(pages={"/x": page("A")}, etag='"v1"'), Select.CHANGED).collect(NOTHING, 5.0)
    assert harvest.validators == {}


async def test_no_content_is_no_records_and_no_oddity() -> None:
    harvest = await collector(Site(pages={"/x": None})).collect(NOTHING, 5.0)
    assert (list(harvest.records), harvest.found, harvest.keyed) == ([], True, True)


async def test_a_large_body_is_taken_apart_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.collector._INLINE_BYTES", 10)
    site = Site(pages={"/x": page("A", "B", link="/x?c=1"), "/x?c=1": page("C")})
    assert symbols(await collector(site).collect(NOTHING, 5.0)) == ["A", "B", "C"]


async def test_keyed_says_whether_any_record_of_the_poll_has_a_key() -> None:
    body = b'{"results":[{"symbol":"A"},{"a":1}]}'
    mine = collector(Site(pages={"/x": body}), Select.RANDOM, next_pointer=None)
    harvest = await mine.collect(NOTHING, 5.0)
    assert harvest.records == [Record(key=None, value=b'{"a":1}')]
    assert harvest.keyed
    harvest = await collector(Site(pages={"/x": b'{"results":[{"a":1}]}'}), next_pointer=None).collect(NOTHING, 5.0)
    assert not harvest.keyed
