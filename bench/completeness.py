"""Whether a bucket holds every record of a topic exactly once. A figure is void when it does not.

Owns: reading the objects of a run back and accounting for every line. Does not own: what the lines must be (`quotes`),
how the objects came there. Names of objects do not matter, so it judges any sink.

Invariants: a line counts as the record whose bytes it has, whichever object it is in; an object whose
lines are a range of the topic's is known by that range's SHA-256, any other one is looked at line by line.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard

from bench import quotes
from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bench.topics import Topic

OURS_BESIDE = "_ticklake"  # the folder of layout and quarantine: no lines of the chain
BESIDE_BODIES = ".meta.json"  # MiniStack's, one for each object


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a run left in the bucket."""

    objects: int
    bytes: int


@dataclass(slots=True)
class Account:
    """How often each record of a topic was found."""

    topic: Topic
    partitions: int
    found: list[bytearray] = field(init=False)
    strangers: int = 0

    def __post_init__(self) -> None:
        self.found = [bytearray(self.topic.offsets) for _ in range(self.partitions)]

    def take(self, body: bytes) -> None:
        """Count the lines of one object, uncompressed."""
        if not body:
            return
        if (span := self._range(body)) is not None:
            partition, first, count = span
            self._count(partition, first, count)
            return
        for line in body.removesuffix(b"\n").split(b"\n"):
            self._line(line)

    def check(self) -> None:
        """Raises BenchError when a record is missing or doubled, or a line is none of the topic's."""
        missing = sum(counts.count(0) for counts in self.found)
        doubled = sum(len(counts) - counts.count(0) - counts.count(1) for counts in self.found)
        if missing or doubled or self.strangers:
            message = (
                f"of {self.topic.records:,} records {missing:,} are missing and {doubled:,} doubled, "
                f"{self.strangers:,} lines are none of the topic's: the figures are void"
            )
            raise BenchError(message)

    def _range(self, body: bytes) -> tuple[int, int, int] | None:
        """Partition, first offset and count, when the body is exactly a range of the topic's lines."""
        count, rest = divmod(len(body), self.topic.shape.value_bytes + 1)
        try:
            partition, first = quotes.place(body[: self.topic.shape.value_bytes])
        except ValueError:
            return None
        if rest or not (0 <= partition < self.partitions and 0 <= first <= self.topic.offsets - count):
            return None
        expected = quotes.digest(self.topic.shape, partition, first, count)
        return (partition, first, count) if hashlib.sha256(body).digest() == expected else None

    def _count(self, partition: int, first: int, count: int) -> None:
        counts = self.found[partition]
        if counts.count(0, first, first + count) == count:
            counts[first : first + count] = b"\1" * count
            return
        for offset in range(first, first + count):
            counts[offset] = min(counts[offset] + 1, 2)

    def _line(self, line: bytes) -> None:
        try:
            partition, offset = quotes.place(line)
        except ValueError:
            self.strangers += 1
            return
        known = 0 <= partition < self.partitions and 0 <= offset < self.topic.offsets
        if known and [line] == quotes.values(self.topic.shape, partition, offset, 1):
            self._count(partition, offset, 1)
        else:
            self.strangers += 1


def check(topic: Topic, partitions: int, folder: Path) -> Stored:
    """Read every object below the folder. Raises BenchError unless each record of the topic is there exactly once."""
    account = Account(topic, partitions)
    objects = size = 0
    for path, content in _contents(folder):
        objects += 1
        size += len(content)
        account.take(uncompressed(path.name, content))
    account.check()
    return Stored(objects=objects, bytes=size)


def uncompressed(name: str, content: bytes) -> bytes:
    """The lines of an object, by its name's ending."""
    if name.endswith(".gz"):
        return gzip.decompress(content)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


def _contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in _objects(folder.rglob("*")):
        yield path, path.read_bytes()


def _objects(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file() and OURS_BESIDE not in path.parts and not path.name.endswith(BESIDE_BODIES):
            yield path
