"""How long a sink's event loop was blocked, from the histogram that it exports.

Owns: reading it from /metrics, differences, sums, quantiles. Does not own: how blocks are measured (`shared.health`).
"""

from __future__ import annotations

import math
import re
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

METRIC = "ticklake_consumer_loop_block_seconds"
_BUCKET = re.compile(rf'^{METRIC}_bucket{{le="([^"]+)"}} (\S+)$', re.MULTILINE)
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Observations up to each bound (seconds, the last one infinite), as Prometheus counts them."""

    up_to: Mapping[float, int]

    def __sub__(self, earlier: Blocks) -> Blocks:
        return Blocks(up_to={bound: count - earlier.up_to[bound] for bound, count in self.up_to.items()})

    def quantile(self, share: float) -> float | None:
        """The smallest bound below which that share of the observations lies; None when there are none."""
        total = max(self.up_to.values(), default=0)
        if not total:
            return None
        return min(bound for bound, count in self.up_to.items() if count >= share * total)


def total(each: Iterable[Blocks]) -> Blocks:
    """The observations of several processes together."""
    up_to: dict[float, int] = {}
    for blocks in each:
        for bound, count in blocks.up_to.items():
            up_to[bound] = up_to.get(bound, 0) + count
    return Blocks(up_to=up_to)


def parse(text: str) -> Blocks:
    """From the text of /metrics. Raises BenchError when the metric is not there."""
    found = {math.inf if bound == "+Inf" else float(bound): int(float(count)) for bound, count in _BUCKET.findall(text)}
    if math.inf not in found:
        message = f"/metrics has no {METRIC}"
        raise BenchError(message)
    return Blocks(up_to=found)


def read(port: int) -> Blocks:
    """Ask a sink on this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=ANSWER_SECONDS) as answer:
        return parse(answer.read().decode())
