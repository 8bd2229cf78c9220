"""What the worker needs from Kafka and from S3: the values that cross the border and the two ports.

Owns: the shapes. Does not own: how they are filled (`source`, `store`) or what is done with them
(`batch`, `chain`, `worker`). No I/O here, so the pure modules may import these values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the topic, whole. Only quarantine and envelopes need it; `timestamp` in ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class WireBatch(Protocol):
    """The readable records of one wire batch, in offset order, at least one.

    `offsets` is a `range` when they are dense. `next_offset` is where the wire batch ends (exclusive), which
    compaction can put beyond the last record. Timestamps are the raw ones, in ms.
    """

    @property
    def size_bytes(self) -> int:
        """As it came over the wire."""
        ...

    @property
    def next_offset(self) -> int: ...
    @property
    def values(self) -> Sequence[bytes | None]: ...
    @property
    def offsets(self) -> Sequence[int]: ...
    @property
    def timestamps(self) -> Sequence[int]: ...
    @property
    def max_timestamp(self) -> int:
        """The largest of `timestamps`, at least: the wire header's word, which spares reading each."""
        ...

    def record(self, index: int) -> Record:
        """Key, value and headers of the record at `index` of the sequences above."""
        ...

    def release(self) -> None:
        """Keep no values; asked again, they are read again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One partition's share of a poll: everything readable in [start, next_offset), `batches` may be empty.

    `next_offset` is the consumed position: control batches and aborted records that trail are behind it.
    """

    partition: int
    start: int
    next_offset: int
    batches: Sequence[WireBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfRange:
    """The broker says that `offset` is outside the partition's log. Nothing was consumed."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed offset of the group with the metadata string that was committed with it."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRange:
    """First offset of the partition's log and its high watermark (not the last stable offset)."""

    start: int
    high_watermark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicIdentity:
    """Who the topic is. Ids are None where the broker cannot tell; `compacted` by its cleanup.policy."""

    topic_id: str | None
    cluster_id: str | None
    partitions: int
    compacted: bool


class SourceError(Exception):
    """Kafka did not answer as needed; asking again may help. Nothing was consumed or committed by the failed call."""


class CommitRefusedError(SourceError):
    """The group no longer counts us in: the partitions are, or will be, another member's."""


class Listener(Protocol):
    """Told of rebalances by the source. Eager protocol: revoked and assigned name everything, each time."""

    async def on_revoked(self, partitions: Collection[int]) -> None: ...
    async def on_assigned(self, partitions: Collection[int]) -> None: ...


class Source(Protocol):
    """One topic in one consumer group. Every call has a deadline of its own; a failed one raises SourceError."""

    async def poll(self, wanted: Collection[int], timeout_seconds: float) -> Sequence[Fetched | OutOfRange]:
        """What arrived for the wanted partitions; the others' data stay where they are. May last through a rebalance.

        After a SourceError every partition must be sought to its next offset: drained records may be lost with it.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Next fetch starts at `offset`; whatever was fetched before is dropped. Ignored when not assigned."""
        ...

    async def commit(self, offsets: Mapping[int, Committed]) -> None:
        """Raises CommitRefusedError when the group has moved on, SourceError for anything that may pass."""
        ...

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]:
        """The group's offsets, None = surely none: any error of the answer, the top-level one too, is a SourceError."""
        ...

    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]: ...

    def high_watermark(self, partition: int) -> int | None:
        """As the last fetch told it; no request."""
        ...

    async def identity(self) -> TopicIdentity:
        """Raises SourceError while the topic does not exist."""
        ...


class Failure(StrEnum):
    """How an S3 request failed, by what can be done about it."""

    CONFLICT = "conflict"  # 409 ConditionalRequestConflict and its like: passes at once
    UNAVAILABLE = "unavailable"  # 5xx, throttling, time-outs, broken connections: passes; the effect is unknown
    CREDENTIALS = "credentials"  # expired or not yet there: heals when they are renewed
    REFUSED = "refused"  # denied, no such bucket, bad request: a person has to change something


class StoreError(Exception):
    """A request to S3 without the answer we need. `reason` is for people: code, message, what to do.

    `vague` = the answer had a status and no code, as a HEAD's always: where a better reason is known, that one counts.
    """

    def __init__(self, failure: Failure, reason: str, *, vague: bool = False) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason
        self.vague = vague


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One object to create. `crc32` is the body's, `metadata` short ASCII without the x-amz-meta- prefix."""

    key: str
    body: bytes
    crc32: int
    content_type: str
    metadata: Mapping[str, str]


class PutAnswer(StrEnum):
    """The two answers to a conditional put that settle something."""

    CREATED = "created"
    EXISTS = "exists"  # 412: there is an object at the key, perhaps our own


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object that is there. `metadata` keys in lower case, without the x-amz-meta- prefix; `size` in bytes."""

    key: str
    size: int
    metadata: Mapping[str, str]


class Store(Protocol):
    """One bucket. One attempt a call, under the deadline of one attempt; retrying is the caller's."""

    async def put_if_absent(self, upload: Upload) -> PutAnswer:
        """Create-if-absent. Any other answer is a StoreError, after which the object may be there or not."""
        ...

    async def head(self, key: str) -> Found | None:
        """None = 404, and only that."""
        ...

    def list_keys(self, prefix: str) -> AsyncIterator[str]:
        """Keys in lexicographic order, page by page; raises StoreError, after which the listing starts again."""
        ...

    def list_folders(self, prefix: str) -> AsyncIterator[str]:
        """The common prefixes below `prefix` up to the next slash, whole and with their final slash."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The whole body of a small object; None = 404."""
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The body in pieces, for bodies of any size. StoreError when it is not there or breaks off."""
        ...
