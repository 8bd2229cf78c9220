from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import structlog
from aiokafka.errors import MessageSizeTooLargeError, NodeNotReadyError, UnknownError

from producer.courier import Courier, NotTold
from producer.inquiry import AGE_SECONDS, Inquiry, Refusal
from producer.ledger import Parcel, Record
from producer.limits import DEFAULT_BATCH_BYTES, Size
from producer.shipment import Bundle
from producer.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANSWER = {"max.message.bytes": "5000", "cleanup.policy": "delete", "compression.type": "producer"}


class Broker:
    """Stands for the courier; each question takes the next answer, the last one for ever."""

    def __init__(self, *answers: Mapping[str, str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.topic_is_there = True
        self.now = 0.0
        self.slept = 0.0
        self.inquiry = Inquiry(
            "quotes",
            Surroundings(
                monotonic=lambda: self.now,
                wall=lambda: self.now,
                sleep=self.sleep,
                uniform=lambda: 0.0,
                pick=lambda _: 0,
            ),
        )

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)

    async def topic_settings(self, topic: str, _names: Sequence[str]) -> Mapping[str, str]:
        assert topic == "quotes"
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def partitions(self, _topic: str) -> frozenset[int]:
        return frozenset({0} if self.topic_is_there else ())

    async def ask(self) -> bool:
        return await self.inquiry.ask(cast("Courier", self))


def refusal(error: Exception, *keys: bytes | None, size: int = 4000) -> Refusal:
    records = [Record(key=key, value=b"") for key in keys]
    parcel = Parcel(source="s", time="t", topic="quotes", records=records)
    return Refusal(
        bundle=Bundle(partition=0, items=[(parcel, record) for record in records]),
        size=Size(raw_bytes=size, wire_bytes=size, records=len(records)),
        error=error,
    )


async def test_it_is_asked_again_of_another_client_and_after_some_minutes() -> None:
    broker = Broker(ANSWER)
    assert await broker.ask()
    assert broker.inquiry.limits.allowed_bytes == 5000
    assert await broker.ask()
    assert broker.asked == 1
    broker.now += AGE_SECONDS
    assert await broker.ask()
    assert broker.asked == 2
    broker.inquiry.begin()
    assert await broker.ask()
    assert broker.asked == 3


async def test_what_may_pass_is_asked_three_times_and_then_assumed() -> None:
    broker = Broker(NodeNotReadyError(), TimeoutError(), ANSWER)
    assert await broker.ask()
    assert (broker.asked, broker.inquiry.limits.allowed_bytes) == (3, 5000)
    broker = Broker(NodeNotReadyError())
    with structlog.testing.capture_logs() as lines:
        assert await broker.ask()
    assert (broker.asked, broker.slept) == (3, 2.0)
    assert broker.inquiry.limits.allowed_bytes == DEFAULT_BATCH_BYTES
    assert [line["event"] for line in lines] == ["Topic settings not told"]


async def test_a_denial_is_said_once() -> None:
    broker = Broker(NotTold("it is denied"))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert await broker.ask()
            broker.inquiry.begin()
    assert broker.asked == 3
    assert [(line["reason"], line["assumed_max_message_bytes"]) for line in lines] == [
        ("it is denied", DEFAULT_BATCH_BYTES)
    ]


async def test_a_topic_that_is_gone_is_not_asked_about_for_long() -> None:
    broker = Broker(NodeNotReadyError())
    broker.topic_is_there = False
    assert not await broker.ask()
    assert broker.asked == 1


async def test_a_refusal_that_the_new_settings_explain_teaches_nothing_more() -> None:
    broker = Broker({**ANSWER, "max.message.bytes": "9000"}, ANSWER)
    assert await broker.ask()
    broker.inquiry.refused(refusal(MessageSizeTooLargeError(), b"a", b"b", size=8000))
    broker.inquiry.begin()
    assert await broker.ask()
    assert broker.inquiry.limits.cut_bytes == 5000


async def test_a_refusal_that_they_do_not_explain_halves_the_batches() -> None:
    broker = Broker(ANSWER)
    assert await broker.ask()
    for _ in range(2):  # what one refusal taught is not learned again
        broker.inquiry.refused(refusal(MessageSizeTooLargeError(), b"a", b"b"))
        broker.inquiry.begin()
        assert await broker.ask()
        assert broker.inquiry.limits.cut_bytes == 2000
        broker.inquiry.begin()
        assert await broker.ask()
        assert broker.inquiry.limits.cut_bytes == 2000


async def test_an_invalid_record_means_a_missing_key_only_where_one_is_missing_and_nothing_is_told() -> None:
    for answer, keys, expected in (
        (NotTold("no"), (b"a", None), True),
        (NotTold("no"), (b"a", b"b"), False),
        (ANSWER, (b"a", None), False),
    ):
        broker = Broker(answer)
        broker.inquiry.refused(refusal(UnknownError(), *keys))
        assert await broker.ask()
        assert broker.inquiry.limits.needs_key is expected
