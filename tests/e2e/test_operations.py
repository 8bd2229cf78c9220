"""docs/operations.md, walked with Kafka's own tool: a change of prefix, template, format or codec, and the wrong ways.

Both prefixes are compared with the topic record by record, as one chain a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from demo.kafka_server import CONSUMER_GROUPS, TOPICS
from tests.oracle import chain_ends, judge
from tests.processes import ServiceProcess
from tests.servers import Produced, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.servers import S3, Kafka

PARTITIONS = 3
LOAD_SECONDS = 0.05  # between records of a partition: several an object, and little to compare at the end
OLD = {"S3_PREFIX": "old/"}
NEW = {"S3_PREFIX": "new/"}
TEMPLATE = {"S3_KEY_TEMPLATE": "{topic}/{partition}/{start:012d}.{ext}"}
CODEC = {"COMPRESSION": "zstd"}
FORMAT = {"RECORD_FORMAT": "envelope"}
# What changes beside the prefix.
CHANGES: Mapping[str, Mapping[str, str]] = {
    "template": TEMPLATE,
    "codec": CODEC,
    "all": {**TEMPLATE, **FORMAT, "COMPRESSION": "none"},
}


@dataclass(slots=True)
class Site:
    """A topic under load, its group and its bucket, as an operator has them at hand."""

    kafka: Kafka
    s3: S3
    topic: str
    group: str
    bucket: str
    folder: Path
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": self.group,
            "S3_BUCKET": self.bucket,
            "BATCH_MAX_SECONDS": "0.5",
            **self.s3.environ(),
        }

    def consumer(self, settings: Mapping[str, str]) -> ServiceProcess:
        return ServiceProcess(["consumer"], {**self.environ, **settings}, self.folder)

    async def verify(self, settings: Mapping[str, str], *options: str) -> tuple[int, str]:
        """Exit code and output of `python -m consumer verify`."""
        with ServiceProcess(["consumer", "verify", *options], {**self.environ, **settings}, self.folder) as process:
            return await process.ended(), process.output()

    async def refused(self, settings: Mapping[str, str], why: str) -> None:
        """A start with the settings exits 2, says why, and has written nothing."""
        before = await self.s3.keys(self.bucket)
        with self.consumer(settings) as start:
            assert await start.ended() == 2, start.output()
            assert why in start.output()
        assert set(await self.s3.keys(self.bucket, settings["S3_PREFIX"])) <= set(before)

    async def tool(self, main_class: str, *arguments: str) -> str:
        """What one of Kafka's tools prints; it exits 0 even when it refuses."""
        done = await asyncio.to_thread(self.kafka.server.tool, main_class, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def reset(self, *how: str) -> str:
        return await self.tool(CONSUMER_GROUPS, "--group", self.group, "--reset-offsets", *how, "--execute")

    async def ends(self, file: Path) -> dict[int, int]:
        """The file of `verify --ends` by the old settings, made twice alike; its offsets."""
        texts = []
        for _ in range(2):
            code, said = await self.verify(OLD, "--ends", str(file))
            assert code == 0, said
            texts.append(file.read_text())
        assert texts[0] == texts[1]
        rows = list(csv.reader(io.StringIO(texts[0])))
        assert {topic for topic, _, _ in rows} == {self.topic}
        return {int(partition): int(offset) for _, partition, offset in rows}

    def new_offsets(self, output: str) -> dict[int, int]:
        """The NEW-OFFSET column of the reset tool by partition."""
        rows = [line.split() for line in output.splitlines()]
        return {int(row[2]): int(row[3]) for row in rows if row[:2] == [self.group, self.topic]}

    async def add_partition(self) -> None:
        wanted = str(PARTITIONS + 1)
        await self.tool(TOPICS, "--alter", "--topic", self.topic, "--partitions", wanted)

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Records keep arriving in every partition inside the block; all are acknowledged at its end."""
        stop = asyncio.Event()

        async def produce() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers, metadata_max_age_ms=1000)
            await producer.start()
            try:
                number = 0
                while not stop.is_set():
                    for partition in await producer.partitions_for(self.topic):
                        value = b'{"n":%d,"partition":%d}' % (number, partition)
                        await producer.send_and_wait(self.topic, value, partition=partition)
                    number += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), LOAD_SECONDS)
            finally:
                await producer.stop()

        producing = asyncio.create_task(produce())
        try:
            yield
        finally:
            stop.set()
            await producing

    async def stored(self) -> None:
        """Wait until the chains are at the log's end."""

        async def reached() -> bool:
            old, new = [await chain_ends(self.s3, self.bucket, prefix) for prefix in ("old/", "new/")]
            ends = await self.kafka.end_offsets(self.topic)
            return all(max(old.get(p, 0), new.get(p, 0)) >= end for p, end in ends.items())

        await eventually(reached, "every chain at the end of its log", every_seconds=0.5)

    async def proven(self, *prefixes: str) -> None:
        """Every record of the topic stands below one of the prefixes, once: each chain begins where its elder ends."""
        origins: Mapping[int, int] = {}
        for prefix in prefixes:
            last = prefix == prefixes[-1]
            verdict = await judge(
                self.kafka,
                self.s3,
                topic=self.topic,
                bucket=self.bucket,
                prefix=prefix,
                origins=origins,
                complete=last,
                group=self.group if last else None,
            )
            assert verdict.faults == []
            origins = verdict.ends


@pytest.fixture
async def site(kafka: Kafka, s3: S3, bucket: str, group: str, tmp_path: Path) -> Site:
    """All partitions hold records."""
    topic = await kafka.create_topic(PARTITIONS)
    await kafka.produce(topic, [Produced(value=b'{"n":-1}', partition=number) for number in range(PARTITIONS)])
    return Site(kafka, s3, topic, group, bucket, tmp_path)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_the_recipe_changes_prefix_template_format_and_codec_while_records_arrive(
    site: Site, change: Mapping[str, str]
) -> None:
    new, file = {**NEW, **change}, site.folder / "ends.csv"
    async with contextlib.AsyncExitStack() as loading:
        await loading.enter_async_context(site.load())
        with site.consumer(OLD) as old:
            await old.logged("Uploaded", count=2 * PARTITIONS)
            assert await old.stop() == 0
        await site.add_partition()  # the group has no offset of this one
        ends = await site.ends(file)
        assert ends[PARTITIONS] == 0
        assert site.new_offsets(await site.reset("--from-file", str(file))) == ends
        code, said = await site.verify(OLD)
        assert code == 0, said
        with site.consumer(new) as consumer:
            await consumer.logged("Uploaded", count=2 * (PARTITIONS + 1))
            await loading.aclose()
            await site.stored()
            assert await consumer.stop() == 0
    await site.proven("old/", "new/")
    code, said = await site.verify(new, "--deep")
    assert code == 0, said


async def test_a_rolling_change_is_refused_and_kafkas_tool_moves_no_living_group(site: Site) -> None:
    with site.consumer(OLD) as consumer:
        await consumer.logged("Uploaded", count=PARTITIONS)
        await site.refused(NEW, "signed by chain")
        await site.refused({**NEW, **CHANGES["all"]}, "signed by chain")
        for change, variable in ((TEMPLATE, "S3_KEY_TEMPLATE"), (CODEC, "COMPRESSION"), (FORMAT, "RECORD_FORMAT")):
            await site.refused({**OLD, **change}, f"{variable}: ")
        said = await site.reset("--to-earliest", "--topic", site.topic)
        assert "inactive" in said
        assert site.new_offsets(said) == {}
        async with site.load():
            await consumer.logged("Uploaded", count=2 * PARTITIONS)
        await site.stored()
        assert await consumer.stop() == 0
    await site.proven("old/")


async def test_offsets_reset_in_a_wrong_way_are_refused_before_the_new_prefix_begins(site: Site) -> None:
    """Under it they would lose what lies between the chain's end and the log's."""
    with site.consumer(OLD) as consumer:
        await consumer.logged("Uploaded", count=PARTITIONS)
        assert await consumer.stop() == 0
    await site.add_partition()
    file = site.folder / "ends.csv"
    ends = await site.ends(file)
    later = [Produced(value=b'{"n":%d}' % n, partition=n % len(ends)) for n in range(4 * len(ends))]
    await site.kafka.produce(site.topic, later)
    beyond = {partition: end + 4 for partition, end in ends.items()}

    said = await site.reset("--to-current", "--topic", site.topic)
    assert site.new_offsets(said) == {**ends, PARTITIONS: beyond[PARTITIONS]}, "without a commit: to the log's end"
    await _refused_by_verify(site, beyond, {PARTITIONS})

    file.write_text(f"{site.topic},1,{ends[1] + 1000}\n")
    assert site.new_offsets(await site.reset("--from-file", str(file))) == {1: beyond[1]}, "clamped to the log"
    await _refused_by_verify(site, beyond, {1, PARTITIONS})

    assert site.new_offsets(await site.reset("--to-latest", "--topic", site.topic)) == beyond
    await _refused_by_verify(site, beyond, set(beyond))

    assert await site.ends(file) == ends
    assert site.new_offsets(await site.reset("--from-file", str(file))) == ends
    code, said = await site.verify(OLD)
    assert code == 0, said
    with site.consumer(NEW) as consumer:
        await site.stored()
        assert await consumer.stop() == 0
    await site.proven("old/", "new/")


async def _refused_by_verify(site: Site, offsets: Mapping[int, int], partitions: set[int]) -> None:
    """The audit with the old settings names the offsets of these partitions, and nothing else."""
    code, said = await site.verify(OLD)
    assert code == 1
    faults = re.findall(r"^FAULT unsigned-commit, partition (\d+), offset (\d+)[,:]", said, re.MULTILINE)
    assert faults == [(str(partition), str(offsets[partition])) for partition in sorted(partitions)]
    assert said.count("FAULT") == len(faults)


async def test_a_revived_old_task_and_the_new_prefix_never_run_together(site: Site) -> None:
    with site.consumer(OLD) as consumer:
        await consumer.logged("Uploaded", count=PARTITIONS)
        assert await consumer.stop() == 0
    file = site.folder / "ends.csv"
    before = await site.ends(file)
    assert site.new_offsets(await site.reset("--from-file", str(file))) == before
    with site.consumer(OLD) as revived:
        async with site.load():
            await revived.logged("Uploaded", count=PARTITIONS)
        await site.refused(NEW, "signed by chain")
        code, said = await site.verify(OLD, "--ends", str(file))
        assert code == 1
        assert "stop all consumers first" in said
        await site.stored()
        assert await revived.stop() == 0
    await site.refused(NEW, "signed by chain")
    assert site.new_offsets(await site.reset("--from-file", str(file))) == before, "the file of before"
    await _refused_by_verify(site, before, set(range(PARTITIONS)))

    ends = await site.ends(file)
    assert site.new_offsets(await site.reset("--from-file", str(file))) == ends
    with site.consumer(NEW) as consumer:
        async with site.load():
            await consumer.logged("Uploaded", count=PARTITIONS)
            await site.refused(OLD, "signed by chain")
        await site.stored()
        assert await consumer.stop() == 0
    await site.refused(OLD, "signed by chain")
    await site.proven("old/", "new/")
