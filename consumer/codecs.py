"""Codecs: the compressing streams of open batches, their levels, and the memory each costs.

Owns: which library compresses at which level, with which windows, and what a stream holds. Does not own: what goes
through it (`encoder`). The level is no part of the layout: a body is known by its uncompressed bytes.

Invariant: a stream's output is one gzip member or one zstd frame, its memory at most `Codec.bytes`, whatever it takes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import zstandard

isal_zlib: ModuleType | None
try:
    from isal import isal_zlib
except ImportError:  # no wheel for this platform: the same format from zlib, slower
    isal_zlib = None

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

GZIP_LIBRARY: Final = "zlib" if isal_zlib is None else "isal"
DEFAULT_LEVEL: Final = 1
MAX_LEVELS: Final = {"gzip": 9, "zstd": 19, "none": 0}

_GZIP_WBITS: Final = 31  # a gzip header, whose time stamp stays 0
_ISAL_MAX_LEVEL: Final = 3
_ISAL_MEM_LEVEL: Final = 2  # 153 KiB a stream instead of 349, for the same ratio and speed
# A window of 128 KiB instead of 512 fits a core's cache: a sixth faster, and quotes compress the better for it.
_ZSTD_WINDOW_LOG: Final = 17
# Resident memory of streams: the first bytes bring tables and buffers, the next ones up to three times their number
# until all is in use. tests/unit/consumer/test_codecs.py measures it again.
_ISAL_FIRST, _ISAL_ALL = 32 << 10, 160 << 10
_ISAL_BETTER_FIRST, _ISAL_BETTER_ALL = 96 << 10, 216 << 10  # levels 2 and 3
_ZLIB_FIRST, _ZLIB_ALL = 80 << 10, 264 << 10
_ZSTD_LATE: Final = 480 << 10  # of libzstd's own estimate: buffers that are touched as the stream goes on
_ZSTD_FIRST: Final = 96 << 10


class Compressor(Protocol):
    """A stream under way. `compress` lets go of the GIL for all but the smallest pieces."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Stored:
    """The codec `none`."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A codec at a level: `start` opens a stream.

    Its memory: `first_bytes` at once, then `growth` for each byte taken, `bytes` at most.
    """

    start: Callable[[], Compressor]
    first_bytes: int
    bytes: int
    growth: int = 3

    def memory_bytes(self, taken: int) -> int:
        """What a stream holds besides its output, once it has taken so many bytes."""
        return min(self.bytes, self.first_bytes + self.growth * taken) if taken else 0


def codec(compression: str, level: int | None = None) -> Codec:
    """The codec (gzip, zstd, none) at a level of 1 to MAX_LEVELS; None = the default."""
    level = DEFAULT_LEVEL if level is None else level
    if compression == "zstd":
        return _zstd(level)
    if compression == "none":
        return Codec(start=_Stored, first_bytes=0, bytes=0)
    if isal_zlib is not None and level <= _ISAL_MAX_LEVEL:
        fast = isal_zlib.compressobj
        return Codec(
            start=lambda: fast(level, zlib.DEFLATED, _GZIP_WBITS, _ISAL_MEM_LEVEL),
            first_bytes=_ISAL_FIRST if level == 1 else _ISAL_BETTER_FIRST,
            bytes=_ISAL_ALL if level == 1 else _ISAL_BETTER_ALL,
        )
    return Codec(
        start=lambda: zlib.compressobj(level, zlib.DEFLATED, _GZIP_WBITS), first_bytes=_ZLIB_FIRST, bytes=_ZLIB_ALL
    )


def crc32(data: bytes, value: int) -> int:
    """CRC-32 of `data` behind what gave `value`."""
    return zlib.crc32(data, value) if isal_zlib is None else int(isal_zlib.crc32(data, value))


def _zstd(level: int) -> Codec:
    window = {"window_log": _ZSTD_WINDOW_LOG} if level == DEFAULT_LEVEL else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True, **window)
    estimate = parameters.estimated_compression_context_size()
    return Codec(
        start=lambda: zstandard.ZstdCompressor(compression_params=parameters).compressobj(),
        first_bytes=max(_ZSTD_FIRST, estimate - _ZSTD_LATE),
        bytes=estimate + (1 << parameters.window_log),
    )
