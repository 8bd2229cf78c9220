"""Planted bugs: what somebody could do to the protocol, by accident or to save a request.

Owns: each bug as a few lines in place of real ones, the world that shows it and the invariant it breaks. Does not own:
the search (`search`).

The real functions are wrapped, so that all else of them stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from consumer import chain as chains
from consumer.chain import Phase, _Turn
from consumer.events import Chunk, Commit, Drop, Located, Outcome, PutAnswered, PutQuarantine, Seal, Seek
from consumer.keys import KeyTemplate
from consumer.layout import Agreed, Agreement
from consumer.ports import Failure, Found, LogRange, OutOfRange
from consumer.runs import Read
from shared.schemas import Layout, ObjectMetadata, signer
from tests.exploration import invariants
from tests.exploration.scenery import CHAIN_ID
from tests.exploration.search import FAIR

Patch: TypeAlias = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`plant` puts the bug in place; `world` shows it by breaking `invariant`."""

    name: str
    world: str
    invariant: str
    plant: Patch


MUTANTS: Final[list[Mutant]] = []


def mutant(name: str, *, world: str, breaks: str) -> Callable[[Patch], Patch]:
    """Register a planted bug."""

    def register(plant: Patch) -> Patch:
        MUTANTS.append(Mutant(name=name, world=world, invariant=breaks, plant=plant))
        return plant

    return register


def after(patch: pytest.MonkeyPatch, method: str, then: Callable[[_Turn], None]) -> None:
    """`then` follows each call of the method."""
    original = getattr(_Turn, method)

    def both(turn: _Turn, *args: Any, **kwargs: Any) -> None:
        original(turn, *args, **kwargs)
        then(turn)

    patch.setattr(_Turn, method, both)


def resealed(patch: pytest.MonkeyPatch, change: Callable[[Chunk], dict[str, Any]]) -> None:
    """Every chunk is sealed with changes."""

    def then(turn: _Turn) -> None:
        assert turn.chain.chunk is not None
        other = replace(turn.chain.chunk, **change(turn.chain.chunk))
        turn._set(chunk=other, batch=replace(turn.chain.batch, start=other.next_offset))
        turn.actions[-1] = Seal(epoch=turn.chain.epoch, chunk=other)

    after(patch, "_seal", then)


# ---- keys and ends ---------------------------------------------------------------------------------------------------


@mutant("end offset in the key", world="zombie", breaks=invariants.ONCE)
def _(patch: pytest.MonkeyPatch) -> None:
    resealed(patch, lambda chunk: {"key": f"{chunk.key}-{chunk.next_offset}"})


@mutant("extension by chunk size", world="zombie", breaks=invariants.ONCE)
def _(patch: pytest.MonkeyPatch) -> None:
    resealed(patch, lambda chunk: {"key": chunk.key + (".large" if chunk.records > 1 else "")})


@mutant("hour of the last record in the key", world="hours", breaks=invariants.ONCE)
def _(patch: pytest.MonkeyPatch) -> None:
    def last_hour(chunk: Chunk) -> dict[str, Any]:
        hours = chunk.max_timestamp // 3_600_000 - chunk.first_timestamp // 3_600_000
        return {"key": f"{chunk.key}" if not hours else f"later-{hours}-{chunk.key}"}

    resealed(patch, last_hour)


@mutant("n one record too high at a seal", world="zombie", breaks=invariants.EXACT)
def _(patch: pytest.MonkeyPatch) -> None:
    resealed(patch, lambda chunk: {"next_offset": chunk.next_offset + 1})


@mutant("n is the consumed position though records are held back", world="zombie", breaks=invariants.EXACT)
def _(patch: pytest.MonkeyPatch) -> None:
    def then(turn: _Turn) -> None:
        assert turn.chain.chunk is not None
        other = replace(turn.chain.chunk, next_offset=turn.chain.fetch_next)
        turn._set(chunk=other, batch=replace(turn.chain.batch, start=other.next_offset))
        turn.actions[-1] = Seal(epoch=turn.chain.epoch, chunk=other)

    after(patch, "_seal", then)


# ---- commits ---------------------------------------------------------------------------------------------------------


@mutant("commit before put", world="zombie", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    after(patch, "_seal", lambda turn: turn._do(Commit(offset=turn.chain.batch.start)))


@mutant("unsigned commits trusted", world="offsets harmed", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chains, "signer", lambda offset, metadata: signer(offset, metadata) or CHAIN_ID)


@mutant("foreign signature taken for ours", world="foreign signature", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chains, "signer", lambda offset, metadata: signer(offset, metadata) and CHAIN_ID)


@mutant("signature of another offset trusted", world="offsets harmed", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chains, "signer", lambda _offset, metadata: CHAIN_ID if CHAIN_ID in metadata else None)


@mutant("signed offset below the log's start trusted", world="log start", breaks=FAIR)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._located

    def located(turn: _Turn, event: Located) -> None:
        original(turn, replace(event, log=LogRange(start=0, high_watermark=event.log.high_watermark)))

    patch.setattr(_Turn, "_located", located)


@mutant("topic id not compared", world="topic made anew", breaks=invariants.RECREATED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._located
    patch.setattr(_Turn, "_located", lambda turn, event: original(turn, replace(event, mismatch=None)))


@mutant("an end above the log not noticed", world="topic made anew, no ids", breaks=FAIR)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._located

    def located(turn: _Turn, event: Located) -> None:
        original(turn, replace(event, log=replace(event.log, high_watermark=99)))

    patch.setattr(_Turn, "_located", located)


@mutant("recovery by log start instead of listing", world="log start", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._located

    def located(turn: _Turn, event: Located) -> None:
        original(turn, event)
        if turn.chain.phase is Phase.RECOVERING:
            turn.actions.clear()
            turn._begin(event.log.start)

    patch.setattr(_Turn, "_located", located)


# ---- the chunk in flight ---------------------------------------------------------------------------------------------


@mutant("adopt without dropping what is buffered", world="zombie", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._adopt

    def adopt(turn: _Turn, found: Found, **kwargs: Any) -> None:
        end, chunk = ObjectMetadata.decode(found.metadata).next_offset, turn.chain.chunk
        if chunk is None or chunk.next_offset == end:
            original(turn, found, **kwargs)
            return
        turn._set(position=end, chunk=None, asking=False)
        turn._do(Commit(offset=end))
        turn._advance()

    patch.setattr(_Turn, "_adopt", adopt)


# A step's actions are done together, so their order shows only where one can fail: as in a driver whose refused commit
# ends the step (a zombie's CommitFailedError, design §6.4). The real order stands that, see the world.
@mutant("commit before dropping", world="refused commit", breaks=invariants.ONCE)
def _(patch: pytest.MonkeyPatch) -> None:
    def then(turn: _Turn) -> None:
        if any(isinstance(action, Drop) for action in turn.actions):
            turn.actions.sort(key=lambda action: not isinstance(action, Commit))

    after(patch, "_adopt", then)


@mutant("adopt trusting our own end", world="zombie", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._adopt

    def adopt(turn: _Turn, found: Found, **kwargs: Any) -> None:
        if turn.chain.chunk is None:
            original(turn, found, **kwargs)
        else:
            turn._linked(turn.chain.chunk, Outcome.OWN)

    patch.setattr(_Turn, "_adopt", adopt)


@mutant("putting behind a chunk of unknown outcome", world="lost answers", breaks=invariants.PUT)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._put_answered

    def put_answered(turn: _Turn, event: PutAnswered) -> None:
        original(turn, event)
        if event.answer is Failure.UNAVAILABLE:
            turn._set(chunk=None, asking=False)
            turn._advance()

    patch.setattr(_Turn, "_put_answered", put_answered)


@mutant("409 treated as exists", world="failing store", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._put_answered

    def put_answered(turn: _Turn, event: PutAnswered) -> None:
        if event.answer is Failure.CONFLICT and turn.chain.chunk is not None:
            turn._linked(turn.chain.chunk, Outcome.ADOPTED)
        else:
            original(turn, event)

    patch.setattr(_Turn, "_put_answered", put_answered)


@mutant("404 after a conflict treated as created", world="failing store", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._head_answered

    def head_answered(turn: _Turn, found: Found | None) -> None:
        chunk = turn.chain.chunk
        if found is None and chunk is not None and turn.chain.asking and turn.chain.failure is Failure.CONFLICT:
            turn._linked(chunk, Outcome.CREATED)
        else:
            original(turn, found)

    patch.setattr(_Turn, "_head_answered", head_answered)


@mutant("the put is not repeated after a 404", world="failing store", breaks=FAIR)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._head_answered

    def head_answered(turn: _Turn, found: Found | None) -> None:
        if found is not None or not turn.chain.asking:
            original(turn, found)

    patch.setattr(_Turn, "_head_answered", head_answered)


@mutant("answers of older epochs believed", world="stale answers", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn.take

    def take(turn: _Turn, event: Any) -> None:
        original(turn, replace(event, epoch=turn.chain.epoch) if hasattr(event, "epoch") else event)

    patch.setattr(_Turn, "take", take)


@mutant("timestamps of what is adopted not compared", world="other record", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = chains.check_object

    def check_object(found: Found, **kwargs: Any) -> ObjectMetadata:
        return original(found, **{**kwargs, "first_timestamp": None})

    patch.setattr(chains, "check_object", check_object)


@mutant("objects of another chain adopted", world="stranger", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chains, "check_object", lambda found, **_: ObjectMetadata.decode(found.metadata))


# ---- records in ------------------------------------------------------------------------------------------------------


@mutant("no seek after assignment", world="revoke", breaks=FAIR)
def _(patch: pytest.MonkeyPatch) -> None:
    def then(turn: _Turn) -> None:
        turn.actions[:] = [action for action in turn.actions if not isinstance(action, Seek)]

    after(patch, "_start", then)


@mutant("late poll taken after a seek", world="late polls", breaks=invariants.EXACT)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._polled

    def polled(turn: _Turn, item: Read | OutOfRange) -> None:
        original(turn, replace(item, start=turn.chain.fetch_next) if isinstance(item, Read) else item)

    patch.setattr(_Turn, "_polled", polled)


@mutant("skip without waiting", world="loss skipped, zombie", breaks=invariants.CHAIN)
def _(patch: pytest.MonkeyPatch) -> None:
    original = _Turn._begin

    def begin(turn: _Turn, end: int) -> None:
        turn._set(loss_waited=True)
        original(turn, end)

    patch.setattr(_Turn, "_begin", begin)


@mutant("a stall is never looked at again", world="foreign signature", breaks=FAIR)
def _(patch: pytest.MonkeyPatch) -> None:
    after(patch, "_stall", lambda turn: turn._set(due=None))


# ---- quarantine ------------------------------------------------------------------------------------------------------


@mutant("quarantine after the main object", world="zombie", breaks=invariants.QUARANTINE)
def _(patch: pytest.MonkeyPatch) -> None:
    finished, linked = _Turn._finished, _Turn._linked
    aside: set[Chunk | None] = set()

    def put_first(turn: _Turn, *, quarantine: bool) -> None:
        if quarantine:
            aside.add(turn.chain.chunk)
        finished(turn, quarantine=False)

    def then_quarantine(turn: _Turn, chunk: Chunk, outcome: Outcome) -> None:
        if chunk in aside:
            turn._do(PutQuarantine(epoch=turn.chain.epoch, chunk=chunk))
        linked(turn, chunk, outcome)

    patch.setattr(_Turn, "_finished", put_first)
    patch.setattr(_Turn, "_linked", then_quarantine)


@mutant("quarantine counted by range alone", world="versions", breaks=invariants.QUARANTINE)
def _(patch: pytest.MonkeyPatch) -> None:
    def name(_: KeyTemplate, *, partition: int, start: int, next_offset: int, sha256: str) -> str:
        del sha256
        return f"{partition:05d}-{start:020d}-{next_offset:020d}.jsonl.gz"

    patch.setattr(KeyTemplate, "quarantine_name", name)


# ---- beginnings ------------------------------------------------------------------------------------------------------


@mutant("origin per member, earliest", world="first members, earliest", breaks=invariants.STORED)
@mutant("origin per member", world="first members, latest", breaks=invariants.STORED)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Agreement.reach

    async def reach(self: Agreement) -> Agreed:
        agreed = await original(self)
        origins = await self._origins({0: None})
        return replace(agreed, layout=msgspec.structs.replace(agreed.layout, origins=origins))

    patch.setattr(Agreement, "reach", reach)


@mutant("one's own layout believed after a lost race", world="first members, earliest", breaks=invariants.ONE_CHAIN)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Agreement._create

    async def create(self: Agreement, *args: Any) -> bytes:
        layout = Layout.decode(await original(self, *args))
        return msgspec.structs.replace(layout, chain_id=self._terms.new_chain_id).encode()

    patch.setattr(Agreement, "_create", create)


@mutant("layout written before a foreign signature is noticed", world="other ticklake", breaks=invariants.NO_FOREIGNER)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Agreement._refuse_foreign_signatures

    def refuse(self: Agreement, committed: Any, chain_id: str | None) -> None:
        if chain_id is not None:
            original(self, committed, chain_id)

    patch.setattr(Agreement, "_refuse_foreign_signatures", refuse)


@mutant("a predecessor not waited for", world="take-over", breaks=invariants.TAKE_OVER)
def _(patch: pytest.MonkeyPatch) -> None:
    async def gone(self: Agreement, partitions: list[int]) -> Any:
        return await self._kafka.committed(partitions)

    patch.setattr(Agreement, "_predecessor_gone", gone)


@mutant("the predecessor's offset read before it has left", world="take-over", breaks=invariants.TAKE_OVER)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Agreement._predecessor_gone

    async def gone(self: Agreement, partitions: list[int]) -> Any:
        committed = await self._kafka.committed(partitions)
        await original(self, partitions)
        return committed

    patch.setattr(Agreement, "_predecessor_gone", gone)


@mutant("settings not compared with the layout", world="second template", breaks=invariants.REFUSED)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agreement, "_compare", lambda *_: None)


@mutant("signatures not compared at a start", world="second prefix", breaks=invariants.REFUSED)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Agreement, "_refuse_foreign_signatures", lambda *_: None)
