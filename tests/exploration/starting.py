"""A start's way to the layout: the real `Agreement.reach`, replayed answer by answer.

Owns: which question comes next after given answers, or how the start ended. Does not own: the answers (`model`).

A coroutine cannot be copied, so a starting writer's state is the tuple of answers it has had; a fresh coroutine is run
through them. Each question is answered in the moment it is asked: it can only be asked once the last answer has come,
so an answer that is old when it arrives is one after which nothing happened for a while.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from consumer import layout as agreement
from consumer.ports import LogRange, TopicIdentity
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Generator, Iterator

    from consumer.ports import Committed, Upload
    from shared.schemas import Layout
    from tests.exploration.world import Interner, Process

CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the start waits for: kind and arguments."""

    kind: str
    subject: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The start is over: with the layout that counts, or refused with the words of exit code 2."""

    layout: Layout | None
    refusal: str = ""


class _Answer:
    """Something to be awaited: the question goes out, the answer comes in."""

    def __init__(self, question: Question) -> None:
        self._question = question

    def __await__(self) -> Generator[Question, Any, Any]:
        answer = yield self._question
        return answer


async def _ask(kind: str, subject: Any = None) -> Any:
    return await _Answer(Question(kind=kind, subject=subject))


class _Outside:
    """Kafka and store in one: each call is a question."""

    async def committed(self, partitions: Collection[int]) -> dict[int, Committed | None]:
        return {partition: await _ask("committed") for partition in partitions}

    async def log_ranges(self, partitions: Collection[int]) -> dict[int, LogRange]:
        return {partition: LogRange(**dict(await _ask("log"))) for partition in partitions}

    async def identity(self) -> TopicIdentity:
        topic_id = await _ask("identity")
        return TopicIdentity(topic_id=topic_id, cluster_id=CLUSTER, partitions=1, compacted=False)

    async def group_has_members(self) -> bool:
        return bool(await _ask("members"))

    async def get(self, key: str) -> bytes | None:
        body: bytes | None = await _ask("get", key)
        return body

    async def head(self, key: str) -> Any:
        return await _ask("head", key)

    async def put_if_absent(self, upload: Upload) -> Any:
        return await _ask("put", (upload.key, upload.body))

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        for key in await _ask("keys", prefix):
            yield key

    async def list_folders(self, prefix: str) -> AsyncIterator[str]:
        for folder in await _ask("folders", prefix):
            yield folder

    def read(self, key: str) -> AsyncIterator[bytes]:
        raise AssertionError(f"a start reads {key}")


class Starts:
    """The starts of one process of a world."""

    def __init__(self, process: Process, name: str, committed: Interner[Committed | None]) -> None:
        self._process = process
        self._name = name
        self._committed = committed
        self._known: dict[tuple[int, tuple[tuple[object, ...], ...]], Question | Ended] = {}

    def after(self, incarnation: int, answers: tuple[tuple[object, ...], ...]) -> Question | Ended:
        """Where a start with these answers stands."""
        key = (incarnation, answers)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._replay(incarnation, [self._value(answer) for answer in answers])
        return known

    def waits_on(self, incarnation: int, answers: tuple[tuple[object, ...], ...]) -> bool:
        """Whether "the group has members" leads back to the same question, by way of a sleep."""
        values = [self._value(answer) for answer in answers]
        slept = self._replay(incarnation, [*values, True])
        return slept == Question(kind="sleep") and (
            self._replay(incarnation, [*values, True, None]) == Question(kind="members")
        )

    def _value(self, answer: tuple[object, ...]) -> Any:
        kind, value = answer
        return self._committed[value] if kind == "committed" else value  # type: ignore[index]

    def _replay(self, incarnation: int, values: list[Any]) -> Question | Ended:
        outside: Any = _Outside()
        terms = agreement.Terms(
            keys=self._process.keys,
            group="group",
            record_format="value",
            compression=self._process.compression,
            start_from=self._process.start_from,
            new_chain_id=f"chain-{self._name}{incarnation}",
        )
        start: Any = agreement.Agreement(kafka=outside, store=outside, terms=terms, on_wait=_hear).reach()
        with _without_a_loop():
            try:
                question: Question = start.send(None)
                for value in values:
                    question = start.send(value)
            except StopIteration as stopped:
                return Ended(layout=stopped.value.layout)
            except SettingsError as error:
                return Ended(layout=None, refusal=str(error))
            start.close()
            return question


def _hear(what: str, error: Exception) -> None:
    """Why a start waits is for people."""


@contextmanager
def _without_a_loop() -> Iterator[None]:
    """Sleeping is a question too."""

    async def sleep(seconds: float) -> None:
        assert seconds > 0
        await _ask("sleep")

    module = vars(agreement)
    before = module["asyncio"]
    module["asyncio"] = SimpleNamespace(sleep=sleep)
    try:
        yield
    finally:
        module["asyncio"] = before
