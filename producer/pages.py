"""Bodies that come in pages: where the next one is, and what all of them hold together.

Owns: the link to the next page, the caps over a poll's pages. Does not own: a page's contents (`parser`), the request
for it (`endpoint`), asking (`collector`). Pure.

Invariants: no page is asked twice in one poll, so no poll goes in circles; records keep the order of the pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from producer.parser import BodyError, Parsed, SetAside, flatten
from shared.schemas import MAX_NESTING

if TYPE_CHECKING:
    from producer.endpoint import Endpoint
    from producer.pointer import Pointer

MAX_PAGES = 1000
_QUOTED_BYTES = 4096

_STRING = msgspec.json.Decoder(str)


@dataclass(slots=True, kw_only=True)
class Pages:
    """The pages of one poll, added as they come. Raises BodyError where they cannot go on."""

    max_records: int
    called: str = "API_MAX_RECORDS"
    records: list[bytes] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    found: bool = False
    taken_bytes: int = 0
    _asked: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """Of the page to be added next, from 1."""
        return max(1, len(self._asked))

    def asking(self, endpoint: Endpoint) -> None:
        """This page is asked for now."""
        if endpoint.url in self._asked:
            reason = "the link to the next page leads to one that this poll has asked already"
            raise BodyError(reason, b"")
        if len(self._asked) >= MAX_PAGES:
            reason = f"there are more than {MAX_PAGES} pages"
            raise BodyError(reason, b"")
        self._asked.add(endpoint.url)

    def add(self, page: Parsed, body_bytes: int) -> None:
        """What the page held; records set aside are numbered through all pages."""
        first = len(self.records) + len(self.set_aside)
        self.set_aside += [replace(each, index=first + each.index) for each in page.set_aside]
        self.records += page.records
        self.found = self.found or page.found
        self.taken_bytes += body_bytes
        if len(self.records) + len(self.set_aside) > self.max_records:
            reason = f"the pages hold more records than {self.called} ({self.max_records}) allows"
            raise BodyError(reason, b"")


def next_link(body: bytes | bytearray, pointer: Pointer) -> str | None:
    """The link at the pointer; None when this is the last page: nothing there, null or an empty text.

    `body` must be valid JSON. BodyError when something else is there.
    """
    try:
        value = pointer.find(msgspec.Raw(body))
    except RecursionError:  # over a record that is set aside for it
        flat, _ = flatten(body, MAX_NESTING + len(pointer.names))
        value = pointer.find(msgspec.Raw(flat))
    if value is None or bytes(value) == b"null":
        return None
    try:
        return _STRING.decode(value) or None
    except msgspec.DecodeError as error:
        reason = f"at the pointer to the next page, {pointer.text!r}, is no text"
        raise BodyError(reason, bytes(value)[:_QUOTED_BYTES]) from error


def next_page(endpoint: Endpoint, link: str) -> Endpoint:
    """The request for the page that the link names. BodyError when it is not the endpoint's own host's."""
    try:
        return endpoint.page(link)
    except ValueError as error:
        reason = f"the link to the next page {error}"
        raise BodyError(reason, b"") from error
