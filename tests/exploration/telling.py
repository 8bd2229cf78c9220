"""A state in words, for the trace of a counter-example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.exploration.world import NOWHERE, Stage

if TYPE_CHECKING:
    from tests.exploration.ground import Ground
    from tests.exploration.world import State, Writer

STAGES = {value: name.lower() for name, value in vars(Stage).items() if isinstance(value, int)}


def tell(ground: Ground, state: State) -> str:
    """One line."""
    committed = ground.tables.committed[state.committed]
    things = [
        f"[{one.start},{one.end}) {','.join(map(str, one.lines))} of {dict(one.metadata).get('writer')}"
        if one.kind == "data"
        else f"{one.kind} {one.key.rsplit('/', 1)[-1]} {one.lines or ''}"
        for one in ground.things(state.bucket)
    ]
    parts = [
        f"bucket {things}",
        f"group {f'{committed.offset} {committed.metadata!r}' if committed else None} of {state.owner}",
        f"log [{state.log_start},{state.log_end})",
        *(f"{'ab'[index]} {_writer(ground, index, state)}" for index in range(len(state.writers))),
    ]
    if state.flying:
        parts.append(f"flying {[ground.tables.things[one].key for one in state.flying]}")
    if state.late:
        parts.append(f"late commits {[offset for offset, _ in state.late]}")
    return "; ".join(parts)


def _writer(ground: Ground, index: int, state: State) -> str:
    writer: Writer = ground.writer(state, index)
    if writer.stage != Stage.ACTIVE:
        return STAGES[writer.stage]
    chain = ground.drivers[index].chain(writer)
    parts = [
        f"{chain.phase.value} at {chain.position} next {chain.fetch_next}",
        f"open {writer.open}",
        f"chunk [{chain.chunk.start},{chain.chunk.next_offset})" if chain.chunk else "",
        "draining" if chain.draining else "",
        f"waits for {', '.join(_request(one) for one in writer.requests)}" if writer.requests else "",
        f"polled {writer.fetched}" if writer.fetched else "",
        f"to commit {writer.noted}" if writer.noted != NOWHERE else "",
    ]
    return " ".join(part for part in parts if part)


def _request(request: tuple[object, ...]) -> str:
    kind, fresh, *rest = request
    return f"{kind}{'' if fresh else ' (stale)'} {rest[-1] or ''}".strip()
