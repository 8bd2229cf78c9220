"""What was last handed over, by key: the memory of the mode `changed`.

Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producer.ledger import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The records to publish, in the body's order, and what to remember of all of them."""

    records: Sequence[Record]
    hashes: Mapping[bytes, bytes]


class Memory:
    """At most `max_keys` keys."""

    def __init__(self, *, max_keys: int) -> None:
        self._max_keys = max_keys
        self._known: dict[bytes, bytes] = {}

    def changes(self, records: Sequence[Record]) -> Changes:
        """What is new; alters nothing."""
        hashes = {r.key: hashlib.md5(r.value, usedforsecurity=False).digest() for r in records if r.key is not None}
        new = [r for r in records if r.key is None or self._known.get(r.key) != hashes[r.key]]
        return Changes(records=new, hashes=hashes)

    def remember(self, changes: Changes) -> None:
        """They were handed over."""
        self._known.update(changes.hashes)

    def forget(self, records: Sequence[Record]) -> None:
        """They were set aside."""
        for record in records:
            if record.key is not None:
                self._known.pop(record.key, None)
