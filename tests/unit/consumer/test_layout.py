"""The agreement of design §5: made once, obeyed by all; what could fork a chain is refused first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from consumer.keys import KeyTemplate
from consumer.layout import Agreed, Agreement, Terms
from consumer.ports import Committed, Failure, PutAnswer, SourceError
from shared.schemas import Layout, sign_offset
from shared.settings import SettingsError
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.fakes.store import Call, Fail, FakeStore, Wrong
from tests.unit.consumer.worker_worlds import KEYS, NO_KEYS_TIME, TEMPLATE
from tests.virtual_time import until, virtual_time

if TYPE_CHECKING:
    from tests.fakes.store import Asked

TERMS = Terms(
    keys=KEYS, group="g", record_format="value", compression="gzip", start_from="earliest", new_chain_id="mine"
)


class Silent:
    """A Listener that does nothing."""

    async def on_revoked(self, partitions: object) -> None: ...
    async def on_assigned(self, partitions: object) -> None: ...


@dataclass(slots=True)
class World:
    """A topic of three partitions, its group, a bucket; whoever starts there."""

    log: FakeLog = field(default_factory=lambda: FakeLog(3))
    store: FakeStore = field(default_factory=FakeStore)
    waits: list[tuple[str, str]] = field(default_factory=list)
    group: FakeGroup = field(init=False)
    source: FakeSource = field(init=False)

    def __post_init__(self) -> None:
        self.group = FakeGroup(self.log)
        self.source = FakeSource(self.group)

    async def reach(self, terms: Terms = TERMS) -> Agreed:
        await self.source.connect()

        def on_wait(what: str, error: Exception) -> None:
            self.waits.append((what, str(error)))

        return await Agreement(kafka=self.source, store=self.store, terms=terms, on_wait=on_wait).reach()

    async def refusal(self, terms: Terms = TERMS) -> str:
        """The one fault, after which nothing new may lie in the bucket."""
        before = {key: stored.body for key, stored in self.store.objects.items()}
        with pytest.raises(SettingsError) as caught:
            await self.reach(terms)
        assert {key: stored.body for key, stored in self.store.objects.items()} == before
        (fault,) = caught.value.faults
        assert "; allowed: " in fault or "allowed here: " in fault
        return fault

    def layout(self) -> Layout:
        return Layout.decode(self.store.objects[KEYS.layout_key].body)

    def place(self, layout: Layout) -> None:
        self.store.place(KEYS.layout_key, layout.encode())


MADE = Layout(
    version=1,
    chain_id="theirs",
    topic="task",
    topic_id="topic-1",
    cluster_id="cluster-1",
    template=TEMPLATE,
    ext="jsonl.gz",
    format="value",
    compression="gzip",
    origins={"0": 5},
)


@virtual_time
async def test_the_first_start_creates_it_with_every_fact() -> None:
    world = World()
    world.log.append(1, [b"1"] * 9)
    world.log.move_start(1, 9)
    agreed = await world.reach()
    assert agreed.layout == world.layout()
    assert agreed.layout == replace_layout(MADE, chain_id="mine", origins={"0": 0, "1": 9, "2": 0})
    assert agreed.identity.partitions == 3
    assert world.store.objects[KEYS.layout_key].content_type == "application/json"


def replace_layout(layout: Layout, **changes: object) -> Layout:
    fields = {name: getattr(layout, name) for name in layout.__struct_fields__}
    return Layout(**{**fields, **changes})


@virtual_time
async def test_latest_begins_at_the_high_watermark() -> None:
    world = World()
    world.log.append(1, [b"1"] * 9)
    world.log.hold(1, 3)  # not the last stable offset
    agreed = await world.reach(replace(TERMS, start_from="latest"))
    assert agreed.layout.origins == {"0": 0, "1": 9, "2": 0}


@virtual_time
async def test_a_predecessors_unsigned_offsets_become_origins() -> None:
    world = World()
    for number in range(3):
        world.log.append(number, [b"1"] * 9)
    world.log.append(2, [b"1"])
    world.log.move_start(2, 9)
    world.group.offsets = {0: Committed(offset=4, metadata=""), 2: Committed(offset=1, metadata="some note")}
    agreed = await world.reach()
    assert agreed.layout.origins == {"0": 4, "1": 0, "2": 9}


@virtual_time
async def test_a_predecessors_offset_beyond_the_logs_end_is_refused_by_partition() -> None:
    world = World()
    world.log.append(1, [b"1"] * 9)
    world.group.offsets = {1: Committed(offset=10, metadata="")}
    fault = await world.refusal()
    assert fault.startswith("KAFKA_GROUP_ID: g: the predecessor's offset 10 of partition 1 is beyond the log's end 9")


@virtual_time
async def test_a_predecessor_with_members_is_waited_for_and_its_last_offsets_count() -> None:
    world = World()
    world.log.append(0, [b"1"] * 9)
    predecessor = FakeSource(world.group)
    await predecessor.connect()
    predecessor.join(Silent())
    world.group.offsets = {0: Committed(offset=4, metadata="")}
    reaching = asyncio.create_task(world.reach())
    await asyncio.sleep(60)
    assert world.store.objects == {}
    assert "stop the predecessor first" in world.waits[-1][1]
    world.group.offsets = {0: Committed(offset=7, metadata="")}
    await predecessor.leave()
    assert (await reaching).layout.origins["0"] == 7


@virtual_time
async def test_a_signature_that_comes_while_the_predecessor_is_waited_for_is_refused() -> None:
    world = World()
    predecessor = FakeSource(world.group)
    await predecessor.connect()
    predecessor.join(Silent())
    world.group.offsets = {0: Committed(offset=0, metadata="")}
    refusing = asyncio.create_task(world.refusal())
    await until(lambda: world.waits)
    world.group.offsets = {0: Committed(offset=0, metadata=sign_offset("other", 0))}
    await predecessor.leave()
    assert "signed by chain other" in await refusing


@virtual_time
async def test_two_that_wait_for_a_predecessor_agree_though_the_faster_commits_first() -> None:
    world = World()
    predecessor = FakeSource(world.group)
    await predecessor.connect()
    predecessor.join(Silent())
    world.group.offsets = {0: Committed(offset=0, metadata="")}
    slower = asyncio.create_task(world.reach())
    await until(lambda: world.waits)
    world.place(MADE)
    world.group.offsets = {0: Committed(offset=5, metadata=sign_offset("theirs", 5))}
    await predecessor.leave()
    assert (await slower).layout == MADE


@pytest.mark.parametrize("late", [0.0, 0.01, 0.05])
@virtual_time
async def test_of_two_first_starts_one_creates_it_and_both_obey(late: float) -> None:
    world = World()

    async def slow(asked: Asked) -> None:
        await asyncio.sleep(0.02)

    world.store.before = slow

    async def second() -> Agreed:
        await asyncio.sleep(late)
        return await world.reach(replace(TERMS, new_chain_id="second", start_from="latest"))

    one, two = await asyncio.gather(world.reach(), second())
    assert one.layout == two.layout == world.layout()


@virtual_time
async def test_every_later_start_obeys_and_proves_the_condition() -> None:
    world = World()
    world.place(MADE)
    world.group.offsets = {0: Committed(offset=7, metadata=sign_offset("theirs", 7))}
    assert (await world.reach()).layout == MADE
    assert world.store.asked(Call.PUT) == [KEYS.layout_key]  # the condition is tried by the creator and by the others
    assert world.store.objects[KEYS.layout_key].body == MADE.encode()


@virtual_time
async def test_the_creator_proves_the_condition_too() -> None:
    world = World()
    await world.reach()
    assert world.store.asked(Call.PUT) == [KEYS.layout_key] * 2


@virtual_time
async def test_a_foreign_signature_is_refused_before_anything_is_written() -> None:
    for place in (False, True):
        world = World()
        if place:
            world.place(MADE)
        world.group.offsets = {1: Committed(offset=7, metadata=sign_offset("other", 7))}
        fault = await world.refusal()
        assert fault.startswith("KAFKA_GROUP_ID: g has offset 7 of partition 1 signed by chain other, but prefix ''")
        assert ("holds chain theirs" if place else f"has no {KEYS.layout_key}") in fault
        assert world.store.asked(Call.PUT) == []


@virtual_time
async def test_objects_without_a_layout_are_refused_after_a_second_look() -> None:
    world = World()
    key = KEYS.render(partition=0, start=0, timestamp=0)
    world.store.place(key, b"")
    fault = await world.refusal()
    assert fault.startswith("S3_PREFIX: '' holds objects of this template")
    assert key in fault
    assert len(world.store.asked(Call.LIST)) == 2
    assert world.store.asked(Call.PUT) == []


@virtual_time
async def test_objects_whose_layout_shows_at_the_second_look_are_another_first_starts() -> None:
    world = World()

    async def meanwhile(asked: Asked) -> None:
        if asked.call is Call.LIST:
            world.store.place(KEYS.render(partition=0, start=0, timestamp=0), b"")
            world.place(MADE)

    world.store.before = meanwhile
    assert (await world.reach()).layout == MADE


@virtual_time
async def test_keys_that_the_template_cannot_render_are_nobodys_objects() -> None:
    world = World()
    for name in ("topic=task/dt=2020-13-01/hour=00/00000-00000000000000000000.jsonl.gz", "topic=task/x", "readme"):
        world.store.place(name, b"")
    await world.reach()


@pytest.mark.parametrize("topic", ["task", "quarantine"])
@virtual_time
async def test_a_prefix_of_the_other_kind_is_refused(topic: str) -> None:
    with_topic = KeyTemplate(TEMPLATE, prefix="", topic=topic, ext="jsonl.gz")
    world = World()
    world.store.place(with_topic.layout_key, b"{}")
    fault = await world.refusal(replace(TERMS, keys=NO_KEYS_TIME))
    assert fault.startswith("S3_KEY_TEMPLATE: '{partition}-{start}.{ext}' lacks {topic}")
    assert with_topic.layout_key in fault
    world = World()
    world.store.place("_ticklake/layout.json", b"{}")
    fault = await world.refusal(replace(TERMS, keys=with_topic))
    assert "has {topic}, but _ticklake/layout.json" in fault


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topic": "other"}, "KAFKA_TOPIC: 'task' here, 'other' in"),
        ({"topic_id": "topic-0"}, "KAFKA_TOPIC (topic id): 'topic-1' here, 'topic-0' in"),
        ({"cluster_id": "c"}, "KAFKA_BOOTSTRAP_SERVERS (cluster id): 'cluster-1' here, 'c' in"),
        ({"template": "t"}, "S3_KEY_TEMPLATE: "),
        ({"ext": "json"}, "BATCH_MAX_RECORDS, RECORD_FORMAT, COMPRESSION (ext): 'jsonl.gz' here, 'json' in"),
        ({"format": "envelope"}, "RECORD_FORMAT: 'value' here, 'envelope' in"),
        ({"compression": "zstd"}, "COMPRESSION: 'gzip' here, 'zstd' in"),
        ({"version": 2}, "S3_PREFIX: _ticklake/task/layout.json has version 2; allowed here: up to 1"),
    ],
)
@virtual_time
async def test_each_mismatch_is_named(changes: dict[str, object], said: str) -> None:
    world = World()
    world.place(replace_layout(MADE, **changes))
    assert (await world.refusal()).startswith(said)


@virtual_time
async def test_ids_that_a_broker_cannot_tell_are_not_compared() -> None:
    world = World()
    world.place(replace_layout(MADE, topic_id=None, cluster_id=None))
    await world.reach()


@virtual_time
async def test_all_mismatches_are_told_at_once() -> None:
    world = World()
    world.place(replace_layout(MADE, format="envelope", compression="none", ext="jsonl"))
    with pytest.raises(SettingsError) as caught:
        await world.reach()
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("body", [b"", b"{", MADE.encode()[:-20], b'{"version":1}', b"\xff"])
@virtual_time
async def test_a_damaged_layout_is_refused(body: bytes) -> None:
    world = World()
    world.store.place(KEYS.layout_key, body)
    fault = await world.refusal()
    assert fault.startswith("S3_PREFIX: _ticklake/task/layout.json cannot be read: ")
    assert "\n" not in fault


@virtual_time
async def test_a_store_that_ignores_the_condition_is_refused() -> None:
    world = World()
    world.place(MADE)
    world.store.script(Call.PUT, Wrong.IGNORES_CONDITION)
    fault = await world.refusal()
    assert fault.startswith("AWS_ENDPOINT_URL_S3: ")
    assert "ignores If-None-Match" in fault


@virtual_time
async def test_a_403_for_an_absent_key_is_waited_for() -> None:
    world = World()
    hint = "403: grant s3:ListBucket or renew the credentials"
    world.store.script(Call.HEAD, *[Fail(failure=Failure.REFUSED, reason=hint)] * 3)
    began = asyncio.get_running_loop().time()
    await world.reach()
    assert world.waits == [("_ticklake/task/never-written", hint)] * 3
    assert 90 <= asyncio.get_running_loop().time() - began < 94


@virtual_time
async def test_a_compacted_topic_needs_a_template_without_time() -> None:
    world = World(log=FakeLog(1, compacted=True))
    fault = await world.refusal()
    assert fault.startswith("S3_KEY_TEMPLATE: ")
    assert "compacted" in fault
    await world.reach(replace(TERMS, keys=NO_KEYS_TIME))


@virtual_time
async def test_kafka_and_s3_are_waited_for_however_long() -> None:
    world = World()
    world.log.topic_id = None
    away = True
    world.store.plan = lambda _: Fail(reason="away") if away else None
    reaching = asyncio.create_task(world.reach())
    await asyncio.sleep(5000)
    assert world.waits[-1] == ("the topic", "the topic does not exist")
    world.log.topic_id = "topic-1"
    for method in ("committed", "log_ranges"):
        world.source.fail_next(method, SourceError("moved"))
    await asyncio.sleep(5000)
    assert ("the group's offsets", "moved") in world.waits
    assert world.waits[-1][1] == "away"
    assert world.store.objects == {}
    away = False
    await reaching
    assert world.layout().chain_id == "mine"


@virtual_time
async def test_a_layouts_put_of_unknown_outcome_is_asked_for_again() -> None:
    world = World()
    world.store.script(Call.PUT, Fail(after_effect=True), Fail())
    assert (await world.reach()).layout.chain_id == "mine"
    assert PutAnswer.EXISTS is await world.store.put_if_absent(world.store.calls[-2].upload)  # type: ignore[arg-type]
