"""Requests that are answered together: one OffsetFetch, one listing, one commit serves every partition that waits.

Owns: collecting requests and answering all of them in rounds. Does not own: what a round asks and how it answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from consumer.retrying import until_answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from consumer.ports import SourceError, StoreError

K = TypeVar("K")
R = TypeVar("R")


class Rounds(Generic[K, R]):
    """Requests by key, the newest of a key counting. `answer` gets all that wait and hands out the answers itself.

    A round that fails is repeated, with those that have come meanwhile, until it is answered.
    """

    def __init__(
        self,
        answer: Callable[[Mapping[K, R]], Awaitable[None]],
        *,
        on_failure: Callable[[StoreError | SourceError], None],
    ) -> None:
        self._answer = answer
        self._on_failure = on_failure
        self._waiting: dict[K, R] = {}
        self._wake = asyncio.Event()

    def ask(self, key: K, request: R) -> None:
        """Take part in the next round."""
        self._waiting[key] = request
        self._wake.set()

    def forget(self, key: K) -> None:
        """No answer is wanted any more."""
        self._waiting.pop(key, None)

    async def run(self) -> None:
        """Answer rounds until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await until_answered(self._round, on_failure=self._on_failure)

    async def _round(self) -> None:
        asked = dict(self._waiting)
        if asked:
            await self._answer(asked)
            for key, request in asked.items():
                if self._waiting.get(key) is request:
                    del self._waiting[key]
