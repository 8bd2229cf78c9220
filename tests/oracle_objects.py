"""What an object of the chain has to be, as the oracle knows it: its lines, quarantine, metadata and key.

Owns: comparing one object with the records of its range. Does not own: bytes and values (`oracle_reading`), chains and
commits (`oracle`). Nothing here imports the product.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.oracle_reading import DamageError, Envelope, envelope, may_be_line, same_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.servers import KafkaRecord, StoredObject

LAST_MS = 253402300799999  # 9999-12-31T23:59:59.999Z
SPACE = b" \t\n\r"


def line_faults(
    records: Sequence[KafkaRecord], lines: Sequence[bytes], aside: Mapping[int, Envelope], *, format_: str
) -> list[str]:
    """Where lines and quarantine are not the records, in order, each once, each where it belongs."""
    faults = []
    waiting = iter(lines)
    for record in records:
        kept = aside.get(record.offset)
        if kept is not None:
            difference = kept.differs(record) or (
                may_be_line(record.value) and format_ == "value" and "could be a line"
            )
            if difference or format_ == "envelope":
                faults.append(
                    f"offset {record.offset} stands in quarantine, but {difference or 'every record has a line'}"
                )
            continue
        line = next(waiting, None)
        if line is None:
            faults.append(f"offset {record.offset} is missing: {record.value!r:.120}")
        elif (wrong := _wrong_line(line, record, format_)) is not None:
            faults.append(f"offset {record.offset}: {wrong}")
    faults += [f"a line too many: {line!r:.120}" for line in waiting]
    known = {record.offset for record in records}
    return faults + [f"offset {offset} in quarantine is not the topic's" for offset in aside if offset not in known]


def _wrong_line(line: bytes, record: KafkaRecord, format_: str) -> str | None:
    if format_ == "envelope":
        try:
            found = envelope(line)
        except DamageError as damage:
            return str(damage)
        should = _embeds(record.value)
        if found.embedded != should:
            return f"its value is {'not ' if should else ''}embedded, against the rule: {line!r:.120}"
        return found.differs(record)
    value = record.value
    if line == value:
        return None if may_be_line(value) else f"is no JSON value, but stored: {line!r:.120}"
    if value is None or not may_be_line(value):
        return f"{value!r:.120} cannot be a line, and is not in quarantine; here stands {line!r:.120}"
    if not (b"\n" in value or b"\r" in value) or b"\r" in line or not may_be_line(line) or not same_json(line, value):
        return f"{value!r:.120} is expected, here stands {line!r:.120}"
    return None


def _embeds(value: bytes | None) -> bool:
    if value is None:
        return True
    if not value or value[0] in SPACE or value[-1] in SPACE or value == b"null" or b"\n" in value or b"\r" in value:
        return False
    return may_be_line(value)


# ---- metadata ------------------------------------------------------------------------------------------------------


def metadata_faults(
    stored: StoredObject, *, body: bytes, lines: int, aside: int, records: Sequence[KafkaRecord]
) -> list[str]:
    """Where the metadata does not say what is there."""
    wanted: dict[str, str] = {
        "ticklake-version": "1",
        "record-count": str(lines),
        "quarantined-count": str(aside),
        "lost-count": "0",
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    if records:
        wanted["first-timestamp"] = str(records[0].timestamp)
        wanted["max-timestamp"] = str(max(record.timestamp for record in records))
    said = stored.metadata
    faults = [
        f"metadata {name} says {said.get(name)!r}, it is {is_!r}"
        for name, is_ in wanted.items()
        if said.get(name) != is_
    ]
    if not said.get("writer"):
        faults.append("metadata names no writer")
    type_ = _CONTENT_TYPES.get(stored.key.rsplit(".", 1)[-1])
    if stored.content_type != type_:
        faults.append(f"content type is {stored.content_type!r}, not {type_!r}")
    return faults


_CONTENT_TYPES = {
    "gz": "application/gzip",
    "zst": "application/zstd",
    "jsonl": "application/x-ndjson",
    "json": "application/json",
}


class Layout:
    """What layout.json says, and what follows for each object."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.chain_id = str(content["chain-id"])
        self.format = str(content["format"])
        self.origins = {int(partition): int(start) for partition, start in content["origins"].items()}
        self._template = str(content["template"])
        self._ext = str(content["ext"])

    def faults(self, stored: StoredObject, *, prefix: str, topic: str, records: Sequence[KafkaRecord]) -> list[str]:
        """Where chain, topic or key are others than the layout wants."""
        said = stored.metadata
        faults = []
        if said.get("chain-id") != self.chain_id or said.get("topic") != topic:
            faults.append(f"it is of chain {said.get('chain-id')} of topic {said.get('topic')}, not {self.chain_id}")
        timestamp = records[0].timestamp if records else int(said["first-timestamp"])
        at = datetime.fromtimestamp((timestamp if 0 <= timestamp <= LAST_MS else 0) / 1000, UTC)
        wanted = prefix + self._template.format(
            topic=topic,
            partition=int(said["partition"]),
            start=int(said["start-offset"]),
            dt=f"{at:%Y-%m-%d}",
            hour=f"{at:%H}",
            unix=int(at.timestamp()),
            ext=self._ext,
        )
        return faults if stored.key == wanted else [*faults, f"its key ought to be {wanted}"]
