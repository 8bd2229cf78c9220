"""Topics and figures made up for tests of the benchmarks."""

from __future__ import annotations

from bench import quotes
from bench.consumer_runs import Figures
from bench.topics import Topic

TOPIC = Topic(name="small", shape=quotes.QUOTE, offsets=40)


def figures(cpu_seconds: float, *, records: int = 1_000_000, **told: float) -> Figures:
    """A run of 2 s that took as much CPU."""
    measured = {"peak_memory_bytes": 200_000_000, "start_cpu_seconds": 0.8, **told}
    return Figures(cpu_seconds=cpu_seconds, wall_seconds=2.0, records=records, value_bytes=200 * records, **measured)  # type: ignore[arg-type]
