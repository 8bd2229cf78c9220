"""Boundaries of the chain on their way to the group's offsets.

Owns: the newest boundary of each partition not yet committed, and the requests that carry them, one at a time. Does not
own: which offsets are boundaries (`chain`).

A commit may fail, be late or get lost without harm: it is a pointer into the bucket, and the next owner probes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from consumer.ports import CommitRefusedError, Committed, SourceError
from shared.schemas import sign_offset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.ports import Source
    from consumer.report import Report

AGAIN_SECONDS: Final = 5.0
PACE_SECONDS: Final = 0.1  # from one commit to the next: each costs a request, and a record in a topic of Kafka's own


class Committer:
    """Commits signed by `chain_id`. Whoever notes while a commit is under way is carried by the next."""

    def __init__(self, source: Source, *, chain_id: str, report: Report) -> None:
        self._source = source
        self._chain_id = chain_id
        self._report = report
        self._noted: dict[int, int] = {}
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def note(self, partition: int, offset: int) -> None:
        """The chain of the partition now ends at `offset`."""
        self._noted[partition] = offset
        self._wake.set()

    def forget(self, partitions: Iterable[int]) -> None:
        """The partitions are no longer ours to commit."""
        for partition in partitions:
            self._noted.pop(partition, None)

    async def run(self) -> None:
        """Commit what is noted until cancelled; what failed is carried again after a while, or by the next."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = loop.time()
            await self.flush()
            await asyncio.sleep(began + PACE_SECONDS - loop.time())
            if self._noted and not self._wake.is_set():
                try:
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    self._wake.set()

    async def flush(self) -> None:
        """One request with everything noted, under the source's deadline. Failures are reported, not raised."""
        async with self._one_at_a_time:
            offsets = dict(self._noted)
            if not offsets:
                return
            try:
                await self._source.commit(
                    {
                        partition: Committed(offset=offset, metadata=sign_offset(self._chain_id, offset))
                        for partition, offset in offsets.items()
                    }
                )
            except CommitRefusedError as error:
                self._report.committed("refused", str(error))
            except SourceError as error:
                self._report.committed("failed", str(error))
                return
            else:
                self._report.committed("ok")
            for partition, offset in offsets.items():
                if self._noted.get(partition) == offset:
                    del self._noted[partition]
