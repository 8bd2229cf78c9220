"""Values as the oracle reads them: bodies decompressed, what is one JSON value, envelopes decoded.

Owns: design §5's rules on bytes once more, from the standard library, for judging alone. Does not own: what an object
or a line has to be (`oracle_objects`).
Nothing here imports the product: a mistake the consumer makes in its own reading is not repeated here.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from tests.servers import KafkaRecord

MAX_NESTING = 512
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


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


def may_be_line(value: bytes | None) -> bool:
    """Whether design §5 stores the value as a line of format `value`."""
    return value is not None and json_text(value) is not None


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
