"""The group's offsets lost, deleted, reset by Kafka's own tool, or not there yet: the bucket is the truth."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from itertools import pairwise
from typing import TYPE_CHECKING

from demo.kafka_server import CONSUMER_GROUPS
from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.oracle import PARTITION_AND_START, chain_ends
from tests.servers import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tests.chaos.arena import Arena
    from tests.processes import ServiceProcess

DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
PARTITIONS = 4
GROUP_GONE_SECONDS = 30.0  # above any session time-out here


@scenario(
    "offsets-deleted",
    "The group's offsets are deleted by Kafka's tool while no replica runs, then the whole group while both are frozen"
    " with records in their hands; while they run Kafka refuses either. Load all along.",
    partitions=PARTITIONS,
    settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def offsets_deleted(arena: Arena) -> None:
    async with arena.load(3000):
        await _stored_by(arena, 1)
        await arena.stop(*arena.running())
        await _delete_offsets(arena)
        first, second = await _stored_by(arena, 2)
        await _refused_while_running(arena)
        for frozen in (first, second):
            await _frozen_with_records(frozen)
        await _delete_group(arena)
        for frozen in (first, second):
            frozen.send(signal.SIGCONT)
        await arena.assigned(first, second, count=2)
        await arena.objects_grow(2 * PARTITIONS)
    await arena.proven()


@scenario(
    "offsets-deleted-log-moved",
    "The log's start is moved into the middle of an object and the group's offsets are deleted, once after an orderly"
    " stop, once after two replicas were killed. Load all along.",
    ci=True,
    partitions=PARTITIONS,
    settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "3"},
)
async def offsets_deleted_log_moved(arena: Arena) -> None:
    async with arena.load(3000):
        await _stored_by(arena, 1)
        await arena.stop(*arena.running())
        await _move_log_starts(arena)
        await _delete_offsets(arena)
        arena.kill(*await _stored_by(arena, 2))
        await _delete_group(arena)
        await _move_log_starts(arena)
        await _stored_by(arena, 1)
    await arena.proven()


@scenario(
    "offsets-reset",
    "Kafka's tool resets the stopped group's offsets: to the log's start, to its end, by a shift, into an object. Each"
    " reset is ignored with a warning. Load all along.",
    partitions=PARTITIONS,
)
async def offsets_reset(arena: Arena) -> None:
    resets = []
    async with arena.load(3000):
        await _stored_by(arena, 1)
        for how in ("--to-earliest", "--to-latest", "--shift-by", "--from-file"):
            await arena.stop(*arena.running())
            ends = await chain_ends(arena.s3, arena.bucket)
            reset = await _reset(arena, how)
            resets.append((await _stored_by(arena, 1), reset, ends))
    await arena.proven()
    for replicas, reset, ends in resets:
        _told_of(replicas, reset, ends)


@scenario(
    "latest",
    "KAFKA_START_FROM=latest: three first members put three layouts at the same moment, on a topic that has records and"
    " gets more; one counts. Then the group is deleted and a member starts with `earliest`.",
    partitions=PARTITIONS,
    settings={"UPLOAD_TIMEOUT_SECONDS": "30"},  # their puts are held until all have come
)
async def latest(arena: Arena) -> None:
    idle = PARTITIONS - 1  # gets nothing more: its chain has no object when the group's offsets get lost
    async with arena.load(4000) as before:
        await eventually(lambda: before.acknowledged > 3000, "records from before", 30)
    old = await arena.kafka.end_offsets(arena.topic)
    async with arena.load(3000, partitions=range(idle)):
        await eventually(lambda: arena.loads[1].acknowledged > 500, "records on their way", 30)
        replicas = await _first_members(arena)
        assigned_at = await arena.kafka.end_offsets(arena.topic)
        await arena.objects_grow(2 * PARTITIONS)
        await arena.stop(*replicas)
        await _delete_offsets(arena)
        arena.consumer(KAFKA_START_FROM="earliest")
        await arena.objects_grow(PARTITIONS)
    origins = {int(partition): int(start) for partition, start in (await _layout(arena))["origins"].items()}
    for partition, origin in origins.items():
        assert old[partition] <= origin <= assigned_at[partition], (
            f"partition {partition}: origin {origin} is not where the log ended when the first members started:"
            f" between {old[partition]} and {assigned_at[partition]}"
        )
    assert origins[idle] == old[idle]
    async with arena.load(1000) as last:
        await eventually(lambda: last.acknowledged > 1000, "records in every partition", 30)
    verdict = await arena.proven(origins=origins)
    assert {partition: spans[0][0] for partition, spans in verdict.spans.items()} == origins
    ends = await arena.kafka.end_offsets(arena.topic)
    assert verdict.consumed == sum(ends[partition] - origin for partition, origin in origins.items())


async def _first_members(arena: Arena) -> list[ServiceProcess]:
    """Three that have all found no layout and put one of their own each: which one counts is open until the last."""
    arena.proxy.inject(faults.HELD, method="PUT", key_part="layout.json", times=3)
    members = [arena.consumer(KAFKA_START_FROM="latest") for _ in range(3)]
    await eventually(lambda: len(arena.proxy.held) == 3, "three layouts on their way", 25)
    proposals = {json.dumps(json.loads(request.body)["origins"]) for request in arena.proxy.held}
    assert len(proposals) > 1, f"all propose the same origins: {proposals}"
    arena.proxy.release()
    await arena.assigned(*members)
    return members


# ---- acts ------------------------------------------------------------------------------------------------------------


async def _stored_by(arena: Arena, count: int) -> list[ServiceProcess]:
    """So many fresh replicas, once they have put some objects a partition."""
    replicas = [arena.consumer() for _ in range(count)]
    await arena.assigned(*replicas)
    await arena.objects_grow(2 * PARTITIONS)
    return replicas


async def _frozen_with_records(replica: ServiceProcess) -> None:
    """Stopped by SIGSTOP right after it has told that it holds records."""

    async def holds() -> bool:
        page = (await replica.get("/metrics"))[1]
        found = re.search(r"^ticklake_consumer_buffered_bytes (\S+)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1]) > 0

    await eventually(holds, "records in its hands", 10)
    replica.send(signal.SIGSTOP)


async def _tool(arena: Arena, *arguments: str, main_class: str = CONSUMER_GROUPS) -> str:
    """What Kafka's tool says; it exits 0 even when it refuses."""
    if main_class == CONSUMER_GROUPS:
        arguments = ("--group", arena.group, *arguments)
    done = await asyncio.to_thread(arena.kafka.server.tool, main_class, *arguments)
    return done.stdout + done.stderr


async def _delete_offsets(arena: Arena) -> None:
    said = await _tool(arena, "--delete-offsets", "--topic", arena.topic)
    left = await arena.kafka.committed(arena.group, arena.topic)
    assert not left, f"the tool left {left}: {said}"


async def _delete_group(arena: Arena) -> None:
    """Delete the group with its offsets, once its members' sessions have ended."""
    said = ""

    async def deleted() -> bool:
        nonlocal said
        said = await _tool(arena, "--delete")
        return "was successful" in said

    try:
        await eventually(deleted, "the deletion of the group", GROUP_GONE_SECONDS, every_seconds=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}; the tool's last word: {said}") from None
    assert not await arena.kafka.committed(arena.group, arena.topic)


async def _refused_while_running(arena: Arena) -> None:
    """A running group's offsets cannot be deleted: should Kafka come to allow it, this scenario has to do it."""
    said = await _tool(arena, "--delete-offsets", "--topic", arena.topic)
    assert "GroupSubscribedToTopic" in said or "actively subscribed" in said, said
    said = await _tool(arena, "--delete")
    assert "GroupNotEmpty" in said or "not empty" in said, said
    assert await arena.kafka.committed(arena.group, arena.topic)


async def _move_log_starts(arena: Arena) -> None:
    """DeleteRecords into the middle of an object of every partition: of its newest one in two of them."""
    await arena.remember_topic()
    spans = await _spans(arena)
    starts = {partition: _within(arena, chain, newest=1 if partition % 2 else 3) for partition, chain in spans.items()}
    file = arena.folder / "delete-records.json"
    wanted = [{"topic": arena.topic, "partition": number, "offset": at} for number, at in starts.items()]
    file.write_text(json.dumps({"version": 1, "partitions": wanted}))
    said = await _tool(arena, "--offset-json-file", str(file), main_class=DELETE_RECORDS)
    moved = {int(number): int(at) for number, at in re.findall(r"partition: \S*-(\d+)\s+low_watermark: (\d+)", said)}
    assert moved == starts, f"the log starts at {moved}, {starts} were asked for: {said}"
    for partition, at in moved.items():
        assert any(start < at < end for start, end in spans[partition]), f"partition {partition}: {at} is in no object"


async def _reset(arena: Arena, how: str) -> dict[int, int]:
    """Reset every partition's offset; where to, as the group has it then, unsigned."""
    spans = await _spans(arena)
    topic = arena.topic
    where: list[str] = []
    if how == "--from-file":  # into an object of each partition
        file = arena.folder / "offsets.csv"
        into = {partition: _within(arena, chain, newest=len(chain)) for partition, chain in spans.items()}
        file.write_text("".join(f"{topic},{partition},{offset}\n" for partition, offset in into.items()))
        where = [str(file)]
    elif how == "--shift-by":
        where = [str(-arena.random.randrange(50, 500))]
    topics = [] if how == "--from-file" else ["--topic", topic]
    said = await _tool(arena, *topics, "--reset-offsets", how, *where, "--execute")
    found = await arena.kafka.committed(arena.group, topic)
    assert sorted(found) == sorted(spans), f"after {how} the group has {found}: {said}"
    signed = [partition for partition, committed in found.items() if committed.metadata]
    assert not signed, f"{how} left the offsets of {signed} as they were: {found}"
    return {partition: committed.offset for partition, committed in found.items()}


def _told_of(replicas: Sequence[ServiceProcess], reset: Mapping[int, int], ends: Mapping[int, int]) -> None:
    """Each partition's foreign offset was named in a warning, with the chain's end that counts instead."""
    told = {
        (line["partition"], line["committed"], line["chain_end"])
        for replica in replicas
        for line in replica.lines("Unsigned offset ignored")
        if line["level"] == "warning"
    }
    missing = {(partition, offset, ends[partition]) for partition, offset in reset.items()} - told
    assert not missing, f"(partition, offset, chain's end) without a warning: {missing}; told were {told}"


# ---- the bucket ------------------------------------------------------------------------------------------------------


async def _spans(arena: Arena) -> dict[int, list[tuple[int, int]]]:
    """The range of each object by partition, as the keys tell them: one starts where the one before ends."""
    starts: dict[int, list[int]] = {}
    for key in await arena.s3.keys(arena.bucket):
        found = PARTITION_AND_START.search(key)
        if found is not None and "_ticklake/" not in key:
            starts.setdefault(int(found[1]), []).append(int(found[2]))
    ends = await chain_ends(arena.s3, arena.bucket)
    return {partition: list(pairwise([*sorted(found), ends[partition]])) for partition, found in starts.items()}


def _within(arena: Arena, chain: Sequence[tuple[int, int]], *, newest: int) -> int:
    """An offset in the middle of one of the newest objects, but those of a single record: they have no middle."""
    start, end = arena.random.choice([(start, end) for start, end in chain if end - start > 1][-newest:])
    return arena.random.randrange(start + 1, end)


async def _layout(arena: Arena) -> Any:
    """The one layout.json of the bucket."""
    found = await arena.s3.objects(arena.bucket, "_ticklake/")
    layouts = [stored for key, stored in found.items() if key.endswith("layout.json")]
    assert len(layouts) == 1, f"{len(layouts)} layouts: {sorted(found)}"
    return json.loads(layouts[0].body)
