"""Around the worker: a start that a stop ends, and the container's memory limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from consumer.service import container_limit_bytes, unless
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from pathlib import Path


async def work(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def fail() -> str:
    raise ZeroDivisionError


@virtual_time
async def test_a_start_ends_with_its_result_its_failure_or_the_stop() -> None:
    stop = asyncio.Event()
    assert await unless(stop, work(5)) == "done"
    with pytest.raises(ZeroDivisionError):
        await unless(stop, fail())
    asyncio.get_running_loop().call_later(3, stop.set)
    began = asyncio.get_running_loop().time()
    assert await unless(stop, work(1000)) is None
    assert asyncio.get_running_loop().time() - began < 4


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "536870912\n", 536870912),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "268435456\n", 268435456),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("nothing", "", None),
    ],
)
def test_the_containers_limit_is_read_from_either_version_of_control_groups(
    tmp_path: Path, name: str, text: str, limit: int | None
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert container_limit_bytes(tmp_path) == limit
