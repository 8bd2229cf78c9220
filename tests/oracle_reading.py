"""How the oracle reads bodies, lines and metadata: design §5 once more, from the standard library, for judging alone.

Owns: decompression, what is one JSON value, what a line of either format has to be, the envelope decoded, what an
object's metadata and key have to say. Does not own: chains and commits (`oracle`).
Nothing here imports the product: a mistake the consumer makes in its own reading is not repeated here.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.servers import KafkaRecord, StoredObject

MAX_NESTING = 512
LAST_MS = 253402300799999  # 9999-12-31T23:59:59.999Z
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
SPACE = b" \t\n\r"


class DamageError(Exception):
    """What was read cannot be what the consumer writes; the text says why."""


# ---- bodies --------------------------------------------------------------------------------------------------------


def uncompressed(key: str, body: bytes) -> bytes:
    """The body by its key's extension. DamageError when it is not one whole stream."""
    try:
        if key.endswith(".gz"):
            return gzip.decompress(body)
        if key.endswith(".zst"):
            reader = zstandard.ZstdDecompressor().decompressobj()
            found = reader.decompress(body)
            if not reader.eof or reader.unused_data:
                raise DamageError("its zstd frame breaks off or goes on behind its end")
            return found
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise DamageError(f"its body cannot be read: {error}") from error
    return body


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _refuse(constant: str) -> object:
    raise ValueError(constant)


# Numbers as text and objects as pairs: compared, nothing may be rounded and no double name may vanish.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=lambda digits: f"#{digits}", parse_constant=_refuse)
_PAIRS = json.JSONDecoder(
    parse_float=str, parse_int=lambda digits: f"#{digits}", parse_constant=_refuse, object_pairs_hook=tuple
)


def json_text(value: bytes) -> str | None:
    """The text of the one JSON value (RFC 8259) that the bytes are, as design §5 and decision 0006 mean it; or None."""
    try:
        text = value.decode()
        decoded, end = _DECODER.raw_decode(text.lstrip(" \t\n\r"))
        if text.lstrip(" \t\n\r")[end:].strip(" \t\n\r") or text.startswith("\ufeff"):
            return None
        if SURROGATE.search(value):
            _check_text(decoded)
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        return None
    return None if _nesting(text) > MAX_NESTING else text


def _check_text(decoded: object) -> None:
    """UnicodeEncodeError when a lone surrogate is in it."""
    json.dumps(decoded, ensure_ascii=False).encode()


def _nesting(text: str) -> int:
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for letter in text:
        if in_string:
            in_string = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            in_string = True
        elif letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest


def same_json(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same value, numbers digit by digit, members in order."""
    return bool(_PAIRS.decode(one.decode()) == _PAIRS.decode(other.decode()))


# ---- envelopes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A record as an envelope line tells it. `embedded` = its value stands in the line as it is."""

    offset: int
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None
    reason: str | None
    embedded: bool

    def differs(self, record: KafkaRecord) -> str | None:
        """What is not as in the record, in words."""
        for name in ("offset", "timestamp", "key", "value"):
            if getattr(self, name) != getattr(record, name):
                return f"{name} is {getattr(self, name)!r:.80}, not {getattr(record, name)!r:.80}"
        headers = tuple((name, content) for name, content in record.headers)
        return None if self.headers == headers else f"headers are {self.headers!r:.80}, not {headers!r:.80}"


def envelope(line: bytes) -> Envelope:
    """The record in the line. Members are walked by hand: the value's bytes have to come out as they stand there."""
    try:
        members = dict(_members(line.decode()))
        raw = members.get("value")
        if (raw is None) == ("value_base64" not in members) or ("key" in members) == ("key_base64" in members):
            raise DamageError(f"not exactly one of value and value_base64, key and key_base64: {line[:200]!r}")
        value = base64.b64decode(json.loads(members["value_base64"])) if raw is None else raw.encode()
        key = json.loads(members["key"]) if "key" in members else None
        return Envelope(
            offset=int(members["offset"]),
            timestamp=int(members["timestamp"]),
            key=_bytes(key) if "key" in members else base64.b64decode(json.loads(members["key_base64"])),
            headers=tuple((name, _bytes(content)) for name, content in json.loads(members["headers"])),
            value=None if raw == "null" else value,
            reason=json.loads(members["reason"]) if "reason" in members else None,
            embedded=raw is not None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"no envelope: {error!r}: {line[:200]!r}") from error


def _bytes(content: Any) -> bytes | None:
    if isinstance(content, dict):
        return base64.b64decode(content["base64"])
    return None if content is None else str(content).encode()


def _members(text: str) -> list[tuple[str, str]]:
    """Name and raw text of each member of the object, which has no white space between them."""
    if text[:1] != "{" or text[-1:] != "}":
        raise ValueError("not an object")
    found, at = [], 1
    while True:
        name, at = json.decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]  # since Python 2.6
        if text[at] != ":":
            raise ValueError(f"no colon at {at}")
        _, end = _DECODER.raw_decode(text, at + 1)
        found.append((name, text[at + 1 : end]))
        if text[end] == "}" and end == len(text) - 1:
            return found
        if text[end] != ",":
            raise ValueError(f"no comma at {end}")
        at = end + 1


# ---- lines ---------------------------------------------------------------------------------------------------------


def line_faults(
    records: Sequence[KafkaRecord], lines: Sequence[bytes], aside: Mapping[int, Envelope], *, format_: str, lost: int
) -> list[str]:
    """Where lines and quarantine are not the records, in order, each once, each where it belongs."""
    faults = []
    waiting = iter(lines)
    for record in records[max(0, len(records) - len(lines) - len(aside)) if lost else 0 :]:
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


def may_be_line(value: bytes | None) -> bool:
    """Whether design §5 stores the value as a line of format `value`."""
    return value is not None and json_text(value) is not None


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
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    if records and stored.metadata["lost-count"] == "0":
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
        timestamp = records[0].timestamp if records and said["lost-count"] == "0" else int(said["first-timestamp"])
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
