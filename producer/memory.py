"""What was last handed over, by key: the memory of the mode `changed`.

Owns: which records are new, how many keys are remembered. Does not own: what counts as handed over (`poller`). Pure.

Invariants: a record without a key is always new. Of one key all records of the last body that had it are remembered, so
several of them in one body do not make each other new again; but a key's last record is published again behind one
that is new, or when it was not the last before, so that the topic's last word on a key is the API's. What is not
remembered is new: forgetting costs a record published twice, never a lost one. At most `max_keys` keys, beside those of
one body, are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from producer.ledger import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The records to publish, in the body's order, and what to remember of all of the body's: digests by key."""

    records: Sequence[Record]
    digests: Mapping[bytes, bytes]


class Memory:
    """Two generations of keys: a full young one becomes the old one, whose keys are gone unless they come again."""

    def __init__(self, *, max_keys: int) -> None:
        self._generation_keys = max(1, max_keys // 2)
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._forgotten: set[bytes] = set()  # since the last comparison began
        self._seen: dict[bytes, bytes | None] = {}  # the last comparison's keys by digest: what has it has its key

    def changes(self, values: Sequence[bytes], key_of: Callable[[bytes], bytes | None]) -> Changes:
        """Compare a body's records with what is remembered. It may run in a thread, one comparison at a time.

        `key_of` must depend on the value alone: it is asked only of those that the comparison before did not have.
        """
        self._forgotten = set()
        seen, self._seen = self._seen, {}
        digests: dict[bytes, bytes] = {}
        repeated: dict[bytes, list[bytes]] = {}  # of keys that have several records: joined once, there may be many
        keyless = False
        in_order = [sha256(value).digest()[:DIGEST_BYTES] for value in values]
        for value, digest in zip(values, in_order, strict=True):
            key = seen[digest] if digest in seen else key_of(value)
            self._seen[digest] = key
            if key is None:
                keyless = True
            elif (first := digests.setdefault(key, digest)) is not digest:
                repeated.setdefault(key, [first]).append(digest)
        digests.update((key, b"".join(several)) for key, several in repeated.items())
        young = self._young.get  # holds nearly all of them, nearly always as they are now: asked first, without a call
        different = [(key, now) for key, now in digests.items() if young(key) != now]
        news = {key: _news(known, now) for key, now in different if (known := self._known(key)) != now}
        records = self._new(values, in_order, news) if news or keyless else []
        return Changes(records=records, digests=digests)

    def _new(
        self, values: Sequence[bytes], in_order: Sequence[bytes], news: Mapping[bytes, Collection[bytes]]
    ) -> list[Record]:
        pairs = zip(values, in_order, strict=True)
        keyed = ((self._seen[digest], value, digest) for value, digest in pairs)
        return [
            Record(key=key, value=value) for key, value, digest in keyed if key is None or digest in news.get(key, ())
        ]

    def remember(self, changes: Changes) -> None:
        """The records were handed over."""
        self._young.update(changes.digests)
        for key in self._forgotten:  # they were compared with what was forgotten meanwhile
            self._forget(key)
        if len(self._young) > self._generation_keys:
            self._old, self._young = self._young, {}

    def forget(self, records: Iterable[Record]) -> None:
        """These were set aside: let them be new, unless their key has other records by now."""
        for record in records:
            if record.key is not None and _digest(record) in _split(self._known(record.key)):
                self._forget(record.key)
                self._forgotten.add(record.key)

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def _known(self, key: bytes) -> bytes:
        return self._young.get(key) or self._old.get(key, b"")

    def _forget(self, key: bytes) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)


def _digest(record: Record) -> bytes:
    return sha256(record.value).digest()[:DIGEST_BYTES]


def _news(known: bytes, now: bytes) -> set[bytes]:
    """The digests of one key's records that are to be published, when the key's joined digests differ."""
    news = set(_split(now)).difference(_split(known))
    last = now[-DIGEST_BYTES:]
    if news or not known.endswith(last):
        news.add(last)  # behind what is new before it
    return news


def _split(joined: bytes) -> list[bytes]:
    return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]
