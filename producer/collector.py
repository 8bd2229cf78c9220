"""One poll's records: the body, or the pages of it, fetched, taken apart and selected from.

Owns: the way from page to page, what runs beside the event loop. Does not own: the request (`fetcher`), where the next
page is (`pages`), what a body holds (`parser`), which records are new (`memory`), where they go (`poller`).

Invariant: a poll is used whole or fails whole. When a page fails, nothing of the pages before it is published: the next
poll asks for all of them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from producer.fetcher import Ask, Fetched, FetchError
from producer.ledger import Record
from producer.pages import Pages, next_link, next_page
from producer.parser import BodyError, parse, record_key
from producer.selection import Select, select
from producer.side_thread import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from producer.memory import Changes, Memory
    from producer.parser import Parsed, SetAside
    from producer.plan import Plan

_INLINE_BYTES = 256 * 1024  # taken apart within a millisecond or two: a thread would cost more than it saves

T = TypeVar("T")


class Source(Protocol):
    """Where bodies come from."""

    async def fetch(self, ask: Ask, end: float) -> Fetched:
        """An answer before `end` on the monotonic clock, or FetchError."""
        ...

    def unusable(self, error: BodyError) -> FetchError:
        """The fault of a body as the tick's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What a poll brought; `records` are to be published.

    `keyed`: at least one of all the poll's records has a key, or there are none; `found`: something was at the records
    pointer; `changes` is to be remembered once the records are handed over, `validators` to be sent with the next poll.
    """

    records: Sequence[Record] = ()
    arrived_wall: float
    arrived_monotonic: float
    keyed: bool = True
    found: bool = True
    set_aside: Sequence[SetAside] = ()
    changes: Changes | None = None
    validators: Mapping[str, str] = field(default_factory=dict)


class Collector:
    """Polls one endpoint. `memory` is there in the mode `changed` alone; `pick(n)` gives a number in 0…n-1."""

    def __init__(self, plan: Plan, source: Source, memory: Memory | None, pick: Callable[[int], int]) -> None:
        self._plan = plan
        self._source = source
        self._memory = memory
        self._pick = pick

    async def collect(self, validators: Mapping[str, str], end: float) -> Harvest:
        """The poll's records, before `end` on the monotonic clock. Raises FetchError."""
        pages = Pages(max_records=self._plan.max_records, called=self._plan.setting("max_records"))
        ask: Ask | None = Ask(endpoint=self._plan.endpoint, validators=validators)
        while ask is not None:
            try:
                pages.asking(ask.endpoint)
                fetched = await self._source.fetch(ask, end)
                if fetched.unchanged:
                    return _unchanged(fetched, validators)
                ask = await self._add(pages, ask, fetched.body)
                fetched = replace(fetched, body=None)  # it may be large, and the records are copies
            except BodyError as error:
                raise _of_page(pages.number, self._source.unusable(error)) from error
            except FetchError as error:
                if pages.number == 1:
                    raise
                raise _of_page(pages.number, error) from error
        return await _beside(lambda: self._harvest(pages, fetched), pages.taken_bytes)

    async def _add(self, pages: Pages, ask: Ask, body: bytearray | None) -> Ask | None:
        """Take the page apart; what to ask next."""
        plan = self._plan
        if body is None:
            pages.found = True  # by its status there was nothing to find
            return None

        def take_apart() -> tuple[Parsed, str | None]:
            parsed = parse(body, plan.records_pointer, plan.max_records, pages.called)
            return parsed, None if plan.next_pointer is None else next_link(body, plan.next_pointer)

        parsed, link = await _beside(take_apart, len(body))
        pages.add(parsed, len(body))
        return None if link is None else Ask(endpoint=next_page(ask.endpoint, link), taken_bytes=pages.taken_bytes)

    def _harvest(self, pages: Pages, fetched: Fetched) -> Harvest:
        """Select, and give the records their keys."""
        plan, changes = self._plan, None
        key_of = partial(record_key, pointer=plan.key_pointer)
        if self._memory is not None:
            changes = self._memory.changes(pages.records, key_of)
            records, keyed = changes.records, bool(changes.digests)
        else:
            chosen = select(plan.select, pages.records, self._pick)
            records = [Record(key=key_of(value), value=value) for value in chosen]
            keyed = any(record.key is not None for record in records) or any(
                key_of(value) is not None for value in pages.records
            )
        # Of several pages, the first one's validators would tell of the first alone.
        validated = plan.select is Select.CHANGED and plan.next_pointer is None
        return Harvest(
            records=records,
            arrived_wall=fetched.arrived_wall,
            arrived_monotonic=fetched.arrived_monotonic,
            keyed=keyed or plan.key_pointer is None or not pages.records,
            found=pages.found,
            set_aside=pages.set_aside,
            changes=changes,
            validators=fetched.validators if validated else {},
        )


async def _beside(work: Callable[[], T], size_bytes: int) -> T:
    """Work on a large body in the side thread; the loop goes on: health, acknowledgements, other endpoints."""
    return work() if size_bytes <= _INLINE_BYTES else await beside(work)


def _unchanged(fetched: Fetched, validators: Mapping[str, str]) -> Harvest:
    return Harvest(
        arrived_wall=fetched.arrived_wall,
        arrived_monotonic=fetched.arrived_monotonic,
        validators={**validators, **fetched.validators},
    )


def _of_page(number: int, error: FetchError) -> FetchError:
    return error if number == 1 else FetchError(error.outcome, f"page {number}: {error.reason}", error.wait_seconds)
