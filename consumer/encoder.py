"""Records become lines, lines become a body: judged, hashed and compressed while the batch grows.

Owns: which record can be a line of the format and why another cannot, the line's bytes, the open body of one batch with
its hash and checksum, and the quarantine lines beside it. Does not own: codecs (`codecs`), where a batch ends
(`batch`), what an object is called (`keys`), threads (`partition` runs `BodyBuilder`, one call at a time).

Invariants: every record given to a builder stands in its body or in its quarantine, in offset order, never in both;
the same records give the same uncompressed body; a builder holds compressed bytes and its codec's buffers only.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from consumer.codecs import codec, crc32
from shared.schemas import MAX_NESTING, encode_envelope, is_json_value, nested_too_deep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.codecs import Codec
    from consumer.ports import Record
    from consumer.runs import LinesOf, Run

QUARANTINE_CODEC: Final = codec("gzip")
_DECODE = msgspec.json.Decoder(msgspec.Raw).decode


class Reason(StrEnum):
    """Why a record cannot be a line. Part of the layout version: changing a rule means a new version."""

    NOT_JSON = "not_json"
    EMPTY = "empty"
    TOMBSTONE = "tombstone"


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


def lines_of(record_format: str) -> LinesOf:
    """The judge of many values at once. In envelopes no value is a line as it stands."""
    return value_lines if record_format == "value" else lambda _: None


def value_lines(values: Sequence[bytes | None]) -> bytes | None:
    """All lines at once, when every value is a line as it stands; None when one is not (then each is looked at).

    Decoding each value on its own proves that it is one JSON value; lines decoded together would not prove it
    (`{}{}` on a line, a value over two lines), and to prove it from what they decoded to takes longer.
    """
    try:
        lines = b"\n".join([*values, b""])  # type: ignore[list-item]  # a tombstone is the TypeError below
        if lines.count(b"\n") != len(values) or b"\r" in lines:
            return None
        if not lines.isascii():
            lines.decode()  # the skipping decoder does not look into strings
        deque(map(_DECODE, values), maxlen=0)  # type: ignore[arg-type]
        longest = max(map(len, values), default=0)  # type: ignore[arg-type]
        if longest > MAX_NESTING and any(map(nested_too_deep, values)):  # type: ignore[arg-type]
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

    __slots__ = ("_codec", "_compressor", "_crc32", "_hash", "_kept", "_pieces", "_taken")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._compressor = codec.start()
        self._hash = hashlib.sha256()
        self._crc32 = 0
        self._pieces: list[bytes] = []
        self._kept = 0
        self._taken = 0

    @property
    def size(self) -> int:
        """Bytes of memory: what came out of the codec, and what its own buffers hold by now."""
        return self._kept + self._codec.memory_bytes(self._taken)

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
            self._crc32 = crc32(piece, self._crc32)
            self._kept += len(piece)


class BodyBuilder:
    """The growing body of one batch. Not thread-safe: one call at a time."""

    __slots__ = ("_format", "_quarantine", "_quarantine_codec", "_quarantined", "_records", "_stream")

    def __init__(self, *, record_format: str, codec: Codec, quarantine_codec: Codec = QUARANTINE_CODEC) -> None:
        self._format = record_format
        self._quarantine_codec = quarantine_codec
        self._stream = _Stream(codec)
        self._quarantine: _Stream | None = None
        self._records = 0
        self._quarantined: Counter[Reason] = Counter()

    @property
    def size(self) -> int:
        """Bytes of memory the body costs by now: compressed ones, and the codec's buffers."""
        return self._stream.size + (self._quarantine.size if self._quarantine else 0)

    def add(self, run: Run, begin: int, end: int) -> None:
        """Take the records [begin, end) of the run, judged by `lines_of` the format. They follow those taken before."""
        lines = run.lines_between(begin, end)
        if lines is not None:
            self._stream.add(lines)
            self._records += end - begin
        else:
            self._add_each(run, begin, end)

    def _add_each(self, run: Run, begin: int, end: int) -> None:
        lines: list[bytes] = []
        for index in range(begin, end):
            line = value_line(run.value(index)) if self._format == "value" else _envelope(run.record(index))
            if isinstance(line, Reason):
                self._set_aside(run.record(index), line)
            else:
                lines.append(line)
        if lines:
            self._stream.add(b"\n".join([*lines, b""]))
            self._records += len(lines)
        run.release()

    def _set_aside(self, record: Record, reason: Reason) -> None:
        if self._quarantine is None:
            self._quarantine = _Stream(self._quarantine_codec)
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
