"""The one thread beside the event loop, for work on many bytes: taking bodies apart, compressing batches.

Owns: that it is one. Does not own: what is worth a thread (`collector`, `feed`).

Why one: each thread more has a memory arena and a compressor of its own and keeps them; six of them were 30 MB for the
same work in the same time. One is enough for the loop to go on turning meanwhile.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="side-thread")


async def beside(work: Callable[[], T]) -> T:
    """What the work gives, done in its turn in the thread. Work that has begun goes on when the caller is cancelled."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)
