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
from tests.oracle import Verdict, chain_ends, judge
from tests.processes import ServiceProcess
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
SAMPLE_SECONDS = 0.5
SAME_REBALANCE_SECONDS = 0.5
SIGKILLED = -9
# Short, so that a scenario fits its budget: what is proven does not hang on them.
SETTINGS: Mapping[str, str] = {
    "BATCH_MAX_SECONDS": "1",
    "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
    "KAFKA_REBALANCE_TIMEOUT_SECONDS": "15",
    "SHUTDOWN_TIMEOUT_SECONDS": f"{SHUTDOWN_TIMEOUT_SECONDS:g}",
    "UPLOAD_TIMEOUT_SECONDS": "10",
}


class Arena:
    """Made by the runner for one scenario; everything in it is that scenario's own, but perhaps the servers."""

    def __init__(self, scenario: Scenario, *, kafka: Kafka, s3: S3, proxy: FaultProxy, folder: Path, seed: int) -> None:
        self.scenario = scenario
        self.kafka = kafka
        self.s3 = s3
        self.proxy = proxy
        self.folder = folder
        self.random = random.Random(seed)
        self.topic = unique(scenario.name)
        self.bucket = unique("chaos")
        self.group = unique("group")
        self.settings: dict[str, str] = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": self.group,
            "S3_BUCKET": self.bucket,
            **s3.environ(),
            "AWS_ENDPOINT_URL_S3": proxy.url,
            **SETTINGS,
            **scenario.settings,
        }
        self.consumers: list[ServiceProcess] = []
        self.loads: list[Load] = []
        self.figures: dict[str, object] = {}
        self.verdict: Verdict | None = None
        self.earlier: dict[int, list[KafkaRecord]] = {}
        self._seed = seed
        self._expected_codes: dict[ServiceProcess, int] = {}
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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await load.stop()

    async def _sample_memory(self) -> None:
        while True:
            self.peak_memory_bytes()
            await asyncio.sleep(SAMPLE_SECONDS)

    # ---- consumers --------------------------------------------------------------------------------------------------

    def consumer(self, **settings: str) -> ServiceProcess:
        """Start one; `settings` beside the arena's. It is not waited for: `await it.logged("Partitions assigned")`."""
        process = ServiceProcess(["consumer"], {**self.settings, **settings}, self.folder)
        self.consumers.append(process)
        return process

    async def assigned(self, *consumers: ServiceProcess, count: int = 1) -> None:
        """Wait until each has been assigned partitions (perhaps none) that many times."""
        for consumer in consumers:
            await consumer.logged("Partitions assigned", count=count)

    async def stop(self, *consumers: ServiceProcess) -> float:
        """SIGTERM to all of them at once: exit code 0 within SHUTDOWN_TIMEOUT_SECONDS each. The longest, in seconds."""
        began = time.monotonic()
        longest = 0.0
        for consumer in consumers:
            consumer.process.terminate()
        budget = float(self.settings["SHUTDOWN_TIMEOUT_SECONDS"])
        for consumer in consumers:
            code = await consumer.ended(budget + 10)
            longest = max(longest, time.monotonic() - began)
            assert code == 0, f"{consumer.log_file.name} ended with {code} on SIGTERM, 0 is expected"
            assert longest < budget, f"{consumer.log_file.name} took {longest:.1f} s to stop, {budget:g} s are allowed"
        self.note_longest("stop_seconds", longest)
        return longest

    def kill(self, *consumers: ServiceProcess) -> None:
        """SIGKILL, at once; the exit code says so."""
        for consumer in consumers:
            consumer.kill()
            code = consumer.process.returncode
            assert code == SIGKILLED, f"{consumer.log_file.name} had ended with {code} before it was killed"

    async def restart(self, server: KafkaServer | S3Server) -> None:
        """Start a killed or stopped server again, on its data and port; back when it serves. The load runs on."""
        if isinstance(server, KafkaServer):
            await asyncio.to_thread(server.prepare)
        server.spawn()  # from the main thread, see demo.server_process
        await asyncio.to_thread(server.wait_ready)

    def running(self) -> list[ServiceProcess]:
        return [consumer for consumer in self.consumers if consumer.process.poll() is None]

    def peak_memory_bytes(self) -> int:
        """The largest resident memory any consumer of this scenario ever had."""
        return max((consumer.peak_memory_bytes() for consumer in self.consumers), default=0)

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

    # ---- figures ----------------------------------------------------------------------------------------------------

    def note(self, name: str, value: object) -> None:
        """A figure for the report; the unit is part of the name (`_seconds`, `_bytes`, plain counts)."""
        self.figures[name] = round(value, 3) if isinstance(value, float) else value

    def note_longest(self, name: str, seconds: float) -> None:
        before = self.figures.get(name, 0.0)
        self.note(name, max(seconds, before if isinstance(before, float) else 0.0))

    # ---- waiting and proof ------------------------------------------------------------------------------------------

    async def objects_grow(self, count: int = 1, seconds: float = CATCH_UP_SECONDS) -> None:
        """Wait until the bucket holds `count` objects more than now."""
        before = await self._object_count()

        async def grown() -> bool:
            return await self._object_count() >= before + count

        await eventually(grown, f"{count} objects more", seconds, every_seconds=0.25)

    async def _object_count(self) -> int:
        return sum("_ticklake/" not in key for key in await self.s3.keys(self.bucket))

    async def counted(self) -> tuple[int, int, int]:
        """Objects, records in them, rebalances so far (as the log lines of all consumers tell)."""
        uploaded = [line for consumer in self.consumers for line in consumer.lines("Uploaded")]
        records = sum(int(str(line["records"])) for line in uploaded)
        return len(uploaded), records, len(self.rebalances())

    def rebalances(self) -> list[float]:
        """When each one was: assignments less than half a second apart are one rebalance."""
        found: list[float] = []
        lines = [line for consumer in self.consumers for line in consumer.lines("Partitions assigned")]
        for at in sorted(figures.moment(line) for line in lines):
            if not found or at - found[-1] > SAME_REBALANCE_SECONDS:
                found.append(at)
        return found

    async def spread(self, *consumers: ServiceProcess) -> None:
        """Wait until these, and only these, have all partitions among them by their latest assignment."""

        def held() -> bool:
            numbers: list[object] = []
            for consumer in consumers:
                lines = consumer.lines("Partitions assigned")
                latest = lines[-1]["partitions"] if lines else []
                numbers += latest if isinstance(latest, list) else []
            return sorted(map(str, numbers)) == sorted(map(str, range(self.scenario.partitions)))

        await eventually(held, "the partitions spread over these consumers", CATCH_UP_SECONDS)

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
        may_lose: bool = False,
    ) -> Verdict:
        """The end of every scenario, loads stopped, at least one consumer running: all is stored exactly once.

        Waits for the chains to reach the log's ends, for late effects of the proxy, stops every consumer that runs
        (exit code 0 in time), and lets the oracle judge, the group's commits included. AssertionError with its faults.
        """
        assert self.running(), "no consumer runs that could store the rest"
        self.note("catch_up_seconds", await self.caught_up(seconds))
        await self.proxy.settled()
        await self.stop(*self.running())
        began = time.monotonic()
        verdict = await judge(
            self.kafka,
            self.s3,
            topic=self.topic,
            bucket=self.bucket,
            prefix=self.settings.get("S3_PREFIX", ""),
            group=self.group,
            origins=origins,
            earlier=self.earlier,
            may_lose=may_lose,
        )
        self.verdict = verdict
        self.note("oracle_seconds", time.monotonic() - began)
        figures.of_verdict(self, verdict)
        assert verdict.clean(), f"{len(verdict.faults)} faults:\n" + "\n".join(verdict.faults[:40])
        return verdict

    def remove_data(self) -> None:
        """The bucket's files: of no use once the scenario has passed."""
        shutil.rmtree(self.s3.folder(self.bucket), ignore_errors=True)
