"""Commits: the newest boundary of each partition in one request, signed; what fails is carried by the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from consumer.committer import AGAIN_SECONDS, PACE_SECONDS, Committer
from consumer.ports import CommitRefusedError, SourceError
from tests.fakes.source import FakeGroup, FakeLog, FakeSource
from tests.unit.consumer.worker_worlds import TellingReport
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.ports import Committed


class SlowSource(FakeSource):
    """A commit takes its time; what was committed, and how many at a time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(FakeGroup(FakeLog(3)))
        self._seconds = seconds
        self.commits: list[dict[int, tuple[int, str]]] = []
        self.errors: list[Exception] = []
        self.at_once = 0

    async def commit(self, offsets: Mapping[int, Committed]) -> None:
        self.at_once += 1
        assert self.at_once == 1
        self.commits.append({number: (one.offset, one.metadata) for number, one in offsets.items()})
        await asyncio.sleep(self._seconds)
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop(0)


def setting(seconds: float = 1.0) -> tuple[SlowSource, TellingReport, Committer, asyncio.Task[None]]:
    source, report = SlowSource(seconds), TellingReport()
    committer = Committer(source, chain_id="c", report=report)
    return source, report, committer, asyncio.create_task(committer.run())


@virtual_time
async def test_what_is_noted_meanwhile_goes_together_with_the_next() -> None:
    source, report, committer, running = setting()
    committer.note(0, 5)
    await asyncio.sleep(0.5)
    for offset in (6, 7, 8):
        committer.note(0, offset)
    committer.note(1, 3)
    await asyncio.sleep(10)
    assert source.commits == [{0: (5, "ticklake:c:5")}, {0: (8, "ticklake:c:8"), 1: (3, "ticklake:c:3")}]
    assert report.count("commits_total", outcome="ok") == 2
    running.cancel()


@virtual_time
async def test_many_small_objects_do_not_make_as_many_commits_and_none_stays_uncommitted() -> None:
    source, _, committer, running = setting(seconds=0.001)
    for offset in range(1, 401):  # an object every 2.5 ms
        committer.note(0, offset)
        await asyncio.sleep(0.0025)
    assert 1 / PACE_SECONDS <= len(source.commits) <= 1 / PACE_SECONDS + 1
    assert source.commits[0][0][0] == 1  # the first goes at once
    await asyncio.sleep(PACE_SECONDS)
    assert source.commits[-1][0][0] == 400
    running.cancel()


@virtual_time
async def test_a_failed_commit_is_carried_again_after_a_while() -> None:
    source, report, committer, running = setting()
    source.errors = [SourceError("no answer")]
    committer.note(0, 5)
    await asyncio.sleep(AGAIN_SECONDS)
    assert len(source.commits) == 1
    await asyncio.sleep(2)
    assert source.commits == [{0: (5, "ticklake:c:5")}] * 2
    await asyncio.sleep(100)
    assert (report.count("commits_total", outcome="failed"), report.count("commits_total", outcome="ok")) == (1, 1)
    assert len(source.commits) == 2
    running.cancel()


@virtual_time
async def test_a_failed_commit_is_carried_by_the_next_at_once() -> None:
    source, _, committer, running = setting()
    source.errors = [SourceError("no answer")]
    committer.note(0, 5)
    await asyncio.sleep(2)
    committer.note(1, 4)
    await asyncio.sleep(0.1)
    assert source.commits[1].keys() == {0, 1}
    running.cancel()


@virtual_time
async def test_a_refused_commit_is_not_repeated() -> None:
    source, report, committer, running = setting()
    source.errors = [CommitRefusedError("moved on")]
    committer.note(0, 5)
    await asyncio.sleep(100)
    assert len(source.commits) == 1
    assert report.count("commits_total", outcome="refused") == 1
    running.cancel()


@virtual_time
async def test_a_refusal_does_not_lose_what_was_noted_meanwhile() -> None:
    source, _, committer, running = setting()
    source.errors = [CommitRefusedError("moved on")]
    committer.note(0, 5)
    await asyncio.sleep(0.5)
    committer.note(0, 6)
    await asyncio.sleep(5)
    assert source.commits[1:] == [{0: (6, "ticklake:c:6")}]
    running.cancel()


@virtual_time
async def test_what_is_forgotten_is_not_committed() -> None:
    source, _, committer, running = setting()
    committer.note(0, 5)
    committer.note(1, 5)
    committer.forget([0])
    await asyncio.sleep(5)
    assert [list(commit) for commit in source.commits] == [[1]]
    running.cancel()


@virtual_time
async def test_a_flush_waits_for_the_commit_under_way_and_carries_the_rest() -> None:
    source, _, committer, running = setting()
    committer.note(0, 5)
    await asyncio.sleep(0.5)
    committer.note(0, 6)
    await committer.flush()
    assert [commit[0][0] for commit in source.commits] == [5, 6]
    running.cancel()
