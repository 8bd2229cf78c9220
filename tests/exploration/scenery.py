"""What worlds are made of: records, objects that are there from the beginning, two writers.

Owns: the material. Does not own: the worlds themselves (`worlds`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consumer.ports import Record
from shared.schemas import Layout, ObjectMetadata
from tests.exploration.world import HOUR_MS, KEYS, TOPIC, Process, Thing, World

if TYPE_CHECKING:
    from consumer.keys import KeyTemplate

CHAIN_ID: Final = "c0ffee"
NOON: Final = 400_000 * HOUR_MS


def record(offset: int, *, size: int = 1, hour: int = 0) -> Record:
    return Record(offset=offset, timestamp=NOON + hour * HOUR_MS + offset, key=None, value=b"1" * size, headers=())


def layout(origin: int = 0, *, keys: KeyTemplate = KEYS, topic_id: str | None = None) -> Thing:
    """The layout file that all agree on. `topic_id` None = made where the broker tells none."""
    body = Layout(
        version=1,
        chain_id=CHAIN_ID,
        topic=TOPIC,
        topic_id=topic_id,
        cluster_id=None,
        template=keys.template,
        ext=keys.ext,
        format="value",
        compression="none",
        origins={"0": origin},
    ).encode()
    return Thing(kind="layout", key=keys.layout_key, body=body)


def stranger(*, chain_id: str, timestamp: int) -> Thing:
    """An object that lies where the chain's first belongs, and is no link of it."""
    metadata = ObjectMetadata(
        chain_id=chain_id,
        topic=TOPIC,
        partition=0,
        start_offset=0,
        next_offset=2,
        record_count=2,
        quarantined_count=0,
        first_timestamp=timestamp,
        max_timestamp=timestamp,
        sha256="0" * 64,
        writer="stranger",
    ).encode()
    key = KEYS.render(partition=0, start=0, timestamp=0)
    return Thing(kind="stranger", key=key, metadata=tuple(sorted(metadata.items())))


# Five records: a gap at 1, one beyond any limit of bytes at 3, one that cannot be a line at 4.
FIVE: Final = (record(0), None, record(2), record(3, size=9), record(4), record(5))
FOUR: Final = FIVE[:5]
THREE: Final = FIVE[:4]
TWO: Final = FIVE[:3]
POISON: Final = frozenset({4})
BY_RECORDS: Final = Process(records=2, judges=POISON)
BY_BYTES: Final = Process(bytes=3, judges=POISON)
AGREED: Final = (layout(),)


def of_two(name: str, about: str, log: tuple[Record | None, ...], **budgets: int) -> World:
    """Two writers that cut differently; faults by their names with _ for a space."""
    return World(
        name=name,
        about=about,
        log=log,
        processes=(BY_RECORDS, BY_BYTES),
        budgets={fault.replace("_", " "): count for fault, count in budgets.items()},
        objects=AGREED,
    )


def coarse(world: World) -> World:
    """A poll brings one record or everything: enough where polls are not what the world is about."""
    return replace(world, any_prefix=False)


def from_two(world: World) -> World:
    """The same world beginning at offset 2: fewer records, the odd ones among them."""
    return replace(world, log=(None, None, *world.log[2:]), objects=(layout(2),), log_start=2)


def stored(*ranges: tuple[int, int]) -> tuple[Thing, ...]:
    """Objects of the chain that stand there from the beginning."""
    things = []
    for start, end in ranges:
        lines = [offset for offset in range(start, end) if FIVE[offset] is not None]
        stamps = [one.timestamp for offset in lines if (one := FIVE[offset]) is not None]
        metadata = ObjectMetadata(
            chain_id=CHAIN_ID,
            topic=TOPIC,
            partition=0,
            start_offset=start,
            next_offset=end,
            record_count=len(lines),
            quarantined_count=0,
            first_timestamp=stamps[0],
            max_timestamp=max(stamps),
            sha256="0" * 64,
            writer="former",
        ).encode()
        things.append(
            Thing(
                kind="data",
                key=KEYS.render(partition=0, start=start, timestamp=stamps[0]),
                lines=tuple(lines),
                metadata=tuple(sorted(metadata.items())),
                start=start,
                end=end,
                chain_id=CHAIN_ID,
            )
        )
    return tuple(things)
