"""What an audit found: values, and how they are shown to people and to machines.

Owns: the words for faults, the table, the JSON (its field names are the attributes' and stay). Does not own: any
judgement (`audit`, `reconciliation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS: Final = (
    "partition",
    "origin",
    "chain_end",
    "committed",
    "log_end",
    "lag",
    "objects",
    "records",
    "quarantined",
    "lost",
    "expired",
)
_SUMMED: Final = frozenset({"lag", "objects", "records", "quarantined", "lost", "expired"})


class Kind(StrEnum):
    """The sort of a fault, for machines."""

    GAP = "gap"  # offsets between two objects that no object holds
    OVERLAP = "overlap"  # offsets that two objects hold, or that lie before the origin
    FOREIGN = "foreign"  # a key that only our template renders, metadata that are not ours
    METADATA = "metadata"  # ours, but they contradict the key or themselves
    BODY = "body"  # unreadable, or not what the metadata say
    QUARANTINE = "quarantine"
    COMMIT = "commit"  # an offset of ours that is no boundary of the chain
    UNSIGNED_COMMIT = "unsigned-commit"  # an offset nobody signed that is not the chain's end; the consumer ignores it
    LOG = "log"  # chain and log cannot belong together
    LOSS = "loss"  # gone from the log before it was stored
    RECORD = "record"  # --deep: a stored line and the topic's record differ, or one of them is missing
    INCOMPLETE = "incomplete"  # the audit could not be finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong. Offsets [start_offset, next_offset), None where they mean nothing."""

    kind: Kind
    what: str
    partition: int | None = None
    key: str | None = None
    start_offset: int | None = None
    next_offset: int | None = None

    def __str__(self) -> str:
        parts = [str(self.kind)]
        if self.partition is not None:
            parts.append(f"partition {self.partition}")
        if self.start_offset is not None:
            end = "" if self.next_offset is None else f", {self.next_offset})"
            parts.append(f"offsets [{self.start_offset}{end}" if end else f"offset {self.start_offset}")
        if self.key is not None:
            parts.append(f"key {self.key}")
        return f"FAULT {', '.join(parts)}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFindings:
    """One chain. Counts are of the objects that are there; `expired` and `lost` count offsets.

    `committed` is None when the group has none; `signed` says whether this chain signed it. `log_start` and `log_end`
    are None for a partition that the topic does not have.
    """

    partition: int
    origin: int
    chain_end: int
    committed: int | None
    signed: bool
    log_start: int | None
    log_end: int | None
    objects: int
    records: int
    quarantined: int
    lost: int
    expired: int
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How much `--deep` could compare: objects whose whole range the log still has, and the records in them."""

    objects: int = 0
    records: int = 0
    quarantined: int = 0
    objects_beyond_log: int = 0
    records_beyond_log: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The whole audit. `orphaned_quarantines` are objects no chain names: leavings of a crash, unless also a fault.

    `other_keys` lie below the listed prefix, but the template cannot have rendered them.
    """

    bucket: str
    prefix: str
    topic: str
    group: str
    chain_id: str
    partitions: tuple[PartitionFindings, ...] = ()
    orphaned_quarantines: int = 0
    other_keys: int = 0
    body_bytes: int = 0
    compared: Compared | None = None
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return all(fault.kind is not Kind.INCOMPLETE for fault in self.faults)

    @property
    def clean(self) -> bool:
        return not self.faults


def as_json(findings: Findings) -> str:
    """One JSON object and a newline: the findings' fields, `clean`, `complete` and `totals`."""
    fields = msgspec.to_builtins(findings)
    fields |= {"clean": findings.clean, "complete": findings.complete, "totals": _totals(findings)}
    return msgspec.json.encode(fields).decode() + "\n"


def as_text(findings: Findings) -> str:
    """A table, what else is worth knowing, then a line for each fault."""
    place = f"s3://{findings.bucket}/{findings.prefix}"
    lines = [f"topic {findings.topic}, group {findings.group}, {place}, chain {findings.chain_id or 'unknown'}"]
    if findings.partitions:
        rows = [[_shown(getattr(row, name)) for name in _COLUMNS] for row in findings.partitions]
        totals = _totals(findings)
        total = ["total", *(str(totals[name]) if name in _SUMMED else "" for name in _COLUMNS[1:])]
        lines += _table([[name.replace("_", " ") for name in _COLUMNS], *rows, total])
    lines += _more(findings)
    lines += [f"note  {note}" for note in findings.notes]
    lines += [str(fault) for fault in findings.faults]
    count = len(findings.faults)
    verdict = "clean" if findings.clean else f"{count} fault{'' if count == 1 else 's'}"
    lines.append(verdict if findings.complete else f"{verdict}; not finished")
    return "\n".join(lines) + "\n"


def _more(findings: Findings) -> list[str]:
    lines = []
    if findings.orphaned_quarantines:
        lines.append(f"{findings.orphaned_quarantines} orphaned quarantine objects: named by no object")
    if findings.other_keys:
        lines.append(f"{findings.other_keys} other keys below the listed prefix, not of this template: not looked at")
    if (compared := findings.compared) is not None:
        text = (
            f"compared with the topic: {compared.records} records and {compared.quarantined} quarantined ones"
            f" in {compared.objects} objects"
        )
        if compared.objects_beyond_log:
            text += (
                f"; {compared.records_beyond_log} in {compared.objects_beyond_log} objects could not be: the log does"
                " not have their whole range any more"
            )
        lines.append(text)
    return lines


def _totals(findings: Findings) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in findings.partitions) for name in _COLUMNS if name in _SUMMED}


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
