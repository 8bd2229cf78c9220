"""Requests answered together: who waits takes part, who comes late is in the next round, a failed round is repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from consumer.ports import SourceError
from consumer.rounds import Rounds
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Mapping


class Desk:
    def __init__(self) -> None:
        self.rounds: list[dict[str, int]] = []
        self.failures = 0
        self.told = 0

    async def answer(self, asked: Mapping[str, int]) -> None:
        self.rounds.append(dict(asked))
        await asyncio.sleep(1)
        if self.failures:
            self.failures -= 1
            raise SourceError("away")

    def hear(self, _: Exception) -> None:
        self.told += 1


@virtual_time
async def test_rounds() -> None:
    desk = Desk()
    rounds = Rounds(desk.answer, on_failure=desk.hear)
    running = asyncio.create_task(rounds.run())
    rounds.ask("a", 1)
    rounds.ask("b", 1)
    rounds.ask("b", 2)  # the newest counts
    await asyncio.sleep(0.5)
    rounds.ask("c", 1)  # late: the next round
    rounds.ask("a", 2)  # asked anew while the old one is being answered: not lost
    rounds.ask("d", 1)
    rounds.forget("d")
    await asyncio.sleep(5)
    assert desk.rounds == [{"a": 1, "b": 2}, {"a": 2, "c": 1}]
    running.cancel()


@virtual_time
async def test_a_failed_round_is_repeated_with_those_that_have_come_and_without_those_that_went() -> None:
    desk = Desk()
    desk.failures = 1
    rounds = Rounds(desk.answer, on_failure=desk.hear)
    running = asyncio.create_task(rounds.run())
    rounds.ask("a", 1)
    rounds.ask("b", 1)
    await asyncio.sleep(0.5)
    rounds.ask("c", 1)
    rounds.forget("a")
    await asyncio.sleep(30)
    assert desk.rounds == [{"a": 1, "b": 1}, {"b": 1, "c": 1}]
    assert desk.told == 1
    running.cancel()


@virtual_time
async def test_nobody_left_is_no_round() -> None:
    desk = Desk()
    rounds = Rounds(desk.answer, on_failure=desk.hear)
    rounds.ask("a", 1)
    rounds.forget("a")
    running = asyncio.create_task(rounds.run())
    await asyncio.sleep(5)
    assert desk.rounds == []
    running.cancel()
