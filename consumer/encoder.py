"""Records become lines, lines become a body: judged, hashed and compressed while the batch grows.

Owns: which record can be a line of the format and why another cannot, the line's bytes, the open body of one batch with
its hash, checksum and codec, and the quarantine lines beside it. Does not own: where a batch ends (`batch`), what an
object is called (`keys`), threads (`partition` runs `BodyBuilder` off the event loop, one call at a time).

Invariants: every record given to a builder stands in its body or in its quarantine, in offset order, never in both;
the same records give the same uncompressed body; a builder holds compressed bytes and its codec's buffers only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import zstandard

from shared.schemas import MAX_NESTING, encode_envelope, is_json_value, nested_too_deep

try:
    from isal import isal_zlib as _gzip
except ImportError:  # no wheel for this platform: the same format from zlib, slower
    import zlib as _gzip  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.ports import Record, WireBatch

GZIP_LIBRARY: Final = _gzip.__name__.removeprefix("isal.").removesuffix("_zlib")

_GZIP_WBITS: Final = 31  # a gzip header, whose time stamp stays 0
_LEVEL: Final = 1
# A codec's own buffers once it has taken that much: resident memory of many streams, their output dropped, over their
# number; tests/unit/consumer/test_encoder.py measures it again.
_CODEC_BYTES: Final = {"gzip": 352 << 10, "zstd": 936 << 10, "none": 0}
_DECODE = msgspec.json.Decoder(msgspec.Raw).decode


class Reason(StrEnum):
    """Why a record cannot be a line. Part of the layout version: changing a rule means a new version."""

    NOT_JSON = "not_json"
    EMPTY = "empty"
    TOMBSTONE = "tombstone"


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Stored:
    """The codec `none`."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: str) -> _Compressor:
    """A fresh stream of the codec (gzip, zstd, none); its output is one gzip member or one zstd frame."""
    if compression == "zstd":
        stream: _Compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        return stream
    if compression == "none":
        return _Stored()
    gzip: _Compressor = _gzip.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    return gzip


def value_line(value: bytes | None) -> bytes | Reason:
    """The line of a value in `value` format, without its newline, or why there is none.

    JSON with line breaks is compacted: only white space between tokens goes, numbers and strings keep their bytes.
    """
    if value is None:
        return Reason.TOMBSTONE
    if not value:
        return Reason.EMPTY
    if not is_json_value(value):
        return Reason.NOT_JSON
    return msgspec.json.format(value, indent=-1) if b"\n" in value or b"\r" in value else value


def record_line(record: Record, record_format: str) -> bytes | Reason:
    """The line of a whole record in either format. Every record has an envelope."""
    if record_format == "value":
        return value_line(record.value)
    return _envelope(record)


def _envelope(record: Record, reason: Reason | None = None) -> bytes:
    return encode_envelope(
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        headers=record.headers,
        value=record.value,
        reason=reason,
    )


def _all_values(values: Sequence[bytes | None]) -> bytes | None:
    """All lines at once, when every value is a line as it stands; None when one is not (then each is looked at).

    Decoding each value on its own proves that it is one JSON value; lines decoded together would not prove it.
    """
    try:
        lines = b"\n".join([*values, b""])  # type: ignore[list-item]  # a tombstone is the TypeError below
        if lines.count(b"\n") != len(values) or b"\r" in lines:
            return None
        if not lines.isascii():
            lines.decode()  # the skipping decoder does not look into strings
        for value in values:
            _DECODE(value)  # type: ignore[arg-type]
        if any(nested_too_deep(value) for value in values if value and len(value) > MAX_NESTING):
            return None
    except (TypeError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """The quarantine object's content: gzip of envelope lines, and the hash its name carries (hex)."""

    body: bytes
    crc32: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A finished body. `sha256` (hex) is of the uncompressed lines, `crc32` of `content`."""

    content: bytes
    crc32: int
    sha256: str
    record_count: int
    quarantined: Mapping[Reason, int]
    quarantine: Quarantine | None

    @property
    def quarantined_count(self) -> int:
        return sum(self.quarantined.values())


class _Stream:
    """Lines of one object on their way: hashed, compressed, checksummed in one pass."""

    __slots__ = ("_codec_bytes", "_compressor", "_crc32", "_hash", "_kept", "_pieces", "_taken")

    def __init__(self, compression: str) -> None:
        self._compressor = compressor(compression)
        self._codec_bytes = _CODEC_BYTES[compression]
        self._hash = hashlib.sha256()
        self._crc32 = 0
        self._pieces: list[bytes] = []
        self._kept = 0
        self._taken = 0

    @property
    def size(self) -> int:
        """Bytes of memory: what came out of the codec, and what its own buffers hold by now."""
        return self._kept + min(self._taken, self._codec_bytes)

    def add(self, lines: bytes) -> None:
        self._taken += len(lines)
        self._hash.update(lines)
        self._keep(self._compressor.compress(lines))

    def finish(self) -> tuple[bytes, int, str]:
        self._keep(self._compressor.flush())
        content = b"".join(self._pieces)
        return content, self._crc32, self._hash.hexdigest()

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._crc32 = zlib.crc32(piece, self._crc32)
            self._kept += len(piece)


class BodyBuilder:
    """The growing body of one batch. Not thread-safe: one call at a time."""

    __slots__ = ("_format", "_quarantine", "_quarantined", "_records", "_stream")

    def __init__(self, *, record_format: str, compression: str) -> None:
        self._format = record_format
        self._stream = _Stream(compression)
        self._quarantine: _Stream | None = None
        self._records = 0
        self._quarantined: Counter[Reason] = Counter()

    @property
    def size(self) -> int:
        """Bytes of memory the body costs by now: compressed ones, and the codec's buffers."""
        return self._stream.size + (self._quarantine.size if self._quarantine else 0)

    def add(self, batch: WireBatch, begin: int, end: int) -> None:
        """Take the records [begin, end) of the wire batch, which follow those taken before."""
        values = batch.values[begin:end]
        lines = _all_values(values) if self._format == "value" else None
        if lines is not None:
            self._stream.add(lines)
            self._records += len(values)
        else:
            self._add_each(batch, begin, end)

    def _add_each(self, batch: WireBatch, begin: int, end: int) -> None:
        lines: list[bytes] = []
        for index in range(begin, end):
            line = value_line(batch.values[index]) if self._format == "value" else _envelope(batch.record(index))
            if isinstance(line, Reason):
                self._set_aside(batch.record(index), line)
            else:
                lines.append(line)
        if lines:
            self._stream.add(b"\n".join([*lines, b""]))
            self._records += len(lines)

    def _set_aside(self, record: Record, reason: Reason) -> None:
        if self._quarantine is None:
            self._quarantine = _Stream("gzip")
        self._quarantine.add(_envelope(record, reason) + b"\n")
        self._quarantined[reason] += 1

    def finish(self) -> Body:
        """The body as it goes into the object. The builder is used up."""
        quarantine = None
        if self._quarantine is not None:
            body, checksum, digest = self._quarantine.finish()
            quarantine = Quarantine(body=body, crc32=checksum, sha256=digest)
        content, crc32, sha256 = self._stream.finish()
        return Body(
            content=content,
            crc32=crc32,
            sha256=sha256,
            record_count=self._records,
            quarantined=dict(self._quarantined),
            quarantine=quarantine,
        )
