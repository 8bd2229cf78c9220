"""One object's lines against the topic's records of its range: the judgement of `verify --deep`. Pure.

Owns: which line belongs to which record, and what differs. Does not own: reading either (`inspector`, `log_reader`).

Lines and records come in offset order, in pieces of any size; both are matched as far as they reach, so what waits is
what one side is ahead. Every record has to be the next line or in the quarantine, every line and every quarantined
record has to be a record of the log. A compacted log has dropped records since: there lines without a record are
passed over.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from consumer.encoder import Reason, record_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from consumer.ports import Record
    from shared.schemas import Envelope

MAX_FAULTS: Final = 5  # of one object: after a shift every line differs
_SHOWN_BYTES: Final = 80


class Reconciliation:
    """`quarantined` are the envelopes of the object's quarantine, by offset. `faults`: (offset or None, what)."""

    def __init__(self, *, record_format: str, quarantined: Mapping[int, Envelope], compacted: bool) -> None:
        self._format = record_format
        self._quarantined = dict(quarantined)
        self._compacted = compacted
        self._lines: deque[bytes] = deque()
        self._records: deque[Record] = deque()
        self._number = 0
        self._left_out = 0
        self.faults: list[tuple[int | None, str]] = []
        self.records = 0
        self.quarantined = 0

    @property
    def wants_lines(self) -> bool:
        """Whether a record waits for its line."""
        return bool(self._records)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        self._lines.extend(lines)
        self._match()

    def add_records(self, records: Iterable[Record]) -> None:
        self._records.extend(records)
        self._match()

    def finish(self) -> None:
        """Neither lines nor records will follow."""
        for record in self._records:
            self._fault(record.offset, f"the topic's record is not stored: {_shown(record.value)}")
        if self._lines and not self._compacted:
            self._fault(
                None, f"{len(self._lines)} lines, the first is line {self._number + 1}, are no records of the topic"
            )
        if self._quarantined and not self._compacted:
            offsets = sorted(self._quarantined)
            self._fault(offsets[0], f"quarantined at {_listed(offsets)}, but the topic has no such records")
        if self._left_out:
            self.faults.append((None, f"{self._left_out} more differences in this object"))

    def _match(self) -> None:
        while self._records:
            record = self._records[0]
            if record.offset in self._quarantined:
                self._match_quarantined(record, self._quarantined.pop(record.offset))
                self._records.popleft()
                continue
            expected = record_line(record, self._format)
            if isinstance(expected, Reason):
                self._fault(record.offset, f"the record cannot be a line ({expected}), yet it is not quarantined")
                self._records.popleft()
                continue
            while self._compacted and self._lines and self._lines[0] != expected:
                self._lines.popleft()
                self._number += 1
            if not self._lines:
                return
            self._match_line(record, expected, self._lines.popleft())
            self._records.popleft()

    def _match_line(self, record: Record, expected: bytes, line: bytes) -> None:
        self._number += 1
        self.records += 1
        if line != expected:
            self._fault(
                record.offset,
                f"line {self._number} is {_shown(line)}, the topic's record would be {_shown(expected)}",
            )

    def _match_quarantined(self, record: Record, envelope: Envelope) -> None:
        self.quarantined += 1
        same = (
            envelope.timestamp == record.timestamp
            and envelope.key == record.key
            and envelope.value == record.value
            and envelope.headers == list(record.headers)
        )
        if not same:
            self._fault(record.offset, f"the quarantined record differs from the topic's: {_shown(record.value)}")

    def _fault(self, offset: int | None, what: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append((offset, what))
        else:
            self._left_out += 1


def _shown(content: bytes | None) -> str:
    if content is None:
        return "a tombstone"
    cut = content[:_SHOWN_BYTES]
    return repr(cut)[1:] + (f"… ({len(content)} bytes)" if len(content) > _SHOWN_BYTES else "")


def _listed(offsets: list[int]) -> str:
    shown = ", ".join(map(str, offsets[:MAX_FAULTS]))
    return shown if len(offsets) <= MAX_FAULTS else f"{shown}, … ({len(offsets)} offsets)"
