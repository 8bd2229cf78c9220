"""Questions to the brokers, answered by a client made here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion, KafkaConnectionError
from aiokafka.protocol.admin import DescribeConfigsRequest, DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.offset import OffsetRequest

from consumer.inquiries import Inquiries
from consumer.ports import Committed, LogRange, SourceError
from consumer.requests import ConsumerGroupDescribeRequest, TopicMetadataRequest
from consumer.seams import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from aiokafka.structs import TopicPartition

LOADING, UNAVAILABLE, MOVED, NOT_LEADER, DENIED = 14, 15, 16, 6, 29


@dataclass
class Connection:
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Cluster:
    leaders: dict[int, int]

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        return self.leaders.get(partition.partition)


@dataclass
class Client:
    """Answers by the request's kind, in the order given, the last one for ever. Exceptions are raised, None hangs."""

    answers: dict[type, list[object]]
    leaders: dict[int, int] = field(default_factory=lambda: {0: 1, 1: 2})
    asked: list[tuple[int, str]] = field(default_factory=list)
    refreshed: int = 0

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.leaders)
        self.own, self.other = Connection(), Connection()
        self._conns: dict[tuple[object, int], Connection] = {(1, QUESTIONS): self.own, (1, 0): self.other}
        self.answers.setdefault(FindCoordinatorRequest, [SimpleNamespace(error_code=0, coordinator_id=5)])

    def set_topics(self, topics: Sequence[str]) -> object:
        raise AssertionError

    def get_random_node(self) -> int | None:
        return 9

    def force_metadata_update(self) -> Awaitable[object]:
        self.refreshed += 1
        return asyncio.sleep(0)

    async def send(self, node_id: int, request: object, *, group: int) -> object:
        assert group == QUESTIONS
        self.asked.append((node_id, type(request).__name__))
        waiting = self.answers[type(request)]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def inquiries(client: Client, seconds: float = 5) -> Inquiries:
    return Inquiries(client, topic="quotes", group="g", timeout_seconds=seconds)


def offsets(*entries: tuple[int, int, str, int], error_code: int = 0) -> object:
    return SimpleNamespace(topics=[("quotes", list(entries))], error_code=error_code)


NOTHING = offsets((0, -1, "", 0))


@pytest.mark.parametrize("error_code", [LOADING, UNAVAILABLE, MOVED])
async def test_a_top_level_error_is_not_no_offset(error_code: int) -> None:
    client = Client({OffsetFetchRequest: [offsets((0, -1, "", 0), error_code=error_code)]})
    with pytest.raises(SourceError, match=r"did not tell the committed offsets of group g within 0\.3 s"):
        await inquiries(client, 0.3).committed([0])


async def test_a_loading_coordinator_is_asked_again_after_a_new_lookup() -> None:
    client = Client(
        {
            FindCoordinatorRequest: [
                SimpleNamespace(error_code=0, coordinator_id=5),
                SimpleNamespace(error_code=UNAVAILABLE, coordinator_id=-1),
                SimpleNamespace(error_code=0, coordinator_id=6),
            ],
            OffsetFetchRequest: [
                offsets(error_code=MOVED),
                offsets((0, -1, "", 0), error_code=LOADING),
                offsets((0, 500, "ticklake:c:500", 0), (1, -1, "", 0)),
            ],
        }
    )
    found = await inquiries(client).committed([0, 1])
    assert found == {0: Committed(offset=500, metadata="ticklake:c:500"), 1: None}
    assert [node for node, name in client.asked if name == "OffsetFetchRequest"] == [5, 6, 6]
    assert client.refreshed == 3


@pytest.mark.parametrize("answer", [offsets((0, 5, "", LOADING)), offsets((1, 5, "", 0)), SimpleNamespace(topics=[])])
async def test_a_partition_with_an_error_or_without_an_answer_is_not_no_offset(answer: object) -> None:
    with pytest.raises(SourceError):
        await inquiries(Client({OffsetFetchRequest: [answer]}), 0.3).committed([0])


async def test_an_old_answer_without_a_top_level_code_is_read() -> None:
    client = Client({OffsetFetchRequest: [SimpleNamespace(topics=[("quotes", [(0, 3, None, 0)])])]})
    assert await inquiries(client).committed([0]) == {0: Committed(offset=3, metadata="")}


async def test_a_denied_group_is_told_at_once() -> None:
    client = Client({FindCoordinatorRequest: [GroupAuthorizationFailedError("g")]})
    with pytest.raises(SourceError, match=r"refused to tell the committed offsets of group g: .*GroupAuthorization"):
        await inquiries(client, 60).committed([0])


async def test_an_answer_that_never_comes_ends_at_the_deadline_and_its_connection_with_it() -> None:
    client = Client({OffsetFetchRequest: [None]})
    with pytest.raises(SourceError, match=r"within 0.2 s \(no answer\)"):
        await inquiries(client, 0.2).committed([0])
    assert client.own.closed
    assert not client.other.closed


async def test_a_broken_connection_is_tried_again() -> None:
    client = Client({OffsetFetchRequest: [KafkaConnectionError("gone"), NOTHING]})
    assert await inquiries(client).committed([0]) == {0: None}


def listed(*entries: tuple[int, int, int, int]) -> object:
    return SimpleNamespace(topics=[("quotes", list(entries))])


async def test_leaders_are_asked_for_their_partitions_and_again_when_they_moved() -> None:
    client = Client(
        {
            OffsetRequest: [
                listed((0, NOT_LEADER, -1, -1)),
                *[listed((0, 0, -1, 4)), listed((1, 0, -1, 0))],
                *[listed((0, 0, -1, 13)), listed((1, 0, -1, 2))],
            ]
        }
    )
    ranges = await inquiries(client).log_ranges([0, 1])
    assert ranges == {0: LogRange(start=4, high_watermark=13), 1: LogRange(start=0, high_watermark=2)}
    assert [node for node, _ in client.asked] == [1, 1, 2, 1, 2]


async def test_a_partition_without_a_leader_is_an_error() -> None:
    client = Client({OffsetRequest: [listed()]}, leaders={0: -1})
    with pytest.raises(SourceError, match="has no leader"):
        await inquiries(client, 0.3).log_ranges([0])


def group(members: int, error_code: int = 0) -> object:
    return SimpleNamespace(groups=[(error_code, "g", "Stable", "consumer", "roundrobin", [object()] * members)])


@pytest.mark.parametrize(
    ("classic", "modern", "members"),
    [
        (group(2), SimpleNamespace(error_code=69, state=""), True),
        (group(0), SimpleNamespace(error_code=69, state=""), False),
        (group(0, 69), SimpleNamespace(error_code=0, state="Stable"), True),
        (group(0), SimpleNamespace(error_code=0, state="Reconciling"), True),
        (group(0), SimpleNamespace(error_code=0, state="Empty"), False),
        (group(0), IncompatibleBrokerVersion("no such request"), False),
    ],
)
async def test_members_of_either_protocol_count(classic: object, modern: object, *, members: bool) -> None:
    client = Client({DescribeGroupsRequest: [classic], ConsumerGroupDescribeRequest: [modern]})
    assert await inquiries(client).group_has_members() is members


async def test_a_group_that_cannot_be_described_does_not_count_as_empty() -> None:
    client = Client({DescribeGroupsRequest: [group(0, MOVED)], ConsumerGroupDescribeRequest: [group(0)]})
    with pytest.raises(SourceError):
        await inquiries(client, 0.3).group_has_members()


def metadata(version: int, *topic: object) -> object:
    return SimpleNamespace(API_VERSION=version, cluster_id="cluster", topics=[topic])


async def test_denied_configuration_counts_as_not_compacted() -> None:
    client = Client(
        {
            TopicMetadataRequest: [metadata(12, 0, "quotes", b"\x01" * 16, False, [object()] * 3)],
            DescribeConfigsRequest: [SimpleNamespace(resources=[(DENIED, "denied", 2, "quotes", [])])],
        }
    )
    identity = await inquiries(client).identity()
    assert not identity.compacted
    assert identity.topic_id == "AQEBAQEBAQEBAQEBAQEBAQ"
    assert identity.partitions == 3


async def test_a_broker_without_topic_ids_still_tells_the_rest() -> None:
    client = Client(
        {
            TopicMetadataRequest: [metadata(5, 0, "quotes", False, [object()] * 3)],
            DescribeConfigsRequest: [
                SimpleNamespace(resources=[(0, None, 2, "quotes", [("cleanup.policy", "compact,delete", False)])])
            ],
        }
    )
    identity = await inquiries(client).identity()
    assert identity.topic_id is None
    assert identity.cluster_id == "cluster"
    assert identity.partitions == 3
    assert identity.compacted


async def test_a_missing_topic_is_told_at_once() -> None:
    client = Client({TopicMetadataRequest: [metadata(12, 3, "quotes", bytes(16), False, [])]})
    with pytest.raises(SourceError, match="topic quotes does not exist"):
        await inquiries(client, 60).identity()
