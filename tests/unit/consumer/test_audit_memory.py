"""What an audit keeps of each object: `auditor` says how much, here it is measured."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from consumer.audit import Ground
from consumer.auditor import Auditor
from consumer.ports import Committed
from consumer.settings import Settings
from shared.schemas import sign_offset
from shared.settings import load
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.fakes.store import FakeStore
from tests.planting import CHAIN, Planter, layout_for, record

if TYPE_CHECKING:
    from consumer.findings import Findings

FEW, MANY = 200, 1200
OBJECT_BYTES = 400


class Unseen:
    """Progress that nobody sees."""

    def expect(self, offsets: int, *, what: str) -> None: ...
    def advance(self, offsets: int, body_bytes: int) -> None: ...


async def audited(objects: int) -> tuple[Findings, int]:
    """An audit of that many objects of a record each; its peak of memory in bytes, the bucket's own not counted."""
    settings = load(Settings, {"S3_BUCKET": "bucket", "KAFKA_GROUP_ID": "group"})
    layout = layout_for(settings.keys)
    planter = Planter(Ground(layout=layout, keys=settings.keys))
    log, store = FakeLog(1), FakeStore()
    group = FakeGroup(log)
    store.place(settings.keys.layout_key, layout.encode())
    log.append_records(0, [record(offset) for offset in range(objects)])
    for offset in range(objects):
        made = planter.object([record(offset)])
        store.place(made.main.key, made.main.body, made.main.metadata)
    group.offsets[0] = Committed(offset=objects, metadata=sign_offset(CHAIN, objects))
    auditor = Auditor(settings, kafka=FakeSource(group), store=store, progress=Unseen())
    tracemalloc.start()
    try:
        findings = await auditor.run()
        return findings, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_an_audit_keeps_little_of_an_object() -> None:
    _, few = await audited(FEW)
    findings, many = await audited(MANY)
    assert findings.clean
    assert findings.partitions[0].objects == MANY
    assert (many - few) / (MANY - FEW) < OBJECT_BYTES
