"""Codecs at their levels: what they write is read by independent hands, what they are counted for is what they take."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib

import pytest
import zstandard

from bootstrap import ROOT
from consumer import codecs
from consumer.codecs import DEFAULT_LEVEL, MAX_LEVELS, codec, crc32

LEVELS = [(name, level) for name, highest in MAX_LEVELS.items() for level in range(1, highest + 1)]
QUOTES = b"".join(b'{"symbol":"AB%d","price":%d.%d}\n' % (n % 97, n % 501, n % 89) for n in range(20_000))


def written(name: str, level: int | None, pieces: int = 7) -> bytes:
    stream = codec(name, level).start()
    step = len(QUOTES) // pieces + 1
    return b"".join([*(stream.compress(QUOTES[at : at + step]) for at in range(0, len(QUOTES), step)), stream.flush()])


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_every_level_writes_one_member_or_frame_that_others_can_read(name: str, level: int) -> None:
    content = written(name, level)
    if name == "gzip":
        assert zlib.decompress(content, wbits=31) == gzip.decompress(content) == QUOTES
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(content) == QUOTES
        assert zstandard.get_frame_parameters(content).has_checksum


def test_the_level_changes_the_size_and_the_default_is_the_first() -> None:
    for name in ("gzip", "zstd"):
        assert written(name, None) == written(name, DEFAULT_LEVEL)
        assert len(written(name, MAX_LEVELS[name])) < len(written(name, 1))
    assert written("none", None) == QUOTES


def test_without_the_fast_library_every_gzip_level_is_zlibs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "isal_zlib", None)
    for level in range(1, 10):
        stream = zlib.compressobj(level, zlib.DEFLATED, 31)
        assert written("gzip", level, pieces=1) == stream.compress(QUOTES) + stream.flush()
    assert crc32(QUOTES, 5) == zlib.crc32(QUOTES, 5)


def test_the_checksum_is_zlibs() -> None:
    assert crc32(QUOTES[9:], crc32(QUOTES[:9], 0)) == zlib.crc32(QUOTES)


MEASURE = """
import json, random, sys
from pathlib import Path
from consumer.codecs import codec
def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096
lines = [''.join(f'{{"n":{n},"s":"{random.getrandbits(64):x}"}}\\n' for n in range(500)).encode() for _ in range(8)]
one, count, rounds = codec(sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
kept, taken, found, before = [], 0, [], resident()
streams = [one.start() for _ in range(count)]
for some in [b'{}\\n', *lines * rounds]:
    kept += [stream.compress(some) for stream in streams]
    taken += len(some)
    found.append((taken, (resident() - before - sum(map(len, kept))) // count))
print(json.dumps(found))
"""
LEVELS_MEASURED = [("gzip", 1), ("gzip", 2), ("gzip", 3), ("gzip", 6), ("zstd", 1), ("zstd", 3), ("zstd", 9)]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize(("name", "level"), LEVELS_MEASURED)
def test_what_a_codec_is_counted_for_is_what_it_takes(name: str, level: int) -> None:
    """Never much less, at any time, and at the end not much more."""
    streams, rounds = (6, 50) if name == "zstd" and level > 1 else (60, 6)  # larger windows take longer to fill
    command = [sys.executable, "-c", MEASURE, name, str(level), str(streams), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [(codec(name, level).memory_bytes(taken), resident) for taken, resident in json.loads(done.stdout)]
    assert all(resident < 1.25 * counted + 16_384 for counted, resident in found), found
    counted, resident = found[-1]
    assert resident > 0.5 * counted, found
