"""Kafka requests that aiokafka lacks or answers wrongly, and what their answers say.

Owns: building requests as values and deciphering answers; no I/O. Does not own: whom to ask, and asking again
(`inquiries`). An error code anywhere in an answer is raised as aiokafka's exception for it, never skipped.

The layouts: https://kafka.apache.org/protocol.html
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from aiokafka.errors import GroupIdNotFound, KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataRequest_v5
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
    UnsignedVarInt32,
)

from consumer.ports import Committed, TopicIdentity
from shared import topic_configs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from io import BytesIO

T = TypeVar("T")

EARLIEST: Final = -2
LATEST: Final = -1

_READ_UNCOMMITTED: Final = 0
_GROUP: Final = 0  # the kind of coordinator
_CLEANUP_POLICY: Final = "cleanup.policy"
_NO_OFFSET: Final = -1
_NO_ID: Final = bytes(16)


class CoordinatorAnswer(Protocol):
    """To `find_coordinator`."""

    error_code: int
    coordinator_id: int


class OffsetFetchAnswer(Protocol):
    """To `offset_fetch`: partition, offset, metadata, error code. Without a top-level `error_code` before v2."""

    topics: Sequence[tuple[str, Sequence[tuple[int, int, str | None, int]]]]


class ListOffsetsAnswer(Protocol):
    """To `list_offsets`: partition, error code, timestamp, offset."""

    topics: Sequence[tuple[str, Sequence[tuple[int, int, int, int]]]]


class DescribeGroupsAnswer(Protocol):
    """To `describe_group`: error code, name, state, type, protocol, members, and more from v3 on."""

    groups: Sequence[tuple[int, str, str, str, str, Sequence[object]]]


class ConsumerGroupAnswer(Protocol):
    """To ConsumerGroupDescribeRequest."""

    error_code: int
    state: str


class MetadataAnswer(Protocol):
    """To TopicMetadataRequest, in the layout of API_VERSION."""

    API_VERSION: int
    cluster_id: str | None
    topics: Sequence[tuple[object, ...]]


class _Uuid(AbstractType):  # type: ignore[misc] # aiokafka has no types
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _MetadataResponse_v12(Response):  # type: ignore[misc] # noqa: N801 # named as in aiokafka
    API_KEY = 3
    API_VERSION = 12
    # v10 has a field more at its end, which is not read.
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
    )


_ASKED_TOPICS: Final = CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))


class _MetadataRequest_v10(RequestStruct):  # type: ignore[misc] # noqa: N801
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse_v12
    SCHEMA = Schema(
        ("topics", _ASKED_TOPICS),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest_v12(RequestStruct):  # type: ignore[misc] # noqa: N801
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse_v12
    SCHEMA = Schema(
        ("topics", _ASKED_TOPICS),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicMetadataRequest(
    Request[MetadataRequest_v4 | MetadataRequest_v5 | _MetadataRequest_v10 | _MetadataRequest_v12]  # type: ignore[misc]
):
    """Who is this topic? Never creates it. Topic ids from v10 on (Kafka 2.8); aiokafka itself stops at v5."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        match request_struct_class.API_VERSION:
            case 12:
                return request_struct_class([(_NO_ID, self._topic, {})], False, False, {})  # noqa: FBT003
            case 10:
                return request_struct_class([(_NO_ID, self._topic, {})], False, False, False, {})  # noqa: FBT003
            case _:
                return request_struct_class([self._topic], False)  # noqa: FBT003


class _ConsumerGroupDescribeResponse_v0(Response):  # type: ignore[misc] # noqa: N801
    API_KEY = 69
    API_VERSION = 0
    # One group is asked for, and only its beginning is read.
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("count", UnsignedVarInt32),
        ("error_code", Int16),
        ("error_message", CompactString("utf-8")),
        ("group_id", CompactString("utf-8")),
        ("state", CompactString("utf-8")),
    )


class _ConsumerGroupDescribeRequest_v0(RequestStruct):  # type: ignore[misc] # noqa: N801
    API_KEY = 69
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ConsumerGroupDescribeResponse_v0
    SCHEMA = Schema(
        ("groups", CompactArray(CompactString("utf-8"))),
        ("include_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class ConsumerGroupDescribeRequest(Request[_ConsumerGroupDescribeRequest_v0]):  # type: ignore[misc]
    """State of a group of the new protocol (KIP-848). IncompatibleBrokerVersion where the broker has none."""

    API_KEY = 69

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return request_struct_class([self._group], False, {})  # noqa: FBT003


def find_coordinator(group: str) -> object:
    """Answered by any broker, read by `coordinator`."""
    return FindCoordinatorRequest(group, _GROUP)


def coordinator(answer: CoordinatorAnswer) -> int:
    """Node id of the group's coordinator."""
    _raise(answer.error_code)
    return answer.coordinator_id


def offset_fetch(group: str, topic: str, partitions: Collection[int]) -> object:
    """Answered by the coordinator, read by `committed`."""
    return OffsetFetchRequest(group, [(topic, sorted(partitions))])


def committed(answer: OffsetFetchAnswer, topic: str, partitions: Collection[int]) -> dict[int, Committed | None]:
    """Offset and metadata by partition, None = no offset. Raises on the top-level error, which aiokafka ignores."""
    _raise(getattr(answer, "error_code", 0))
    found: dict[int, Committed | None] = {}
    for name, entries in answer.topics:
        for partition, offset, metadata, error_code in entries if name == topic else ():
            _raise(error_code)
            found[partition] = None if offset == _NO_OFFSET else Committed(offset=offset, metadata=metadata or "")
    return _whole(found, partitions)


def list_offsets(topic: str, partitions: Collection[int], at: int) -> object:
    """`at`: EARLIEST or LATEST; the latter is the high watermark, as read_uncommitted sees it."""
    return OffsetRequest(-1, _READ_UNCOMMITTED, [(topic, [(partition, at) for partition in sorted(partitions)])])


def listed_offsets(answer: ListOffsetsAnswer, topic: str, partitions: Collection[int]) -> dict[int, int]:
    """Offset by partition. Raises unless every partition has one."""
    found: dict[int, int] = {}
    for name, entries in answer.topics:
        for partition, error_code, _timestamp, offset in entries if name == topic else ():
            _raise(error_code)
            found[partition] = offset
    return _whole(found, partitions)


def describe_group(group: str) -> object:
    """Answered by the coordinator, read by `has_members`."""
    return DescribeGroupsRequest([group])


def has_members(answer: DescribeGroupsAnswer) -> bool:
    """Whether a group of the classic protocol has any."""
    members = False
    for error_code, _group, _state, _type, _protocol, entries, *_ in answer.groups:
        if for_code(error_code) is not GroupIdNotFound:
            _raise(error_code)
        members = members or bool(entries)
    return members


def is_active(answer: ConsumerGroupAnswer) -> bool:
    """Whether a group of the new protocol has members. GroupIdNotFound = it is none of that protocol."""
    if for_code(answer.error_code) is GroupIdNotFound:
        return False
    _raise(answer.error_code)
    return answer.state not in {"Empty", "Dead"}


def describe_topic(topic: str) -> object:
    """Answered by any broker, read by `is_compacted`."""
    return topic_configs.describe_topic(topic, [_CLEANUP_POLICY])


def is_compacted(answer: topic_configs.DescribeConfigsAnswer) -> bool:
    """Whether cleanup.policy has `compact` in it."""
    return "compact" in topic_configs.topic_settings(answer).get(_CLEANUP_POLICY, "")


def identity(answer: MetadataAnswer, topic: str, *, compacted: bool) -> TopicIdentity:
    """Raises UnknownTopicOrPartitionError while the topic does not exist. Ids as Kafka's tools print them."""
    for error_code, name, *more in answer.topics:
        if name != topic:
            continue
        _raise(int(str(error_code)))
        topic_id = more[0] if answer.API_VERSION >= _MetadataRequest_v10.API_VERSION else None
        partitions = more[2] if topic_id is not None else more[1]
        return TopicIdentity(
            topic_id=_printed(topic_id) if isinstance(topic_id, bytes) else None,
            cluster_id=answer.cluster_id or None,
            partitions=len(partitions) if isinstance(partitions, list) else 0,
            compacted=compacted,
        )
    raise UnknownTopicOrPartitionError


def _printed(topic_id: bytes) -> str | None:
    return None if topic_id == _NO_ID else base64.urlsafe_b64encode(topic_id).decode().rstrip("=")


def _raise(error_code: int) -> None:
    if error_code:
        error: KafkaError = for_code(error_code)()
        raise error


def _whole(found: Mapping[int, T], partitions: Collection[int]) -> dict[int, T]:
    """Those asked for; an answer that leaves one out says nothing about it."""
    if missing := [partition for partition in partitions if partition not in found]:
        raise UnknownTopicOrPartitionError(f"no answer for partition {missing}")
    return {partition: found[partition] for partition in partitions}
