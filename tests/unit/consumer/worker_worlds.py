"""Workers on the fakes, in virtual time: a topic, a group, a bucket, and processes that come and go.

Owns: how a test starts, stops, freezes and kills a worker, and the verdict on the bucket. Does not own: any fault
(the fakes' plans are).
"""

from __future__ import annotations

import asyncio
import gzip
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from consumer.batch import Limits
from consumer.chain import Rules
from consumer.codecs import codec
from consumer.keys import KeyTemplate
from consumer.report import Report
from consumer.vitals import WatchedStore
from consumer.worker import Budget, Worker
from shared.schemas import Layout, decode_envelope
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.fakes.store import FakeStore
from tests.virtual_time import until

if TYPE_CHECKING:
    from consumer.partition import Partition

CHAIN_ID: Final = "c0ffee"
TEMPLATE: Final = "topic={topic}/dt={dt}/hour={hour}/{partition:05d}-{start:020d}.{ext}"
KEYS: Final = KeyTemplate(TEMPLATE, prefix="", topic="task", ext="jsonl.gz")
NO_KEYS_TIME: Final = KeyTemplate("{partition}-{start}.{ext}", prefix="", topic="task", ext="jsonl.gz")


class TellingReport(Report):
    """A Report whose metrics a test can read."""

    def __init__(self, *, each_record: bool = False) -> None:
        super().__init__(CollectorRegistry(), each_record=each_record)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"ticklake_consumer_{name}", labels) or 0.0


@dataclass(slots=True, kw_only=True)
class World:
    """One topic, one group, one bucket; the limits every worker gets."""

    partitions: int = 1
    seconds: float = 5.0
    records: int = 100
    max_bytes: int = 1 << 20
    memory_bytes: int = 1 << 24
    upload_concurrency: int = 4
    rebalance_seconds: float = 60.0
    give_up_seconds: float = 900.0
    skip_loss: bool = False
    keys: KeyTemplate = KEYS
    batches_per_poll: int = 4
    each_record: bool = False
    compression: str = "gzip"
    origins: dict[str, int] = field(default_factory=dict)
    log: FakeLog = field(init=False)
    group: FakeGroup = field(init=False)
    store: FakeStore = field(default_factory=FakeStore)

    def __post_init__(self) -> None:
        self.log = FakeLog(self.partitions)
        self.group = FakeGroup(self.log, rebalance_timeout_seconds=self.rebalance_seconds)

    @property
    def layout(self) -> Layout:
        return Layout(
            version=1,
            chain_id=CHAIN_ID,
            topic="task",
            topic_id="topic-1",
            cluster_id="cluster-1",
            template=self.keys.template,
            ext=self.keys.ext,
            format="value",
            compression=self.compression,
            origins=self.origins,
        )

    def rules(self, writer: str) -> Rules:
        return Rules(
            layout=self.layout,
            keys=self.keys,
            limits=Limits(records=self.records, bytes=self.max_bytes, seconds=self.seconds, bucket=self.keys.bucket),
            writer=writer,
            skip_loss=self.skip_loss,
            loss_wait_seconds=165.0,
            compare_timestamps=True,
        )

    async def start(self, name: str = "a", *, give_back_seconds: float = 16.0) -> Process:
        """A worker that has joined; its partitions may not be assigned yet."""
        process = Process(self, name, give_back_seconds)
        await process.source.connect()
        process.task = asyncio.create_task(process.run(), name=name)
        return process

    def produce(self, partition: int, *values: str, timestamp: int = 0) -> None:
        self.log.append(partition, [value.encode() for value in values], timestamp=timestamp)

    def numbers(self, partition: int, count: int, *, each: int = 10, timestamp: int = 0) -> None:
        """`count` records that say which they are, `each` a wire batch."""
        first = self.log.range(partition).high_watermark
        for begin in range(first, first + count, each):
            end = min(begin + each, first + count)
            self.produce(partition, *(f'"{partition}:{n}"' for n in range(begin, end)), timestamp=timestamp)

    # ---- the verdict -----------------------------------------------------------------------------------------------

    def links(self, partition: int) -> list[tuple[int, int, str]]:
        """The chain's objects: (start, next, key), by start."""
        found = []
        for key, stored in self.store.objects.items():
            if self.keys.parse(key) is not None and stored.metadata.get("partition") == str(partition):
                found.append((int(stored.metadata["start-offset"]), int(stored.metadata["next-offset"]), key))
        return sorted(found)

    def stored(self, partition: int) -> list[bytes]:
        """The lines of the chain, which must be gapless from its origin on."""
        end, lines = self.origins.get(str(partition), 0), []
        for start, next_offset, key in self.links(partition):
            stored = self.store.objects[key]
            assert start == end, f"{key} starts at {start}, the chain ended at {end}"
            body = gzip.decompress(stored.body) if key.endswith(".gz") else stored.body
            found = body.splitlines()
            assert len(found) == int(stored.metadata["record-count"])
            lines += found
            end = next_offset
        return lines

    def quarantined(self) -> dict[str, list[int]]:
        """Offsets by the name of the quarantine object."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for key, stored in self.store.objects.items():
            if key.startswith(self.keys.quarantine_prefix):
                for line in gzip.decompress(stored.body).splitlines():
                    found[key.rpartition("/")[2]].append(decode_envelope(line).offset)
        return dict(found)

    def readable(self, partition: int) -> list[bytes | None]:
        """The values of the log as it is."""
        bounds = self.log.range(partition)
        item = self.log.read(partition, bounds.start, 1 << 30)
        return [value for wire in getattr(item, "batches", ()) for value in wire.values]

    def complete(self) -> bool:
        """Every record of the topic stands in the bucket, exactly once and in order."""
        return all(self.stored(number) == self.readable(number) for number in range(len(self.log)))

    async def until_complete(self, *, seconds: float = 300.0) -> None:
        await until(self.complete, seconds=seconds, what="every record in the bucket, once")

    def committed(self, partition: int = 0) -> int | None:
        found = self.group.offsets.get(partition)
        return None if found is None else found.offset


class Process:
    """One worker with its source, as the service runs it."""

    def __init__(self, world: World, name: str, give_back_seconds: float) -> None:
        self.world = world
        self.source = FakeSource(world.group, batches_per_poll=world.batches_per_poll)
        self.stop = asyncio.Event()
        self.report = TellingReport(each_record=world.each_record)
        self.task: asyncio.Task[None] | None = None
        self.store = WatchedStore(
            world.store, clock=asyncio.get_running_loop().time, give_up_seconds=world.give_up_seconds
        )
        self.worker = Worker(
            source=self.source,
            store=self.store,
            rules=world.rules(name),
            budget=Budget(
                memory_bytes=world.memory_bytes,
                upload_concurrency=world.upload_concurrency,
                rebalance_timeout_seconds=world.rebalance_seconds,
            ),
            report=self.report,
            record_format="value",
            codec=codec(world.compression),
        )
        self._give_back_seconds = give_back_seconds

    def __getitem__(self, number: int) -> Partition:
        return self.worker.partitions[number]

    async def run(self) -> None:
        try:
            await self.worker.run(
                self.stop, join=lambda: self.source.join(self.worker), give_back_seconds=self._give_back_seconds
            )
        finally:
            await self.source.leave()

    async def end(self) -> None:
        """Stop as asked; raises what the worker raised."""
        self.stop.set()
        assert self.task is not None
        await self.task

    async def failure(self) -> BaseException:
        """What ended it."""
        assert self.task is not None
        await asyncio.wait([self.task])
        error = self.task.exception()
        assert error is not None
        return error

    async def running(self, *numbers: int) -> None:
        """Until these partitions (all of the topic by default) know where their chains end."""
        wanted = numbers or range(len(self.world.log))
        await until(
            lambda: all(n in self.worker.partitions and self[n].chain.position is not None for n in wanted),
            what="positions",
        )
