"""The worlds by name: what each is about, and the faults that it allows.

One world with every fault would have more states than there is time for; a hole in the protocol shows with very few
faults, and each world switches on those that meet at one edge. `WORLDS` run in every `make test`, `DEEP` beside
them with EXPLORE=deep (minutes, gigabytes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consumer.keys import KeyTemplate
from shared.schemas import sign_offset
from tests.exploration.scenery import (
    AGREED,
    CHAIN_ID,
    FIVE,
    FOUR,
    NOON,
    THREE,
    TWO,
    coarse,
    layout,
    of_two,
    record,
    stored,
    stranger,
)
from tests.exploration.world import KEYS, KEYS_BY_HOUR, TOPIC, TOPIC_IDS, Process, World

if TYPE_CHECKING:
    from collections.abc import Iterable


def protocol() -> Iterable[World]:
    """Crashes, zombies, lost answers, failing requests: what every day may bring."""
    yield coarse(of_two("zombie", "the owner does not notice that it is one no more", FIVE, zombie=1))
    yield of_two("zombie, any poll", "the same with polls of any length, which cut anywhere", THREE, zombie=1)
    yield coarse(
        of_two("lost answers", "puts land after they were given up, a zombie's too", TWO, zombie=1, lost_answer=1)
    )
    yield of_two("two lost answers", "the same put twice in the air, beside a rebalance", FIVE, lost_answer=2, revoke=1)
    yield of_two("crash", "a process dies with its put in flight, beside a lost answer", FIVE, crash=1, lost_answer=1)
    yield of_two("zombie, crash", "both, on a short log", TWO, zombie=1, crash=1)
    yield coarse(of_two("two zombies", "the partition comes back to one that never noticed", TWO, zombie=2))
    yield of_two(
        "failing store",
        "5xx, 409, silence, memory pressure in between, a rebalance",
        THREE,
        error=1,
        conflict=1,
        silence=1,
        pressure=1,
        revoke=1,
    )
    yield of_two("revoke", "hand-overs with what is open put or abandoned", FIVE, revoke=2, error=1)
    yield coarse(of_two("commits", "fail, or land late", FOUR, revoke=1, commit=1, late_commit=1))
    yield coarse(of_two("late commit", "steps the group's offset back beside a zombie", TWO, zombie=1, late_commit=1))


def slowness() -> Iterable[World]:
    """What the reductions of the other worlds leave out: steps of a writer that take time of their own."""
    slow = of_two(
        "slow bodies", "a body and its quarantine take their time", FIVE[2:], revoke=1, crash=1, lost_answer=1
    )
    slow = replace(slow, log=(None, None, *slow.log), objects=(layout(2),), log_start=2)
    yield replace(slow, slow_bodies=True)
    late = of_two("late polls", "what was polled comes after a seek, or cannot be read", THREE, revoke=1, unreadable=1)
    yield replace(late, late_polls=True, budgets={**late.budgets, "lost answer": 1})
    yield replace(coarse(of_two("late polls of zombies", "the same beside a zombie", THREE, zombie=1)), late_polls=True)
    yield replace(
        coarse(of_two("stale answers", "answers to what was dropped still come", FOUR, error=1, pressure=1, revoke=1)),
        stale_answers=True,
    )
    yield replace(coarse(of_two("wire batches", "a poll brings several wire batches", FOUR, zombie=1)), wires=(2, 4))
    yield replace(
        of_two("refused commit", "a refused commit ends a writer's step in the midst", THREE, zombie=1),
        refused_commit_stops=True,
    )


def offsets() -> Iterable[World]:
    """The group's offset is lost, moved, foreign; the log's start and end move."""
    yield of_two("offsets harmed", "deleted, or reset to anything once", THREE, group=1, revoke=1, lost_answer=1)
    yield coarse(of_two("offsets harmed, zombie", "the same beside a zombie", TWO, group=1, zombie=1))
    yield of_two("log start", "moves into the midst of an object; recovery", THREE, trim=1, group=1, revoke=1)
    yield coarse(of_two("log start, zombie", "a stale offset below the log's start", THREE, trim=1, zombie=1))
    lagging = of_two("lagging leader", "the high watermark steps back, the log grows", FOUR, lag=1, grow=2, revoke=1)
    yield replace(lagging, log_end=2)
    signed = replace(
        of_two("foreign signature", "two prefixes share a group, until a person mends it", FOUR, revoke=1),
        committed=(2, sign_offset("another", 2)),
        person=True,
    )
    yield signed
    yield replace(
        of_two("cut log", "the chain's end is above the log, which was truncated", FOUR, revoke=1),
        committed=(4, sign_offset(CHAIN_ID, 4)),
        objects=(*AGREED, *stored((0, 3), (3, 4))),
        log_end=2,
        goal="stopped",
    )


def contents() -> Iterable[World]:
    """Keys with hours, versions that judge differently, objects that are not ours."""
    by_hour = World(
        name="hours",
        about="hours in keys: a later hour cuts the batch, a stray does not",
        log=(record(0), record(1, hour=1), record(2), record(3, hour=2)),
        processes=(
            Process(keys=KEYS_BY_HOUR, records=2),
            Process(keys=KEYS_BY_HOUR),
        ),
        budgets={"zombie": 1},
        objects=(layout(keys=KEYS_BY_HOUR),),
        ages=True,
        any_prefix=False,
    )
    yield by_hour
    yield replace(
        by_hour,
        name="hours, recovery",
        about="a listing by days and hours, the group's offset lost",
        budgets={"group": 1, "revoke": 1},
    )
    judging = World(
        name="versions",
        about="two versions judge a record differently",
        log=(record(0), record(1), record(2)),
        processes=(Process(records=2, judges=frozenset({1})), Process(records=2, judges=frozenset({0, 1}))),
        budgets={"zombie": 1, "lost answer": 1},
        objects=AGREED,
        any_prefix=False,
    )
    yield judging
    yield replace(judging, name="versions, slow", budgets={"revoke": 2, "silence": 1, "error": 1}, slow_bodies=True)
    yield replace(
        of_two("stranger", "an object of another chain lies in the way", THREE, revoke=1),
        objects=(*AGREED, stranger(chain_id="another", timestamp=NOON)),
        committed=(0, sign_offset(CHAIN_ID, 0)),
        goal="stopped",
    )
    yield replace(
        of_two("other record", "an object whose first record is not the log's", THREE, revoke=1),
        objects=(*AGREED, stranger(chain_id=CHAIN_ID, timestamp=NOON + 1)),
        committed=(0, sign_offset(CHAIN_ID, 0)),
        goal="stopped",
    )


def losses() -> Iterable[World]:
    """Records gone from Kafka before they were stored; a topic made anew."""
    skip = of_two("loss skipped", "the log's start passes the chain's end", THREE, loss=1, lost_answer=1, revoke=1)
    yield replace(skip, skip_loss=True)
    yield replace(
        skip,
        name="loss skipped, zombie",
        about="the same with hours in keys, and a zombie that does not outlast the wait",
        log=(record(0), record(1, hour=1), record(2, hour=1)),
        processes=(Process(keys=KEYS_BY_HOUR, records=2), Process(keys=KEYS_BY_HOUR, records=1)),
        objects=(layout(keys=KEYS_BY_HOUR),),
        budgets={"loss": 1, "zombie": 1},
        skip_loss=True,
    )
    stops = replace(coarse(skip), name="loss stops", about="the same with stop: nothing goes on past it")
    yield replace(stops, goal="stored or stopped")
    made_anew = coarse(of_two("topic made anew", "its id tells, however far the new log grows", TWO))
    made_anew = replace(made_anew, goal="stored or stopped")
    yield replace(
        made_anew,
        objects=(layout(topic_id=TOPIC_IDS[0]),),
        budgets={"recreate": 1, "grow": 1},
    )
    yield replace(
        made_anew,
        name="topic made anew, no ids",
        about="seen by its end alone",
        budgets={"recreate": 1},
        knows_topic_ids=False,
    )


def beginnings() -> Iterable[World]:
    """The layout and its origins, from the first start on."""
    first = World(
        name="first members, earliest",
        about="two first members compute the origin while the log moves",
        log=TWO,
        processes=(Process(records=2), Process(bytes=3)),
        budgets={"grow": 1, "lost answer": 1},
        log_end=1,
        from_start=True,
        any_prefix=False,
    )
    yield replace(first, budgets={**first.budgets, "loss": 1}, goal="stored or stopped")
    latest = tuple(replace(process, start_from="latest") for process in first.processes)
    yield replace(first, name="first members, latest", processes=latest)
    yield replace(
        first,
        name="first members, crash",
        about="one dies on the way, its layout perhaps in the air",
        processes=latest,
        budgets={"crash": 1, "lost answer": 1, "grow": 1},
    )
    take_over = replace(
        first,
        name="take-over",
        about="a predecessor that is not ticklake commits once more while it is taken over",
        log=FIVE[:4],
        log_end=None,
        committed=(1, ""),
        predecessor=True,
        budgets={"predecessor": 1},
    )
    yield take_over
    yield replace(
        take_over,
        name="other ticklake",
        about="the group is another chain's, which goes on committing: nobody begins one beside it",
        committed=(1, sign_offset("old", 1)),
        predecessor_chain="old",
        goal="stopped",
    )
    yield from rolling_deploys(first)


def rolling_deploys(first: World) -> Iterable[World]:
    """A process with other settings joins one that is at work: it must be refused and write nothing."""
    ours = Process(records=2)
    for what, other in (
        ("prefix", replace(ours, keys=KeyTemplate(KEYS.template, prefix="q", topic=TOPIC, ext="jsonl"))),
        (
            "template",
            replace(ours, keys=KeyTemplate("x-{partition}-{start}.{ext}", prefix="p", topic=TOPIC, ext="jsonl")),
        ),
        ("hours", replace(ours, keys=KEYS_BY_HOUR)),
        (
            "extension",
            replace(
                ours,
                compression="gzip",
                keys=KeyTemplate(KEYS.template, prefix="p", topic=TOPIC, ext="jsonl.gz"),
            ),
        ),
    ):
        yield replace(
            first,
            name=f"second {what}",
            about=f"a rolling deploy changes the {what}",
            log=THREE,
            log_end=None,
            processes=(ours, other),
            committed=(0, sign_offset(CHAIN_ID, 0)),
            objects=AGREED,
            budgets={"crash": 1, "lost answer": 1},
            refused=1,
        )


def by_name(*worlds: World) -> dict[str, World]:
    return {world.name: world for world in worlds}


WORLDS: Final = by_name(*protocol(), *slowness(), *offsets(), *contents(), *losses(), *beginnings())


def deeper() -> Iterable[World]:
    """The same worlds with longer logs, polls of any length and more faults at once."""
    longer = {
        "zombie": FIVE,
        "zombie, any poll": FOUR,
        "lost answers": THREE,
        "zombie, crash": THREE,
        "two zombies": THREE,
        "failing store": FIVE,
        "commits": FIVE,
        "late commit": THREE,
        "late polls of zombies": FOUR,
        "stale answers": FIVE,
        "wire batches": FIVE,
        "refused commit": FOUR,
        "offsets harmed": FOUR,
        "offsets harmed, zombie": THREE,
        "log start": FOUR,
        "log start, zombie": THREE,
        "hours": None,
        "hours, recovery": None,
        "versions": None,
        "loss skipped": FIVE,
        "topic made anew": None,
        "first members, crash": THREE,
    }
    for name, log in longer.items():
        world = WORLDS[name]
        yield replace(world, name=f"{name} (deep)", log=log or world.log, any_prefix=True)
    yield of_two("everything", "zombie, crash and lost answer in one", THREE, zombie=1, crash=1, lost_answer=1)
    yield of_two("three lost answers", "one put three times in the air", FIVE, lost_answer=3, revoke=1, crash=1)


DEEP: Final = by_name(*deeper())
