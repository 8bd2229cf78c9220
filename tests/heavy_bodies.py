"""Bodies made to cost a reader its memory, and what must become of each.

Owns: the bodies, piece by piece, so that the server that sends them needs none either. Does not own: sending
(`scripted_api`), what is asserted of the process that gets them.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING

from tests.scripted_api import streamed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable, Mapping

CAP_BYTES = 64 << 20  # API_MAX_BODY_BYTES, unless set
_PIECE_BYTES = 1 << 20
_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeavyBody:
    """An answer, and what it comes to: the words of readiness, or None when its records go to Kafka.

    `published` is how many records do; `full`: so many and so large as the caps allow, which they fill on purpose.
    """

    give: Callable[[asyncio.StreamWriter], Awaitable[None]]
    words: str | None
    published: int = 0
    full: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def heavy(
    pieces: Callable[[], Iterable[bytes]],
    words: str | None,
    *,
    headers: bytes = b"",
    published: int = 0,
    full: bool = False,
    **settings: str,
) -> HeavyBody:
    return HeavyBody(
        give=streamed(lambda: chain([_HEAD + headers + b"\r\n"], pieces())),
        words=words,
        published=published,
        full=full,
        settings=settings,
    )


def filled(begin: bytes, item: bytes, end: bytes, total: int = CAP_BYTES) -> Callable[[], Iterable[bytes]]:
    """`begin`, as many `item`s as there is room for, `end`: `total` bytes at most."""
    count = (total - len(begin) - len(end)) // len(item)
    a_piece = max(1, _PIECE_BYTES // len(item))

    def pieces() -> Iterable[bytes]:
        yield begin
        yield from repeat(item * a_piece, count // a_piece)
        yield item * (count % a_piece)
        yield end

    return pieces


def deflated(begin: bytes, item: bytes, end: bytes, total: int) -> Callable[[], Iterable[bytes]]:
    """The same as one gzip member. A block of items is deflated once and repeated: a bomb must not cost its maker."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflater.compress(begin) + deflater.flush(zlib.Z_FULL_FLUSH)
    block = item * (_PIECE_BYTES // len(item))
    middle = deflater.compress(block) + deflater.flush(zlib.Z_FULL_FLUSH)
    last = deflater.compress(end) + deflater.flush(zlib.Z_FINISH)

    def pieces() -> Iterable[bytes]:
        yield _GZIP_HEAD + first
        yield from repeat(middle, total // len(block))
        yield last
        yield b"\0" * 8  # the checksum is wrong, and never reached

    return pieces


def many_records() -> Iterable[bytes]:
    """100,000 records, 64 MB: the most that one poll may bring."""
    yield b"["
    for start in range(0, 100_000, 1000):
        rows = (b'{"symbol":"S%05d","t":"%0600d"}' % (n, n) for n in range(start, start + 1000))
        yield (b"," if start else b"") + b",".join(rows)
    yield b"]"


_GZIP = b"Content-Encoding: gzip\r\n"
_TOO_LARGE = "larger than API_MAX_BODY_BYTES"
_TOO_MANY = "API_MAX_RECORDS allows 100000"
_60_MIB = 60 << 20

HEAVY: dict[str, HeavyBody] = {
    "gzip-of-16-GiB-of-zeros": heavy(deflated(b"", b"\0", b"", 16 << 30), _TOO_LARGE, headers=_GZIP),
    "gzip-of-4-GiB-of-valid-json": heavy(deflated(b"[", b'{"a":1},', b"{}]", 4 << 30), _TOO_LARGE, headers=_GZIP),
    "gzip-members-without-end": heavy(
        lambda: repeat(gzip.compress(bytes(1 << 20)), 1 << 12), _TOO_LARGE, headers=_GZIP
    ),
    "gzip-in-gzip": heavy(lambda: [gzip.compress(gzip.compress(bytes(_60_MIB)))], "not strict JSON", headers=_GZIP),
    "plain-zeros-without-end": heavy(lambda: repeat(bytes(_PIECE_BYTES), 1 << 12), _TOO_LARGE),
    "zeros-to-the-cap": heavy(filled(b"", b"\0", b""), "not strict JSON"),
    "empty-objects": heavy(filled(b"[", b"{},", b"{}]"), _TOO_MANY),
    "empty-objects-at-the-pointer": heavy(
        filled(b'{"tickers":[', b"{},", b"{}]}"), _TOO_MANY, API_RECORDS_POINTER="/tickers"
    ),
    "empty-arrays": heavy(filled(b"[", b"[],", b"[]]"), _TOO_MANY),
    "ones": heavy(filled(b"[", b"1,", b"1]"), _TOO_MANY),
    "empty-strings": heavy(filled(b"[", b'"",', b'""]'), _TOO_MANY),
    "members-of-the-root": heavy(filled(b"{", b'"k":1,', b'"k":1}'), None),
    "members-beside-the-pointer": heavy(filled(b"{", b'"k":1,', b'"k":1}'), None, API_RECORDS_POINTER="/tickers"),
    "opening-brackets": heavy(filled(b"", b"[", b""), "nested too deep"),
    "opening-braces": heavy(filled(b"", b'{"a":', b""), "nested too deep"),
    "pairs-of-brackets-in-a-record": heavy(filled(b'[{"a":[', b"[],", b"[]]}]"), None),
    "a-record-of-60-MiB": heavy(
        filled(b'[{"symbol":"A","x":"', b"x", b'"},{"symbol":"B"}]', _60_MIB), None, published=1
    ),
    "a-record-of-60-MiB-of-escapes": heavy(
        filled(b'[{"symbol":"A","x":"', b"\\u00e9", b'"},{"symbol":"B"}]', _60_MIB), None, published=1
    ),
    "a-key-of-60-MiB": heavy(filled(b'[{"symbol":"', b"\\n", b'"},{"symbol":"B"}]', _60_MIB), None, published=1),
    "a-number-of-60-MiB": heavy(filled(b'[{"symbol":', b"1", b'},{"symbol":"B"}]', _60_MIB), None, published=1),
    "an-error-of-60-MiB": heavy(filled(b'{"error":"', b"\\u0000", b'"}', _60_MIB), "the API answered with an error"),
    "60-MiB-of-text-with-a-wrong-byte-at-its-end": heavy(
        filled(b'[{"symbol":"A","x":"', "é€".encode(), b'\xff"}]', _60_MIB), "invalid UTF-8"
    ),
    "a-deep-record-beside-a-long-one": heavy(
        filled(b'[{"x":"', b"\\n", b'"},' + b'{"d":' * 100_000 + b"1" + b"}" * 100_000 + b',{"symbol":"B"}]', _60_MIB),
        None,
        published=1,
    ),
    "records-that-are-none": heavy(
        lambda: [b"[" + b",".join([b"[" + b"1" * 600 + b"]"] * 99_999) + b',{"symbol":"B"}]'], None, published=1
    ),
    "100000-records-of-640-bytes": heavy(many_records, None, full=True, published=100_000),
    "100000-records-changed": heavy(many_records, None, full=True, published=100_000, SELECT="changed"),
    "100000-records-random": heavy(many_records, None, full=True, published=1, SELECT="random"),
}
