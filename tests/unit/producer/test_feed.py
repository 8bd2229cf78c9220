"""The way into one topic in virtual time, with clients of the test's own (real ones: integration/test_publisher.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError, UnknownError
from aiokafka.partitioner import murmur2

from producer import feed
from producer.ledger import Ledger, Parcel, Record
from producer.metrics import Metrics
from producer.packer import partition_index
from producer.publisher import Publisher
from producer.redactor import Redactor
from producer.surroundings import Surroundings
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

TOPIC = "task"
ANSWER_SECONDS = 0.02


@dataclass(slots=True)
class Kafka:
    """Two partitions. `refuses`: with what a partition answers at present, None = it takes all."""

    refuses: Callable[[int], KafkaError | None]
    clients: list[float] = field(default_factory=list)  # when each was made

    def courier(self, _options: Mapping[str, object]) -> Client:
        self.clients.append(asyncio.get_running_loop().time())
        return Client(self)


class Client:
    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.answers: list[asyncio.Future[object]] = []
        self.endless = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        pass

    def partitions(self, topic: str) -> frozenset[int]:
        return frozenset({0, 1})

    def has_leader(self, topic: str, partition: int) -> bool:
        return True

    async def topic_settings(self, topic: str, names: Sequence[str]) -> Mapping[str, str]:
        return {"max.message.bytes": "1048588"}

    async def hand_over(self, batch: object, topic: str, partition: int) -> asyncio.Future[object]:
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def decide() -> None:
            error = self.kafka.refuses(partition)
            if answer.cancelled():
                return
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        asyncio.get_running_loop().call_later(ANSWER_SECONDS, decide)
        self.answers.append(answer)
        return answer

    def vital_tasks(self) -> list[asyncio.Future[object]]:
        return [self.endless]

    async def abandon(self, seconds: float) -> bool:
        for answer in (*self.answers, self.endless):
            answer.cancel()
        return True


def keys_of(partition: int) -> Iterator[bytes]:
    return (key for key in (b"k%d" % n for n in range(1000)) if partition_index(murmur2(key), 2) == partition)


@dataclass(slots=True)
class Rig:
    kafka: Kafka
    ledger: Ledger = field(default_factory=Ledger)
    metrics: Metrics = field(default_factory=lambda: Metrics(unacked_bytes=lambda: 0))

    def publisher(self, patch: pytest.MonkeyPatch) -> Publisher:
        patch.setattr(feed, "Courier", self.kafka.courier)
        loop = asyncio.get_running_loop()
        surroundings = Surroundings(
            monotonic=loop.time,
            wall=lambda: loop.time() + 1_800_000_000,
            sleep=asyncio.sleep,
            uniform=lambda: 0.5,
            pick=lambda _: 0,
        )
        return Publisher(
            {"bootstrap_servers": ["b:9092"]},
            [TOPIC],
            metrics=self.metrics,
            ledger=self.ledger,
            redactor=Redactor(()),
            surroundings=surroundings,
        )


def parcel(key: bytes) -> Parcel:
    return Parcel(source="http://h/x", time="t", topic=TOPIC, records=[Record(key=key, value=b"{}")])


def test_a_partition_that_refuses_is_tried_ever_more_seldom_while_another_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @virtual_time
    async def run() -> None:
        loop = asyncio.get_running_loop()
        mended_at = loop.time() + 300.0

        def refuses(partition: int) -> KafkaError | None:
            return UnknownError("INVALID_RECORD") if partition == 0 and loop.time() < mended_at else None

        rig = Rig(Kafka(refuses))
        publisher = rig.publisher(monkeypatch)
        running = asyncio.create_task(publisher.run())
        refused = publisher.submit(parcel(next(keys_of(0))))
        others = []
        with structlog.testing.capture_logs() as lines:
            while loop.time() < mended_at:
                others.append(publisher.submit(parcel(next(keys_of(1)))))
                await asyncio.sleep(2.0)
                if len(others) == 100:
                    assert any("INVALID_RECORD" in reason for reason in publisher.not_ready())
        gaps = [later - earlier for earlier, later in zip(rig.kafka.clients, rig.kafka.clients[1:], strict=False)]
        assert [round(gap) for gap in gaps[:6]] == [1, 2, 4, 8, 16, 30]
        assert all(gap >= 30.0 for gap in gaps[5:])
        assert Counter(line["event"] for line in lines) == {
            "Kafka is ready": 1,  # before the first refusal
            "Kafka client replaced": len(gaps) + 1,
        }
        await asyncio.sleep(40.0)
        assert refused.result().acknowledged == 1
        assert all(each.result().acknowledged == 1 for each in others)
        assert publisher.not_ready() == []
        running.cancel()
        await asyncio.wait({running})

    run()
