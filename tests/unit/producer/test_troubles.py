from __future__ import annotations

import asyncio

import structlog

from producer.surroundings import Surroundings
from producer.troubles import Kind, Troubles


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.surroundings = Surroundings(
            monotonic=lambda: self.now,
            wall=lambda: self.now + 1_800_000_000 - 100,
            sleep=asyncio.sleep,
            uniform=lambda: 0.0,
            pick=lambda _: 0,
        )


def test_a_reason_keeps_the_time_when_the_trouble_began_while_its_words_change() -> None:
    world = World()
    troubles = Troubles("quotes", "b:9092", world.surroundings)
    assert troubles.reasons() == ["topic quotes since 2027-01-15T08:00:00.000Z: not connected to b:9092 yet"]
    world.now += 5
    troubles.say(Kind.WAITING, "no answer")
    assert troubles.reasons() == ["topic quotes since 2027-01-15T08:00:00.000Z: no answer"]
    troubles.clear(Kind.WAITING)
    assert troubles.reasons() == []
    troubles.note(Kind.REFUSED, "no right")
    assert troubles.reasons() == ["topic quotes since 2027-01-15T08:00:05.000Z: no right"]


def test_a_trouble_is_logged_when_it_is_new_and_once_a_minute() -> None:
    world = World()
    troubles = Troubles("quotes", "b:9092", world.surroundings)
    told: list[tuple[float, object]] = []
    for second in range(200):
        with structlog.testing.capture_logs() as lines:
            troubles.say(Kind.WAITING, "no answer" if second < 90 else "no topic")
        told += [(second, line["reason"]) for line in lines]
        world.now += 1
    assert told == [(0, "no answer"), (60, "no answer"), (90, "no topic"), (150, "no topic")]


def test_ready_is_told_once_when_the_last_trouble_is_over() -> None:
    troubles = Troubles("quotes", "b:9092", World().surroundings)
    troubles.note(Kind.REFUSED, "no right")
    with structlog.testing.capture_logs() as lines:
        troubles.clear(Kind.WAITING)
        assert not lines
        troubles.clear(Kind.REFUSED)
        troubles.clear(Kind.REFUSED)
    assert [(line["event"], line["topic"]) for line in lines] == [("Kafka is ready", "quotes")]
