"""A stored body read back: decompressed, hashed, counted, cut into lines. The counterpart of `encoder`.

Owns: which bytes are a whole body of a codec. Does not own: requests (`inspector`), what the lines ought to be
(`reconciliation`). zlib, not ISA-L, reads gzip: what one library wrote, another has to accept.

Invariants: nothing is taken for a whole body that breaks off, or goes on behind its end; at most MAX_OUTPUT_BYTES of
gzip's output exist at once, however well it was compressed.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OUTPUT_BYTES: Final = 1 << 20
_ZSTD_INPUT_BYTES: Final = 1 << 14  # its stream knows no limit of output, so it gets little at a time
_GZIP_WBITS: Final = 31


class BodyError(ValueError):
    """The bytes are not one whole body of the codec; the text says how."""


class BodyDecoder(Protocol):
    """One body, piece by piece."""

    def add(self, piece: bytes) -> Iterator[bytes]:
        """What the piece decompresses to. To be iterated to the end. Raises BodyError."""
        ...

    def finish(self) -> None:
        """No more pieces. Raises BodyError when the body is not whole."""
        ...


def body_decoder(compression: str) -> BodyDecoder:
    """For a body written with COMPRESSION `compression`."""
    if compression == "gzip":
        return _GzipDecoder()
    return _ZstdDecoder() if compression == "zstd" else _StoredDecoder()


class _StoredDecoder:
    def add(self, piece: bytes) -> Iterator[bytes]:
        yield piece

    def finish(self) -> None:
        """Where it ends is known by its last newline only."""


class _GzipDecoder:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_WBITS)

    def add(self, piece: bytes) -> Iterator[bytes]:
        waiting = piece
        while waiting:
            if self._stream.eof:
                raise _trailing(len(waiting))
            try:
                output = self._stream.decompress(waiting, MAX_OUTPUT_BYTES)
            except zlib.error as error:
                raise BodyError(f"not gzip: {error}") from error
            # Output that did not fit comes with the next input: at least the stream's last 8 bytes are still waiting.
            waiting = self._stream.unconsumed_tail or self._stream.unused_data
            yield output

    def finish(self) -> None:
        if not self._stream.eof:
            raise BodyError("the gzip stream breaks off")


class _ZstdDecoder:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    def add(self, piece: bytes) -> Iterator[bytes]:
        for begin in range(0, len(piece), _ZSTD_INPUT_BYTES):
            if self._stream.eof:
                raise _trailing(len(piece) - begin)
            try:
                yield self._stream.decompress(piece[begin : begin + _ZSTD_INPUT_BYTES])
            except zstandard.ZstdError as error:
                raise BodyError(f"not zstd: {error}") from error
        if self._stream.unused_data:
            raise _trailing(len(self._stream.unused_data))

    def finish(self) -> None:
        if not self._stream.eof:
            raise BodyError("the zstd frame breaks off")


def _trailing(count: int) -> BodyError:
    return BodyError(f"{count} or more bytes follow the end of the compressed stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFacts:
    """What an uncompressed body turned out to be. `sha256` in hex."""

    sha256: str
    lines: int
    size: int


class Tally:
    """Hash and number of lines of an uncompressed body that comes in pieces."""

    __slots__ = ("_hash", "_last", "_lines", "_size")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._lines = 0
        self._size = 0
        self._last = b"\n"

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self._lines += data.count(b"\n")
        self._size += len(data)
        self._last = data[-1:] or self._last

    def finish(self) -> BodyFacts:
        """Raises BodyError when the last line has no newline."""
        if self._last != b"\n":
            raise BodyError("the last line does not end with a newline")
        return BodyFacts(sha256=self._hash.hexdigest(), lines=self._lines, size=self._size)


class LineSplitter:
    """Whole lines, without their newlines, out of pieces; the memory of one line and one piece."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def add(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        first, *others = data.split(b"\n")
        if not others:
            self._rest.append(first)
            return []
        whole = [b"".join([*self._rest, first]), *others[:-1]]
        self._rest = [others[-1]]
        return whole
