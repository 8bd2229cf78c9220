"""The clock and the dice of the process, in one value, so that tests bring their own.

Owns: nothing but the access. Does not own: what is decided by them (`pacing`, `selection`).
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`monotonic` and `wall` in seconds (wall since 1970); `uniform` in 0…1; `pick(n)` in 0…n-1."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    uniform: Callable[[], float]
    pick: Callable[[int], int]


def real_surroundings() -> Surroundings:
    """The machine's own."""
    return Surroundings(
        monotonic=time.monotonic, wall=time.time, sleep=asyncio.sleep, uniform=random.random, pick=random.randrange
    )


def rfc3339(wall: float) -> str:
    """A moment in UTC with milliseconds, as CloudEvents wants it."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
