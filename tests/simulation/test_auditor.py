"""The memory ceiling, compressed or not: what is beyond it is found, what is allowed is not."""

from __future__ import annotations

from random import Random
from typing import Final

import pytest

from consumer.keys import KeyTemplate
from shared.schemas import LAYOUT_VERSION, Layout
from tests.fakes.store import FakeStore
from tests.simulation.auditor import FRAMES_BYTES, Auditor, Unstored
from tests.simulation.plan import CHAIN_ID, EXTENSIONS
from tests.simulation.topic import Taste, Topic

TEMPLATE: Final = "{partition}-{start}.{ext}"
LIMIT_BYTES: Final = 1_500
TASTE: Final = Taste(
    poison=0.0,
    giants=0.0,
    line_breaks=0.0,
    gaps=0.0,
    control=0.0,
    interleaved=False,
    envelopes=False,
    value_bytes=200,
    giant_bytes=1_000,
)


def auditor(compression: str) -> tuple[Auditor, Topic]:
    topic = Topic(1, random=Random(1), taste=TASTE)
    topic.grow(0, 12, clock_ms=0)
    layout = Layout(
        version=LAYOUT_VERSION,
        chain_id=CHAIN_ID,
        topic="task",
        topic_id="topic-1",
        cluster_id="cluster-1",
        template=TEMPLATE,
        ext=EXTENSIONS[compression],
        format="value",
        compression=compression,
        origins={"0": 0},
    )
    keys = KeyTemplate(TEMPLATE, prefix="", topic="task", ext=EXTENSIONS[compression])
    made = Auditor(topic=topic, store=FakeStore(), layout=layout, keys=keys, skip_loss=False, tell=lambda _: None)
    return made, topic


@pytest.mark.parametrize("compression", EXTENSIONS)
@pytest.mark.parametrize("buffered_bytes", [100 << 20, 10_000])
def test_a_process_far_above_its_limit_is_found(compression: str, buffered_bytes: int) -> None:
    judge, _ = auditor(compression)
    unstored = [Unstored(partition=0, start=0, sealed=6, end=12)]
    with pytest.raises(AssertionError, match=f"m1 holds {buffered_bytes} bytes"):
        judge.memory(
            "m1", buffered_bytes=buffered_bytes, unstored=unstored, limit_bytes=LIMIT_BYTES, polled_bytes=2_000
        )


@pytest.mark.parametrize("compression", EXTENSIONS)
def test_limit_poll_lines_and_what_is_sealed_are_allowed_to_the_byte(compression: str) -> None:
    judge, topic = auditor(compression)
    sealed = sum(one.memory_bytes for one in topic.between(0, 0, 6))
    newlines = 12  # a line is that much longer than its value
    allowed = LIMIT_BYTES + 2 * 2_000 + newlines + (0 if compression == "none" else FRAMES_BYTES + sealed)
    unstored = [Unstored(partition=0, start=0, sealed=6, end=12)]
    judge.memory("m1", buffered_bytes=allowed, unstored=unstored, limit_bytes=LIMIT_BYTES, polled_bytes=2_000)
    with pytest.raises(AssertionError, match="allowed are"):
        judge.memory("m1", buffered_bytes=allowed + 1, unstored=unstored, limit_bytes=LIMIT_BYTES, polled_bytes=2_000)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_partition_with_nothing_open_is_allowed_nothing_more(compression: str) -> None:
    judge, _ = auditor(compression)
    idle = [Unstored(partition=0, start=12, sealed=12, end=12)]
    judge.memory("m1", buffered_bytes=LIMIT_BYTES, unstored=idle, limit_bytes=LIMIT_BYTES, polled_bytes=0)
    with pytest.raises(AssertionError, match="allowed are"):
        judge.memory("m1", buffered_bytes=LIMIT_BYTES + 1, unstored=idle, limit_bytes=LIMIT_BYTES, polled_bytes=0)
