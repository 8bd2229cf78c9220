"""Decides which records of a poll are published.

Owns: the modes of `SELECT`. Does not own: parsing, keys, publishing; randomness is handed in. Pure.

Invariants: `all` keeps every record in the body's order; `random` is one record, each with the same chance,
and none of none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")


class Select(StrEnum):
    """The values of `SELECT`."""

    RANDOM = "random"
    ALL = "all"
    CHANGED = "changed"


def select(mode: Select, records: Sequence[Item], pick: Callable[[int], int]) -> Sequence[Item]:
    """The records to publish. `pick(n)` gives a number in 0…n-1, each with the same chance."""
    if mode is not Select.RANDOM or not records:
        return records
    return (records[pick(len(records))],)
