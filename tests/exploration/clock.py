"""The moments a chain remembers, made relative to now, and everything that only people read left out.

Owns: the canonical form of a chain, and letting time pass for it. Two chains that differ only in how they came to where
they are have one form, and so one state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consumer.batch import CALENDAR_MIN_AGE_SECONDS
from consumer.chain import ABOVE_LOG_SECONDS, Chain, Phase, Retry, Stall

if TYPE_CHECKING:
    from consumer.batch import Batch, Limits

FIRST_EPOCH: Final = 1  # of every chain, made relative; answers to what was dropped carry 0


def canonical(chain: Chain, limits: Limits) -> Chain:
    """The form of a chain at its own time zero.

    Left out: words, attempts (they only lengthen delays), and what is overwritten before it is read again.
    """
    if chain.phase is Phase.CLOSED:
        return Chain(partition=0, epoch=FIRST_EPOCH, phase=Phase.CLOSED, draining=chain.draining)
    stall = chain.stall
    asks_bucket = chain.phase is Phase.RECOVERING
    return replace(
        chain,
        epoch=FIRST_EPOCH,
        attempt=min(chain.attempt, 1),
        retry=None if chain.retry is None else Retry(reason="", since=0),
        stall=None if stall is None else Stall(reason="", key=None, since=0, met_by_reading=stall.met_by_reading),
        waiting=None if chain.waiting is None else "",
        batch=_clamped(chain.batch, limits),
        held=tuple(held._replace(arrived_at=max(held.arrived_at, -limits.seconds)) for held in chain.held),
        # How far within the minute does not matter: the next look may come before or after its end.
        above_since=None if chain.above_since is None else -ABOVE_LOG_SECONDS if _long_above(chain) else 0.0,
        log=chain.log if asks_bucket else None,
        unsigned=chain.unsigned if asks_bucket else None,
    )


def _long_above(chain: Chain) -> bool:
    return chain.above_since is not None and chain.above_since <= -ABOVE_LOG_SECONDS


def _clamped(batch: Batch, limits: Limits) -> Batch:
    """A batch older than its limit is no other than one just due; between, only the calendar cut looks at its age."""
    if not batch.records:
        return replace(batch, opened_at=0.0)
    age = -batch.opened_at
    if age >= limits.seconds:
        age = limits.seconds
    elif age >= CALENDAR_MIN_AGE_SECONDS:
        age = CALENDAR_MIN_AGE_SECONDS
    else:
        age = 0.0
    return replace(batch, opened_at=-age)


def later(chain: Chain, seconds: float) -> Chain:
    """The same chain, `seconds` later."""
    return replace(
        chain,
        batch=replace(chain.batch, opened_at=chain.batch.opened_at - seconds) if chain.batch.records else chain.batch,
        held=tuple(held._replace(arrived_at=held.arrived_at - seconds) for held in chain.held),
        due=None if chain.due is None else chain.due - seconds,
        above_since=None if chain.above_since is None else chain.above_since - seconds,
    )


def waits(chain: Chain, limits: Limits) -> tuple[float, ...]:
    """After how many seconds its timer rings: several where it matters how much later than due that is."""
    due = chain.due_at(limits)
    if due is None:
        return ()
    soon = max(0.0, due)
    if chain.phase is Phase.WAITING and chain.above_since is not None:
        return (soon, max(soon, ABOVE_LOG_SECONDS))
    return (soon,)
