"""What a scenario acts in: a topic, a bucket behind the fault proxy, consumers as real processes, a load, the proof.

Owns: their life during one scenario, the figures every scenario has, and what must hold at the end of each (`proven`).
Does not own: what happens in between (`scenarios/`), the servers' start (`runner`), the verdict (`tests.oracle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from typing import TYPE_CHECKING

from demo.kafka_server import KafkaServer
from tests.chaos import figures
from tests.chaos.load import Load
from tests.chaos.replicas import Replicas
from tests.oracle import Verdict, chain_ends, judge
from tests.servers import S3, Kafka, eventually, unique

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from demo.s3_server import S3Server
    from tests.chaos.fault_proxy import FaultProxy
    from tests.chaos.registry import Scenario
    from tests.servers import KafkaRecord

SHUTDOWN_TIMEOUT_SECONDS = 15.0
CATCH_UP_SECONDS = 60.0
COMMITS_SECONDS = 30.0
SAMPLE_SECONDS = 0.5
# Short, so that a scenario fits its budget: what is proven does not hang on them.
SETTINGS: Mapping[str, str] = {
    "BATCH_MAX_SECONDS": "1",
    "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
    "KAFKA_REBALANCE_TIMEOUT_SECONDS": "15",
    "SHUTDOWN_TIMEOUT_SECONDS": f"{SHUTDOWN_TIMEOUT_SECONDS:g}",
    "UPLOAD_TIMEOUT_SECONDS": "10",
}


class Arena(Replicas):
    """Made by the runner for one scenario; everything in it is that scenario's own, but perhaps the servers."""

    def __init__(self, scenario: Scenario, *, kafka: Kafka, s3: S3, proxy: FaultProxy, folder: Path, seed: int) -> None:
        self.scenario = scenario
        self.kafka = kafka
        self.s3 = s3
        self.proxy = proxy
        self.random = random.Random(seed)
        self.topic = unique(scenario.name)
        self.bucket = unique("chaos")
        self.group = unique("group")
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": self.group,
            "S3_BUCKET": self.bucket,
            **s3.environ(),
            "AWS_ENDPOINT_URL_S3": proxy.url,
            **SETTINGS,
            **scenario.settings,
        }
        super().__init__(settings, folder=folder, partitions=scenario.partitions)
        self.loads: list[Load] = []
        self.verdict: Verdict | None = None
        self.earlier: dict[int, list[KafkaRecord]] = {}
        self._seed = seed
        self._sampling: asyncio.Task[None] | None = None

    # ---- life (the runner's) ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make topic and bucket."""
        await self.kafka.create_topic(self.scenario.partitions, config=self.scenario.topic_config, name=self.topic)
        await self.s3.create_bucket(self.bucket)
        self._sampling = asyncio.create_task(self._sample_memory(), name="memory samples")

    async def close(self) -> None:
        """End what still runs, whatever happened."""
        if self._sampling is not None:
            self._sampling.cancel()
        for consumer in self.consumers:
            consumer.__exit__(None, None, None)
        for load in self.loads:
            await load.abandon()

    async def _sample_memory(self) -> None:
        while True:
            self.peak_memory_bytes()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def restart(self, server: KafkaServer | S3Server) -> None:
        """Start a killed or stopped server again, on its data and port; back when it serves. The load runs on."""
        if isinstance(server, KafkaServer):
            await asyncio.to_thread(server.prepare)
        server.spawn()  # from the main thread, see demo.server_process
        await asyncio.to_thread(server.wait_ready)

    # ---- load -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def load(
        self,
        records_per_second: float = 3000,
        *,
        value_bytes: int = 150,
        partitions: Sequence[int] | None = None,
    ) -> AsyncIterator[Load]:
        """Records arrive inside the block, evenly over the partitions; all are acknowledged at its end."""
        load = Load(
            self.kafka.bootstrap_servers,
            self.topic,
            partitions=list(range(self.scenario.partitions)) if partitions is None else partitions,
            records_per_second=records_per_second,
            value_bytes=value_bytes,
            name=f"load-{len(self.loads)}",
            seed=self._seed + len(self.loads),
        )
        self.loads.append(load)
        async with load:
            yield load
        assert not load.failed, f"the broker did not take: {load.failed[:5]}"

    async def remember_topic(self) -> None:
        """Keep the topic's records as they are now: the oracle compares with them even when the log loses them."""
        for partition, records in (await self.kafka.read(self.topic)).items():
            known = {record.offset: record for record in (*self.earlier.get(partition, ()), *records)}
            self.earlier[partition] = [known[offset] for offset in sorted(known)]

    # ---- waiting and proof ------------------------------------------------------------------------------------------

    async def objects_grow(self, count: int = 1, seconds: float = CATCH_UP_SECONDS) -> None:
        """Wait until the bucket holds `count` objects more than now."""
        before = await self._object_count()

        async def grown() -> bool:
            return await self._object_count() >= before + count

        await eventually(grown, f"{count} objects more", seconds, every_seconds=0.25)

    async def _object_count(self) -> int:
        return sum("_ticklake/" not in key for key in await self.s3.keys(self.bucket))

    async def caught_up(self, seconds: float = CATCH_UP_SECONDS) -> float:
        """Wait until every chain has reached the log's end of the moment of the call; how long it took, in seconds."""
        began = time.monotonic()
        wanted = await self.kafka.end_offsets(self.topic)
        behind: dict[int, tuple[int, int]] = {}

        async def reached() -> bool:
            ends = await chain_ends(self.s3, self.bucket, self.settings.get("S3_PREFIX", ""))
            behind.clear()
            behind.update({p: (ends.get(p, 0), end) for p, end in wanted.items() if ends.get(p, 0) < end})
            return not behind or await self._nothing_left(behind)

        try:
            await eventually(reached, "every chain at its log's end", seconds, every_seconds=0.25)
        except AssertionError as error:
            raise AssertionError(f"{error}: partition: (chain end, log end) are {behind}") from None
        return time.monotonic() - began

    async def _nothing_left(self, behind: Mapping[int, tuple[int, int]]) -> bool:
        """Whether what is behind a chain's end is no record: aborted ones, transaction markers."""
        if any(end - at > 1000 for at, end in behind.values()):
            return False
        last = {
            p: max((r.offset for r in records), default=-1)
            for p, records in (await self.kafka.read(self.topic)).items()
        }
        return all(last.get(partition, -1) < at for partition, (at, _) in behind.items())

    async def proven(
        self,
        *,
        seconds: float = CATCH_UP_SECONDS,
        origins: Mapping[int, int] | None = None,
    ) -> Verdict:
        """The end of every scenario, loads stopped, at least one consumer running: all is stored exactly once.

        Waits for the chains to reach the log's ends, for late effects of the proxy, for the commits to reach the
        chains' ends (whatever was refused on the way, a group that lives makes it good), stops every consumer that runs
        (exit code 0 in time), and lets the oracle judge, the group's commits included. AssertionError with its faults.
        No consumer may have ended by itself before, see `crashed`. Unless `origins` leave some out, at least as many
        records must be stored as the broker has acknowledged to the loads.
        """
        assert self.running(), "\n".join(["no consumer runs that could store the rest", *self.crashed()])
        self.note("catch_up_seconds", await self.caught_up(seconds))
        await self.proxy.settled()
        await self._all_committed()
        await self.stop(*self.running())
        assert not self.crashed(), "\n".join(self.crashed())
        began = time.monotonic()
        verdict = await self._judged(origins=origins, complete=True)
        self.verdict = verdict
        self.note("oracle_seconds", time.monotonic() - began)
        figures.of_verdict(self, verdict)
        assert verdict.clean(), f"{len(verdict.faults)} faults:\n" + "\n".join(verdict.faults[:40])
        acknowledged = sum(load.acknowledged for load in self.loads)
        assert origins or verdict.consumed >= acknowledged, f"{verdict.consumed} of {acknowledged} records are stored"
        return verdict

    async def _all_committed(self) -> None:
        """Wait until every chain's end is committed."""
        behind: dict[int, tuple[int, int | None]] = {}

        async def reached() -> bool:
            ends = await chain_ends(self.s3, self.bucket, self.settings.get("S3_PREFIX", ""))
            commits = await self.kafka.committed(self.settings["KAFKA_GROUP_ID"], self.topic)
            committed = {partition: found.offset for partition, found in commits.items()}
            behind.clear()
            behind.update({p: (end, committed.get(p)) for p, end in ends.items() if committed.get(p) != end})
            return not behind

        try:
            await eventually(reached, "every chain's end committed", COMMITS_SECONDS, every_seconds=0.25)
        except AssertionError as error:
            raise AssertionError(f"{error}: partition: (chain end, committed) are {behind}") from None

    async def inspected(self) -> list[str]:
        """What is wrong in the bucket of a scenario that did not come to `proven`; its end need not be reached."""
        verdict = await self._judged(origins=None, complete=False)
        return verdict.faults

    async def _judged(self, *, origins: Mapping[int, int] | None, complete: bool) -> Verdict:
        return await judge(
            self.kafka,
            self.s3,
            topic=self.topic,
            bucket=self.bucket,
            prefix=self.settings.get("S3_PREFIX", ""),
            complete=complete,
            group=self.settings["KAFKA_GROUP_ID"],
            origins=origins,
            earlier=self.earlier,
            settled=complete,
        )

    def remove_data(self) -> None:
        """The bucket's files: of no use once the scenario has passed."""
        shutil.rmtree(self.s3.folder(self.bucket), ignore_errors=True)
