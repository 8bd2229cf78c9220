"""A market API that numbers its polls, and the account of what became of their records.

Owns: ids that no two records share, the comparison of what a producer's log says with what its topic holds. Does not
own: the socket (`scripted_api`), the processes and servers. The account is pure.

Invariants: poll number n has `first_size` + n records, a number no other poll has: so a log line that says how many
records were sent says whose they were. A poll is counted as served from the first byte of its answer on.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.scripted_api import http

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class RecordId:
    """The poll that handed a record out, and its place there."""

    poll: int
    place: int


@dataclass(slots=True, kw_only=True)
class NumberedApi:
    """Give `answer` to `scripted_api`. After `polls` polls (None = never) its bodies are empty arrays."""

    first_size: int = 1
    padding_bytes: int = 0
    polls: int | None = None
    served: list[int] = field(default_factory=list)  # how many records each poll had, by its number

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        """The next poll's body."""
        writer.write(http(b"[]" if self.exhausted else self.next_body()))
        await writer.drain()

    @property
    def exhausted(self) -> bool:
        """Whether every poll with records has been asked for."""
        return len(self.served) == self.polls

    def next_body(self) -> bytes:
        """Number one more poll; its records as a JSON array, their keys all different."""
        poll, size = len(self.served), self.first_size + len(self.served)
        self.served.append(size)
        padding = "x" * self.padding_bytes
        records = (f'{{"symbol":"{poll}-{n}","poll":{poll},"place":{n},"x":"{padding}"}}' for n in range(size))
        return f"[{','.join(records)}]".encode()

    def poll_of(self, size: int) -> int:
        """Which poll had that many records. AssertionError when none had."""
        poll = size - self.first_size
        assert 0 <= poll < len(self.served), f"no poll of the {len(self.served)} had {size} records"
        return poll


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a log says and what the topic holds, compared."""

    lost: tuple[RecordId, ...]  # said to be acknowledged, and not in the topic
    doubled: tuple[RecordId, ...]  # more than once in the topic
    strange: tuple[RecordId, ...]  # in the topic, though the API never gave it
    missing: tuple[RecordId, ...]  # given by the API, and not in the topic
    said_again: tuple[int, ...]  # polls whose records were said to be sent more than once
    in_topic: int  # records of the topic, doubles and all
    said: int  # records said to be acknowledged
    said_polls: frozenset[int]
    cut_off: frozenset[int]  # the last poll, when nothing of it is in the topic: its fetch may have been cancelled


def account(api: NumberedApi, sizes_said: Sequence[int], values: Iterable[bytes]) -> Account:
    """`sizes_said` = the number of records of each `Message sent` line; `values` = of every record of the topic."""
    found = Counter(map(record_id, values))
    polls = Counter(map(api.poll_of, sizes_said))
    said = [RecordId(poll, place) for poll in polls for place in range(api.served[poll])]
    given = [RecordId(poll, place) for poll, size in enumerate(api.served) for place in range(size)]
    reached = {each.poll for each in found}
    return Account(
        lost=tuple(sorted(each for each in said if each not in found)),
        doubled=tuple(sorted(each for each, times in found.items() if times > 1)),
        strange=tuple(sorted(each for each in found if not _handed_out(api, each))),
        missing=tuple(each for each in given if each not in found),
        said_again=tuple(sorted(poll for poll, times in polls.items() if times > 1)),
        in_topic=found.total(),
        said=sum(sizes_said),
        said_polls=frozenset(polls),
        cut_off=frozenset({len(api.served) - 1} - reached if api.served else ()),
    )


def record_id(value: bytes) -> RecordId:
    """Whose record that is."""
    record = json.loads(value)
    return RecordId(record["poll"], record["place"])


def _handed_out(api: NumberedApi, each: RecordId) -> bool:
    return 0 <= each.poll < len(api.served) and 0 <= each.place < api.served[each.poll]
