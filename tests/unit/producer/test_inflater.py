from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.inflater import Inflater
from producer.parser import BodyError


def inflate(wire: bytes, coding: str = "gzip", limit: int = 1 << 20, step: int = 1 << 16) -> bytes:
    inflater = Inflater(coding, limit)
    for position in range(0, len(wire), step):
        inflater.feed(wire[position : position + step])
    return bytes(inflater.finish())


@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=3), step=st.integers(1, 500))
def test_gzip_in_any_cuts_and_members_gives_the_body(parts: list[bytes], step: int) -> None:
    assert inflate(b"".join(map(gzip.compress, parts)), step=step) == b"".join(parts)


@given(
    extra=st.none() | st.binary(max_size=300),
    name=st.none() | st.binary(max_size=300),
    comment=st.none() | st.binary(max_size=300),
    checked=st.booleans(),
    step=st.integers(1, 500),
)
def test_whatever_the_header_carries_is_skipped(
    extra: bytes | None, name: bytes | None, comment: bytes | None, checked: bool, step: int
) -> None:
    flags = (extra is not None) * 4 + (name is not None) * 8 + (comment is not None) * 16 + checked * 2
    header = bytes((0x1F, 0x8B, 8, flags)) + bytes(6)
    if extra is not None:
        header += len(extra).to_bytes(2, "little") + extra
    for text in (name, comment):
        header += b"" if text is None else text.replace(b"\0", b"") + b"\0"
    if checked:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    assert inflate(header + gzip.compress(b"abc" * 100)[10:], step=step) == b"abc" * 100


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_without_a_coding_the_body_is_what_came(coding: str) -> None:
    assert inflate(b"abc", coding) == b"abc"


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_a_coding_that_was_not_offered_is_refused(coding: str) -> None:
    with pytest.raises(BodyError, match="not offered"):
        Inflater(coding, 100)


def test_the_cap_holds_to_the_byte() -> None:
    assert len(inflate(gzip.compress(b"x" * 1000), limit=1000)) == 1000
    for wire, coding in ((gzip.compress(b"x" * 1001), "gzip"), (b"x" * 1001, "")):
        with pytest.raises(BodyError, match=r"larger than API_MAX_BODY_BYTES \(1000\)"):
            inflate(wire, coding, limit=1000)


def test_a_bomb_costs_no_more_than_the_cap_and_a_step() -> None:
    bomb = gzip.compress(bytes(256 << 20), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(BodyError, match="API_MAX_BODY_BYTES"):
            inflate(bomb, limit=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "wire",
    [gzip.compress(b"x" * 9000)[:-5], b"", zlib.compress(b"abc"), b"abc", gzip.compress(b"abc") + b"rest"],
    ids=["cut", "empty", "zlib", "plain", "trailed"],  # a gzip header holds the time, so their bytes are no names
)
def test_gzip_that_is_damaged_or_cut_is_refused(wire: bytes) -> None:
    with pytest.raises(BodyError, match="gzip"):
        inflate(wire)
