"""How far the chain has come, read from the services' /metrics.

Owns: which metrics count and the line that tells them. A service that does not answer (it is starting or stopping)
is left out of the sums; its last answer stays.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANSWER_SECONDS = 3.0
PUBLISHED = "ticklake_producer_records_published_total"
STORED = "ticklake_consumer_records_stored_total"
QUARANTINED = "ticklake_consumer_records_quarantined_total"
OBJECTS = "ticklake_consumer_objects_total"
LAG = "ticklake_consumer_lag_records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counted since the demo started, but `lag`, which is now; `lag` None = no consumer has said."""

    published: int = 0
    stored: int = 0
    objects: int = 0
    lag: int | None = None

    def __str__(self) -> str:
        lag = "?" if self.lag is None else f"{self.lag:,}"
        return f"{self.published:,} records published, {self.stored:,} stored in {self.objects:,} objects, lag {lag}"


def samples(text: str) -> dict[str, float]:
    """The sum over all labels of each sample in a /metrics text; objects that were merely adopted are left out."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == OBJECTS and sample.labels.get("outcome") == "adopted":
                continue
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def summed(services: Sequence[Mapping[str, float]]) -> Progress:
    """The progress that these services' samples tell together."""

    def total(name: str) -> int:
        return int(sum(service.get(name, 0.0) for service in services))

    told = any(LAG in service for service in services)
    return Progress(
        published=total(PUBLISHED),
        stored=total(STORED) + total(QUARANTINED),
        objects=total(OBJECTS),
        lag=total(LAG) if told else None,
    )


class ProgressReader:
    """Asks the services at `urls` (their root, with the final slash)."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._last: dict[str, Mapping[str, float]] = {}

    async def read(self) -> Progress:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._ask(session, url) for url in self._urls))
        return summed(list(self._last.values()))

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.get(f"{url}metrics") as answer:
                if answer.status == 200:  # noqa: PLR2004 - HTTP's own number
                    self._last[url] = samples(await answer.text())
        except (aiohttp.ClientError, TimeoutError):
            return  # starting or stopping: its last answer stays
