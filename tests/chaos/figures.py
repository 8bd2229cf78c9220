"""Figures from the consumers' own log lines, after the fact.

Owns: what is counted and measured, and how. Does not own: where it is shown (`report`).

Hand-over, measured for every partition that changes hands or is given back to its owner in a rebalance:
- *revoked*: the old owner's `Partitions revoked`, written when what was open is put and committed;
- *last revocation*: when the last member that gives back before the new owner's `Partitions assigned` began to (its
  line's time less its `seconds`): until then Kafka itself waits for the members to hear of the rebalance;
- *first record*: when the first record of the new owner arrived, read off its first object: `Uploaded`'s time less its
  `seconds` (from seal to stored) less BATCH_MAX_SECONDS (from the first record to the seal). Objects sealed by
  something else than that timer are left out: those of a drain, and those sooner after the assignment. (Scenarios
  keep below BATCH_MAX_RECORDS and BATCH_MAX_BYTES a second.) So not every hand-over is measured: the report says how
  many of how many.
A partition whose new owner started only after the revocation (a stop, then a fresh process) was not handed over, and
one that stalled in between waited for its operator: neither counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.chaos.arena import Arena
    from tests.oracle import Verdict
    from tests.processes import ServiceProcess

SIGKILLED = -9
_STALLED = "Stalled"
_REBALANCE = frozenset({"Partitions assigned", "Partitions revoked"})
_OBJECT = frozenset({"Uploaded", "Adopted"})


def of_verdict(arena: Arena, verdict: Verdict) -> None:
    """What the bucket holds."""
    arena.note("records", verdict.consumed)
    arena.note("quarantined", verdict.quarantined)
    arena.note("objects", verdict.objects)
    arena.note("mean_object_bytes", verdict.body_bytes // max(1, verdict.objects))
    arena.note("mean_object_records", round(verdict.consumed / max(1, verdict.objects), 1))


def of_logs(arena: Arena) -> None:
    """Duplicates prevented, retries, hand-overs, over all consumers that ever ran."""
    arena.note("adopted", _count(arena.consumers, "Adopted"))
    own = sum(line.get("outcome") == "own" for consumer in arena.consumers for line in consumer.lines("Uploaded"))
    arena.note("own_answers_lost", own)
    arena.note("put_retries", _count(arena.consumers, "Retrying"))
    arena.note("rebalances", len(arena.rebalances()))
    arena.note("faults_injected", sum(arena.proxy.counts.values()))
    arena.note("peak_memory_bytes", arena.peak_memory_bytes())
    arena.note("hand_overs", hand_over_count(arena.consumers))
    found = hand_overs(arena.consumers, batch_max_seconds=float(arena.settings["BATCH_MAX_SECONDS"]))
    arena.note("hand_overs_measured", len(found))
    if found:
        whole = sorted(each.whole_seconds for each in found)
        arena.note("hand_over_median_seconds", whole[len(whole) // 2])
        arena.note("hand_over_longest_seconds", whole[-1])
        if all(consumer.process.returncode != SIGKILLED for consumer in arena.consumers):
            beyond = sorted(each.beyond_kafka_seconds for each in found)
            arena.note("hand_over_beyond_kafka_median_seconds", beyond[len(beyond) // 2])
            arena.note("hand_over_beyond_kafka_longest_seconds", beyond[-1])


def moment(line: Mapping[str, object]) -> float:
    """When a log line was written, in unix seconds."""
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


def _count(consumers: Sequence[ServiceProcess], event: str) -> int:
    return sum(len(consumer.lines(event)) for consumer in consumers)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One partition in one rebalance. `whole`: revoked → first record; `beyond_kafka`: last revocation → first record.

    Where a member was killed, Kafka waits for its session to end within `beyond_kafka`: it says nothing then.
    """

    partition: int
    whole_seconds: float
    beyond_kafka_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    at: float
    event: str
    partitions: tuple[int, ...]
    owner: int
    started_at: float  # its owner's first log line
    sealed_at: float = 0.0  # of an Uploaded
    began: float = 0.0  # of a Partitions revoked


def hand_overs(consumers: Sequence[ServiceProcess], *, batch_max_seconds: float) -> list[HandOver]:
    """Every hand-over whose beginning and first record the logs tell."""
    moments = _all_moments(consumers)
    found = []
    for number, partition, revoked in _handed_over(moments):
        assigned = moments[number]
        first = _first_object(moments[number + 1 :], assigned.owner, partition)
        if first is None:
            continue
        first_record_at = first.sealed_at - batch_max_seconds
        if first_record_at < assigned.at:
            continue  # sealed by something else than its timer
        last = next(moment for moment in reversed(moments[:number]) if moment.event == "Partitions revoked")
        found.append(
            HandOver(
                partition=partition,
                whole_seconds=first_record_at - revoked.at,
                beyond_kafka_seconds=first_record_at - last.began,
            )
        )
    return found


def hand_over_count(consumers: Sequence[ServiceProcess]) -> int:
    """How many there were, measured or not."""
    return sum(1 for _ in _handed_over(_all_moments(consumers)))


def _all_moments(consumers: Sequence[ServiceProcess]) -> list[_Moment]:
    """Of all whose clock is right, in order."""
    right = [(owner, consumer) for owner, consumer in enumerate(consumers) if not consumer.wrong_clock]
    return sorted(
        (moment for owner, consumer in right for moment in _moments(owner, consumer)), key=lambda moment: moment.at
    )


def _handed_over(moments: Sequence[_Moment]) -> Iterator[tuple[int, int, _Moment]]:
    """The number of the assignment, the partition, its revocation by the owner before."""
    for number, assigned in enumerate(moments):
        if assigned.event != "Partitions assigned":
            continue
        for partition in assigned.partitions:
            revoked = _given_back(moments[:number], partition)
            fresh = revoked is not None and assigned.started_at > revoked.at
            if revoked is not None and not fresh and not _stalled(moments[number + 1 :], assigned.owner, partition):
                yield number, partition, revoked


def _stalled(later: Sequence[_Moment], owner: int, partition: int) -> bool:
    """Whether that came before the owner's first object of the partition, or its giving it back."""
    ours = (moment for moment in later if moment.owner == owner and partition in moment.partitions)
    return next((moment.event == _STALLED for moment in ours), False)


def _given_back(earlier: Sequence[_Moment], partition: int) -> _Moment | None:
    """The revocation by the owner before; None when that one died, or there was none."""
    for moment in reversed(earlier):
        if moment.event in _REBALANCE and partition in moment.partitions:
            return moment if moment.event == "Partitions revoked" else None
    return None


def _first_object(later: Sequence[_Moment], owner: int, partition: int) -> _Moment | None:
    """The owner's first object of the partition; None when it met one there, or sealed it to give back."""
    first = None
    for moment in later:
        if moment.owner != owner:
            continue
        if moment.event in _REBALANCE:
            return first if first is not None and first.sealed_at < moment.began else None
        if first is None and partition in moment.partitions and moment.event in _OBJECT:
            if moment.event == "Adopted":
                return None
            first = moment
    return first


def _moments(owner: int, consumer: ServiceProcess) -> Iterator[_Moment]:
    lines = [line for line in consumer.lines() if "timestamp" in line]
    started_at = moment(lines[0]) if lines else 0.0
    for line in lines:
        event, at = str(line.get("event")), moment(line)
        told = partial(_Moment, at=at, event=event, owner=owner, started_at=started_at)
        seconds = float(str(line.get("seconds", 0.0)))
        if event in _OBJECT:
            partition = int(str(line["key"]).rsplit("/", 1)[-1].split("-")[0])
            yield told(partitions=(partition,), sealed_at=at - seconds)
        elif event == _STALLED:
            yield told(partitions=(int(str(line["partition"])),))
        elif event in _REBALANCE:
            numbers = line["partitions"]
            assert isinstance(numbers, list)
            yield told(partitions=tuple(numbers), began=at - seconds)
