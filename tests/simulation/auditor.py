"""What must hold of a simulated world, looked at after each effect.

Owns: the invariants of bucket, group, memory and deadlines, each in words of its own that share no code with the
consumer but the shapes of metadata and envelope. Does not own: what happens (`world`).

- The objects of a partition form a chain from its origin: each lands at the end of the one before.
- An object's lines are the log's records of its range, in order, whole; those that cannot be lines stand in the
  quarantine object it names, which was there before it.
- A put starts only at a boundary of the chain.
- What is committed is signed, a boundary, and stored.
- A process holds no more than its limit and what one poll brought, compressed or not.
- What is timed outlasts no deadline, on a clock that stands still while its process is frozen: the drain of partitions
  that are taken away, the taking of new ones, the stop, the gap between two polls. A request's own deadline is not
  looked at here: the fakes enforce it (`bucket`, `kafka`); tests/contract/test_store_faults.py and
  tests/contract/test_source_outages.py hold it for the real adapters.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zstandard

from consumer.ports import PutAnswer
from shared.schemas import ObjectMetadata, decode_envelope, sign_offset, signer
from tests.simulation.topic import growth_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumer.keys import KeyTemplate
    from consumer.ports import Committed, Upload
    from shared.schemas import Layout
    from tests.fakes.store import FakeStore
    from tests.simulation.topic import Topic, Written

# A piece of work in a thread lasts milliseconds; a deadline may be seen that much late.
SLACK_SECONDS: Final = 0.05
# Around what comes out of a codec: header, trailer, blocks. A partition has two streams: lines, quarantine.
FRAMES_BYTES: Final = 2 * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstored:
    """What a process has read of a partition, not stored: [start, end), of which [start, sealed) is an object to be."""

    partition: int
    start: int
    sealed: int
    end: int


class Auditor:
    """Raises AssertionError, with what was seen, at the first thing that must not be."""

    def __init__(
        self,
        *,
        topic: Topic,
        store: FakeStore,
        layout: Layout,
        keys: KeyTemplate,
        skip_loss: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.seen: Counter[str] = Counter()
        self.late_offsets: set[int] = set()  # partitions whose committed offset came late: perhaps it is an old one
        self._topic = topic
        self._store = store
        self._layout = layout
        self._keys = keys
        self._skip_loss = skip_loss
        self._tell = tell
        self._boundaries: dict[int, list[int]] = {}

    # ---- the chain ---------------------------------------------------------------------------------------------------

    def boundaries(self, partition: int) -> list[int]:
        """Origin and ends of the objects, in order; the last is the chain's end."""
        return self._boundaries.setdefault(partition, [self._layout.origin(partition)])

    def end(self, partition: int) -> int:
        return self.boundaries(partition)[-1]

    def not_stored(self, partition: int) -> Sequence[Written]:
        """What the log has behind the chain's end."""
        start = max(self.end(partition), self._topic.log.range(partition).start)
        return self._topic.between(partition, start, self._topic.end(partition))

    def put_starts(self, process: str, upload: Upload) -> None:
        """A process asks for an object."""
        if upload.key.startswith(self._keys.quarantine_prefix):
            return
        parsed = self._keys.parse(upload.key)
        assert parsed is not None, f"{upload.key} is no key of the template"
        assert parsed.start in self.boundaries(parsed.partition), (
            f"{process} puts {upload.key}: {parsed.start} is no boundary of {self.boundaries(parsed.partition)}"
        )

    def put_lands(self, process: str, upload: Upload, answer: PutAnswer) -> None:
        """The request reached the bucket, which answered."""
        self._tell(f"bucket: {answer} {upload.key} of {process}")
        if answer is not PutAnswer.CREATED or upload.key.startswith(self._keys.quarantine_prefix):
            return
        parsed = self._keys.parse(upload.key)
        assert parsed is not None
        metadata = ObjectMetadata.decode(upload.metadata)
        boundaries, partition = self.boundaries(parsed.partition), parsed.partition
        span = f"{upload.key} [{metadata.start_offset}, {metadata.next_offset}) by {metadata.writer}"
        assert (metadata.partition, metadata.start_offset) == (partition, parsed.start), f"{span}: other than its key"
        assert metadata.start_offset == boundaries[-1], f"{span}: the chain ends at {boundaries[-1]}"
        assert metadata.next_offset > metadata.start_offset, f"{span}: empty range"
        assert metadata.next_offset <= self._topic.log.range(partition).high_watermark, f"{span}: beyond the log"
        assert (metadata.chain_id, metadata.topic) == (self._layout.chain_id, self._layout.topic), span
        first = metadata.start_offset + metadata.lost_count
        if metadata.lost_count:
            assert self._skip_loss, f"{span}: lost {metadata.lost_count} without leave"
            assert first <= self._topic.log.range(partition).start, f"{span}: lost what the log still has"
            self.seen["loss skipped"] += 1
        self._check_content(span, upload, metadata, self._topic.between(partition, first, metadata.next_offset))
        boundaries.append(metadata.next_offset)

    def _check_content(self, span: str, upload: Upload, metadata: ObjectMetadata, written: Sequence[Written]) -> None:
        assert written, f"{span}: an object of no record"
        body = decompressed(upload.key, upload.body)
        assert hashlib.sha256(body).hexdigest() == metadata.sha256, f"{span}: sha256"
        assert not body or body.endswith(b"\n"), f"{span}: no final newline"
        lines = body.split(b"\n")[:-1]
        aside: list[Written] = []
        if self._layout.format == "value":
            aside = [one for one in written if one.line is None]
            expected = [one.line for one in written if one.line is not None]
            assert lines == expected, f"{span}: {_difference(lines, expected)}"
        else:
            _check_envelopes(span, lines, written)
        assert metadata.record_count == len(lines), f"{span}: counts {metadata.record_count} lines of {len(lines)}"
        assert metadata.quarantined_count == len(aside), f"{span}: counts {metadata.quarantined_count} aside"
        assert metadata.first_timestamp == written[0].record.timestamp, f"{span}: first timestamp"
        assert metadata.max_timestamp == max(one.record.timestamp for one in written), f"{span}: max timestamp"
        if aside:
            self.seen["quarantine"] += 1
            there = self._store.objects.get(self._keys.quarantine_prefix + metadata.quarantine)
            assert there is not None, f"{span}: its quarantine {metadata.quarantine} is not there"
            _check_envelopes(f"{span}, quarantine", gzip.decompress(there.body).split(b"\n")[:-1], aside)
        else:
            assert not metadata.quarantine, f"{span}: names a quarantine"

    # ---- the group's offsets -----------------------------------------------------------------------------------------

    def commit_lands(
        self, process: str, offsets: Mapping[int, Committed], *, before: Mapping[int, Committed], late: bool
    ) -> None:
        """The group's coordinator takes them. Only a `late` one may step back, or one that follows it."""
        for partition, committed in offsets.items():
            self._tell(f"group: {partition} at {committed.offset} by {process}{', late' if late else ''}")
            assert committed.metadata == sign_offset(self._layout.chain_id, committed.offset), f"{committed}: signature"
            assert committed.offset in self.boundaries(partition), (
                f"{process} commits {committed.offset} of {partition}: no boundary of {self.boundaries(partition)}"
            )
            there = before.get(partition)
            ours = there is not None and signer(there.offset, there.metadata) == self._layout.chain_id
            if there is not None and ours and committed.offset < there.offset:
                assert late or partition in self.late_offsets, (
                    f"{process} commits {committed.offset} of {partition}, {there.offset} was committed before"
                )
                self.seen["commit stepped back"] += 1
            if late:
                self.late_offsets.add(partition)
            else:
                self.late_offsets.discard(partition)

    # ---- a process ---------------------------------------------------------------------------------------------------

    def memory(
        self, process: str, *, buffered_bytes: int, unstored: Iterable[Unstored], limit_bytes: int, polled_bytes: int
    ) -> None:
        """`polled_bytes`: what the last poll brought, at the most that it can cost.

        A codec gets no allowance for its buffers: it is charged what it took, up to their size (352 KiB for gzip, 936
        KiB for zstd), and no world writes that much. So records cost the same in it as before it, until the flush at
        the end of a body: for a moment that one is there twice, as what the codec took and as what came out.
        """
        if buffered_bytes <= limit_bytes:
            return
        self.seen["above the memory limit"] += 1
        if self._layout.compression != "none":
            self.seen["above the memory limit, compressed"] += 1
        allowed = limit_bytes + 2 * polled_bytes  # as it came, and its values or lines
        for one in unstored:  # what was there may have become lines meanwhile, which are longer
            allowed += growth_bytes(self._topic.between(one.partition, one.start, one.end))
            if self._layout.compression != "none" and one.end > one.start:
                sealed = self._topic.between(one.partition, one.start, one.sealed)
                allowed += FRAMES_BYTES + sum(written.memory_bytes for written in sealed)
        assert buffered_bytes <= allowed, f"{process} holds {buffered_bytes} bytes, allowed are {allowed}"

    def in_time(self, process: str, what: str, seconds: float, allowed: float) -> None:
        assert seconds <= allowed + SLACK_SECONDS, f"{process}: {what} took {seconds:.3f} s of {allowed:.3f} s"


def decompressed(key: str, body: bytes) -> bytes:
    if key.endswith(".gz"):
        return gzip.decompress(body)
    return zstandard.ZstdDecompressor().decompressobj().decompress(body) if key.endswith(".zst") else body


def _check_envelopes(span: str, lines: Sequence[bytes], written: Sequence[Written]) -> None:
    found = [decode_envelope(line) for line in lines]
    expected = [one.record for one in written]
    assert [one.offset for one in found] == [one.offset for one in expected], f"{span}: other offsets"
    for one, record in zip(found, expected, strict=True):
        is_ = (one.timestamp, one.key, one.value, tuple(one.headers))
        assert is_ == (record.timestamp, record.key, record.value, tuple(record.headers)), f"{span}: {one} of {record}"


def _difference(found: Sequence[bytes | None], expected: Sequence[bytes | None]) -> str:
    for index, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"line {index} is {one!r}, the log has {other!r}"
    return f"{len(found)} lines, the log has {len(expected)}"
