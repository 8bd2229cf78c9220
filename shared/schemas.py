"""The wire contract: every format that producer, consumer, verify and tests must agree on.

Owns: the record headers the producer sets, the metadata of objects, the signature of a committed offset, the layout
file and the envelope line; each with its encoder and its decoder, each versioned by `LAYOUT_VERSION` (the headers by
`EVENT_TYPE`). Does not own: keys (`consumer.keys`), which records become lines (`consumer.encoder`), any I/O.

Invariants: decode(encode(x)) == x; a decoder raises `SchemaError` for everything its encoder cannot have written.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from binascii import hexlify
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAYOUT_VERSION = 1
EVENT_TYPE = "ticklake.quote.v1"
MAX_NESTING = 512  # of arrays and objects in a record that counts as JSON; part of the layout version


class SchemaError(ValueError):
    """The data were not written by this contract. The text says what is wrong and where."""


# ---- record headers: CloudEvents 1.0, Kafka protocol binding, binary mode ------------------------------------------


def event_id(source: str, key: bytes | None, value: bytes) -> str:
    """32 hex digits that name a quote: the same source, key and value give the same id whoever publishes them."""
    return EventHeaders(source=source, time="").event_id(key, value).decode()


class EventHeaders:
    """Writes the headers of quotes that one answer brought: what they have in common is encoded once.

    `source` is the URL they came from; `time`, RFC 3339 UTC, when they arrived.
    """

    __slots__ = ("_hashed_source", "_source", "_time")

    def __init__(self, *, source: str, time: str) -> None:
        encoded = source.encode()
        self._source = ("ce_source", encoded)
        self._time = ("ce_time", time.encode())
        self._hashed_source = _LENGTH(len(encoded)) + encoded

    def event_id(self, key: bytes | None, value: bytes) -> bytes:
        """The `ce_id`: the first half of SHA-256, in hex, over source, key and value, each after its length."""
        named = key or b""
        parts = (self._hashed_source, _LENGTH(len(named)), named, _LENGTH(len(value)), value)
        return hexlify(hashlib.sha256(b"".join(parts)).digest()[:16])

    def of(self, key: bytes | None, value: bytes) -> list[tuple[str, bytes]]:
        """The headers of one quote. Its subject is its key, left out when null."""
        headers = [_CONTENT_TYPE, _SPEC_VERSION, ("ce_id", self.event_id(key, value)), self._source, _TYPE, self._time]
        if key is not None:
            headers.append(("ce_subject", key))
        return headers


_LENGTH = struct.Struct(">Q").pack
_CONTENT_TYPE = ("content-type", b"application/json")
_SPEC_VERSION = ("ce_specversion", b"1.0")
_TYPE = ("ce_type", EVENT_TYPE.encode())


# ---- committed offsets ---------------------------------------------------------------------------------------------


def sign_offset(chain_id: str, offset: int) -> str:
    """The metadata string of our commits. It names the chain, so a foreign or a moved offset is told apart."""
    return f"ticklake:{chain_id}:{offset}"


def signer(offset: int, metadata: str) -> str | None:
    """The chain that signed this very offset; None when nobody did (a predecessor's, or one reset by a tool)."""
    match = re.fullmatch(r"ticklake:([^:]+):[0-9]+", metadata)
    return match[1] if match and metadata == sign_offset(match[1], offset) else None


# ---- object metadata -----------------------------------------------------------------------------------------------


class ObjectMetadata(msgspec.Struct, frozen=True, kw_only=True, rename=lambda name: name.replace("_", "-")):
    """What an object of the chain says of itself. Offsets: [start, next); timestamps in ms.

    `quarantine` is the last part of the quarantine object's key, empty when there is none; only a named one counts.
    """

    chain_id: str
    topic: str
    partition: int
    start_offset: int
    next_offset: int
    record_count: int
    quarantined_count: int
    quarantine: str = ""
    lost_count: int = 0
    first_timestamp: int
    max_timestamp: int
    sha256: str
    writer: str

    def encode(self) -> dict[str, str]:
        """Short ASCII strings for S3's user metadata."""
        fields = {"ticklake-version": str(LAYOUT_VERSION)}
        fields.update((name, str(value)) for name, value in msgspec.to_builtins(self).items() if value != "")
        return fields

    @classmethod
    def decode(cls, metadata: Mapping[str, str]) -> ObjectMetadata:
        """The inverse, from S3's answer. Unknown names are somebody else's business and ignored."""
        version = metadata.get("ticklake-version")
        if version != str(LAYOUT_VERSION):
            msg = f"metadata ticklake-version is {version!r}, not '{LAYOUT_VERSION}'"
            raise SchemaError(msg)
        try:
            decoded = msgspec.convert(dict(metadata), cls, strict=False)
        except msgspec.ValidationError as error:
            msg = f"object metadata: {error}"
            raise SchemaError(msg) from error
        written = decoded.encode()
        for name in _METADATA_NAMES:
            if metadata.get(name) != written.get(name):  # 1.0 for 1, say: the conversion is more lenient than we are
                msg = f"metadata {name} is {metadata.get(name)!r}, where {written.get(name)!r} would have been written"
                raise SchemaError(msg)
        return decoded


_METADATA_NAMES = tuple(field.encode_name for field in msgspec.structs.fields(ObjectMetadata))


# ---- the layout file -----------------------------------------------------------------------------------------------


class Layout(msgspec.Struct, frozen=True, kw_only=True, rename=lambda name: name.replace("_", "-")):
    """What all writers below one prefix (and topic) must agree on, and where each partition's chain begins.

    `topic_id` and `cluster_id` are None where the broker could not tell. A partition not in `origins` begins at 0.
    """

    version: int
    chain_id: str
    topic: str
    topic_id: str | None
    cluster_id: str | None
    template: str
    ext: str
    format: str
    compression: str
    origins: dict[str, int]

    def origin(self, partition: int) -> int:
        return self.origins.get(str(partition), 0)

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def decode(cls, body: bytes) -> Layout:
        try:
            layout = msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"layout file: {error}"
            raise SchemaError(msg) from error
        for partition, origin in layout.origins.items():
            if not re.fullmatch("0|[1-9][0-9]*", partition) or origin < 0:  # it would silently begin at 0
                msg = (
                    f"layout file: origins has {partition!r}: {origin}; a partition's number and an offset are expected"
                )
                raise SchemaError(msg)
        return layout


# ---- JSON values and the envelope ----------------------------------------------------------------------------------

_RAW = msgspec.json.Decoder(msgspec.Raw)
_ENCODE = msgspec.json.Encoder().encode
_JSON_SPACE = b" \t\n\r"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = bytes.maketrans(b"[]{}", b"()()")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_json_value(value: bytes) -> bool:
    """Whether the bytes are one JSON value of RFC 8259, white space around it allowed.

    Not JSON here: NaN and Infinity, a BOM, invalid UTF-8, an escaped lone surrogate (RFC 8259 §8.2 calls it
    unpredictable, and common readers refuse the whole file), nesting deeper than MAX_NESTING.
    """
    try:
        _RAW.decode(value)
        if not value.isascii():
            value.decode()  # the skipping decoder does not look into strings
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return not nested_too_deep(value)


def nested_too_deep(value: bytes) -> bool:
    """Whether valid JSON has more than MAX_NESTING arrays and objects inside each other.

    How deep the decoder goes depends on Python's version and on the caller's stack: with that as the limit, the same
    record would be judged differently here and there.
    """
    if len(value) <= 2 * MAX_NESTING or value.count(b"[") + value.count(b"{") <= MAX_NESTING:
        return False
    brackets = _STRING.sub(b"", value).translate(_BRACKETS, _NO_BRACKETS)
    for deeper in range(MAX_NESTING, 0, -1):
        if len(brackets) <= 2 * deeper:
            return False
        brackets = brackets.replace(b"()", b"")  # the innermost ones, all at once
    return bool(brackets)


def encode_envelope(
    *,
    offset: int,
    timestamp: int,
    key: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    value: bytes | None,
    reason: str | None = None,
) -> bytes:
    """One line, without its newline, from which the record can be rebuilt bit for bit. `timestamp` in ms."""
    fields = [b'"offset":%d' % offset, b'"timestamp":%d' % timestamp]
    key_text = _text(key)
    if key is None or key_text is not None:
        fields.append(b'"key":' + _ENCODE(key_text))
    else:
        fields.append(b'"key_base64":' + _ENCODE(_base64(key)))
    fields.append(b'"headers":' + _ENCODE([_encode_header(name, content) for name, content in headers]))
    if value is None:
        fields.append(b'"value":null')
    elif _embeds(value):
        fields.append(b'"value":' + value)
    else:
        fields.append(b'"value_base64":' + _ENCODE(_base64(value)))
    if reason is not None:
        fields.append(b'"reason":' + _ENCODE(reason))
    return b"{" + b",".join(fields) + b"}"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A record as read from an envelope line."""

    offset: int
    timestamp: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None
    reason: str | None = None

    def encode(self) -> bytes:
        """The line, without its newline."""
        return encode_envelope(
            offset=self.offset,
            timestamp=self.timestamp,
            key=self.key,
            headers=self.headers,
            value=self.value,
            reason=self.reason,
        )


class _EncodedBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base64: bytes


class _EnvelopeLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    offset: int
    timestamp: int
    headers: list[tuple[str, str | _EncodedBytes | None]]
    key: str | msgspec.UnsetType | None = msgspec.UNSET
    key_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    reason: str | None = None


_ENVELOPE = msgspec.json.Decoder(_EnvelopeLine)


def decode_envelope(line: bytes) -> Envelope:
    """The record behind an envelope line, bit for bit."""
    try:
        fields = _ENVELOPE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"envelope line: {error}"
        raise SchemaError(msg) from error
    if (fields.key is msgspec.UNSET) == (fields.key_base64 is msgspec.UNSET):
        msg = "envelope line: exactly one of key and key_base64 is required"
        raise SchemaError(msg)
    if (fields.value is msgspec.UNSET) == (fields.value_base64 is msgspec.UNSET):
        msg = "envelope line: exactly one of value and value_base64 is required"
        raise SchemaError(msg)
    key: bytes | None
    if isinstance(fields.key_base64, bytes):
        key = fields.key_base64
    else:
        key = fields.key.encode() if isinstance(fields.key, str) else None
    value: bytes | None
    if isinstance(fields.value_base64, bytes):
        value = fields.value_base64
    else:
        raw = bytes(fields.value) if isinstance(fields.value, msgspec.Raw) else b"null"
        value = None if raw == b"null" else raw
    envelope = Envelope(
        offset=fields.offset,
        timestamp=fields.timestamp,
        key=key,
        headers=[(name, _decode_header(content)) for name, content in fields.headers],
        value=value,
        reason=fields.reason,
    )
    if line != envelope.encode():
        msg = "envelope line: it is written otherwise than ours are"
        raise SchemaError(msg)
    return envelope


def _embeds(value: bytes) -> bool:
    """Whether a value can stand in the line as it is. `null` cannot: it would read as a tombstone."""
    if not value or value[0] in _JSON_SPACE or value[-1] in _JSON_SPACE or value == b"null":
        return False
    return b"\n" not in value and b"\r" not in value and is_json_value(value)


def _text(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _encode_header(name: str, content: bytes | None) -> tuple[str, str | dict[str, str] | None]:
    text = _text(content)
    return (name, {"base64": _base64(content)}) if content is not None and text is None else (name, text)


def _decode_header(content: str | _EncodedBytes | None) -> bytes | None:
    if isinstance(content, _EncodedBytes):
        return content.base64
    return None if content is None else content.encode()
