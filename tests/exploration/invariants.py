"""What must hold, whatever happens: of a bucket, of a committed offset, of a put that starts.

Owns: the sentences and their checks, on what stands in the bucket alone, never on what a writer believes. Does not own:
when they are asked (`model`: at every effect and so in every state), the fair continuation (`search`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.schemas import Layout, signer
from tests.exploration.search import Broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumer.ports import Committed
    from tests.exploration.world import Thing, World

CHAIN = "the objects of a partition form a chain from its origin"
ONCE = "no record stands in two objects"
EXACT = "an object holds exactly the log's records of its range"
QUARANTINE = "what an object says was quarantined stands in the quarantine object that it names"
STORED = "nothing is committed that is not stored"
BOUNDARY = "a committed offset of ours is a boundary or the origin"
PUT = "a put starts only at a boundary"
LOST = "only what the log had lost is skipped"
LINKED = "what is taken for a link of the chain is one"
ONE_CHAIN = "every object belongs to a chain that a layout describes"
ONE_LAYOUT = "a topic's layout is made once"
NO_FOREIGNER = "no layout is made beside the signature of another chain"
TAKE_OVER = "a chain begins where the predecessor ended"
RECREATED = "a re-created topic is not read"
REFUSED = "a writer whose settings would fork the chain writes nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where one chain stands: its boundaries, its origin among them, and its end."""

    boundaries: frozenset[int]
    end: int


def facts(things: Iterable[Thing], chain_id: str, origin: int) -> Facts:
    ends = [thing.end for thing in things if thing.chain_id == chain_id]
    return Facts(boundaries=frozenset([origin, *ends]), end=max([origin, *ends]))


def check_bucket(things: Sequence[Thing], world: World) -> None:
    """Raises Broken when the objects are not what they must be."""
    layouts = [Layout.decode(thing.body) for thing in things if thing.kind == "layout"]
    if len(layouts) > 1:
        raise Broken(ONE_LAYOUT, f"{len(layouts)} layouts for one topic and group")
    data = sorted((thing for thing in things if thing.kind == "data"), key=lambda thing: (thing.start, thing.key))
    _check_once(data)
    for thing in data:
        if thing.chain_id not in {layout.chain_id for layout in layouts}:
            raise Broken(ONE_CHAIN, f"{thing.key} is of chain {thing.chain_id}")
    end = layouts[0].origin(0) if layouts else 0
    names = {thing.key.rsplit("/", 1)[-1]: thing for thing in things if thing.kind == "quarantine"}
    for thing in data:
        if thing.start != end:
            raise Broken(CHAIN, f"{thing.key} starts at {thing.start}, the chain ends at {end}")
        check_content(thing, names, world)
        end = thing.end


def _check_once(data: Iterable[Thing]) -> None:
    seen: dict[int, str] = {}
    for thing in data:
        for offset in thing.lines:
            if offset in seen:
                raise Broken(ONCE, f"record {offset} stands in {seen[offset]} and in {thing.key}")
            seen[offset] = thing.key


def check_content(thing: Thing, quarantines: dict[str, Thing], world: World) -> None:
    """Lines and quarantined records together are the log's; the metadata counts and names them."""
    metadata = dict(thing.metadata)
    aside: tuple[int, ...] = ()
    if int(metadata["quarantined-count"]) or thing.named:
        named = quarantines.get(thing.named)
        if named is None:
            raise Broken(QUARANTINE, f"{thing.key} names {thing.named!r}, which is not there")
        aside = named.lines
    if len(aside) != int(metadata["quarantined-count"]):
        raise Broken(QUARANTINE, f"{thing.key} says {metadata['quarantined-count']}, {thing.named} holds {aside}")
    records = readable(world, thing.start + thing.lost, thing.end)
    if tuple(sorted(thing.lines + aside)) != records:
        what = QUARANTINE if thing.lines + aside and aside else EXACT
        raise Broken(what, f"[{thing.start}, {thing.end}) holds {thing.lines} and aside {aside}; the log {records}")
    if not records or thing.end <= thing.start or int(metadata["record-count"]) != len(thing.lines):
        raise Broken(EXACT, f"{thing.key} is empty or miscounted: {metadata}")
    stamps = [record.timestamp for offset in records if (record := world.log[offset]) is not None]
    if (int(metadata["first-timestamp"]), int(metadata["max-timestamp"])) != (stamps[0], max(stamps)):
        raise Broken(EXACT, f"{thing.key} says other timestamps than its records' {stamps}")


def readable(world: World, start: int, end: int) -> tuple[int, ...]:
    """The offsets in [start, end) at which the log has a record."""
    return tuple(offset for offset in range(start, min(end, len(world.log))) if world.log[offset] is not None)


def check_put(thing: Thing, facts: Facts, log_start: int, world: World) -> None:
    """A put starts: at a boundary, and with what it leaves out really lost."""
    if thing.start not in facts.boundaries:
        raise Broken(PUT, f"a put starts at {thing.start}; boundaries are {sorted(facts.boundaries)}")
    if thing.lost and not (world.skip_loss and thing.start + thing.lost <= log_start):
        raise Broken(LOST, f"a put at {thing.start} leaves out {thing.lost} offsets, the log starts at {log_start}")


def check_boundary(offset: int, facts: Facts) -> None:
    """A writer asks for `offset` to be committed, or Kafka holds it as ours."""
    if offset > facts.end:
        raise Broken(STORED, f"{offset} is committed, the chain ends at {facts.end}")
    if offset not in facts.boundaries:
        raise Broken(BOUNDARY, f"{offset} is committed; boundaries are {sorted(facts.boundaries)}")


def check_layout(layout: Layout, committed: Committed | None, *, predecessor: bool, log_start: int) -> None:
    """A layout comes into being."""
    signed_by = signer(committed.offset, committed.metadata) if committed else None
    if signed_by is not None:
        raise Broken(NO_FOREIGNER, f"chain {layout.chain_id} begins, the group's offset is signed by {signed_by}")
    if predecessor:
        raise Broken(TAKE_OVER, "a chain begins while the predecessor may still commit")
    if committed is not None and layout.origin(0) != max(committed.offset, log_start):
        raise Broken(TAKE_OVER, f"a chain begins at {layout.origin(0)}, the predecessor ended at {committed.offset}")
