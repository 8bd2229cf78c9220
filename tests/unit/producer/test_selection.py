from __future__ import annotations

import random
from collections import Counter

from producer.selection import Select, select


def test_all_keeps_every_record_in_order() -> None:
    assert list(select(Select.ALL, ["a", "b", "c"], random.Random(1).randrange)) == ["a", "b", "c"]


def test_random_takes_one_with_the_same_chance_each() -> None:
    dice = random.Random(7)
    counts = Counter(select(Select.RANDOM, "abcd", dice.randrange)[0] for _ in range(4000))
    assert set(counts) == set("abcd")
    assert all(900 < count < 1100 for count in counts.values())


def test_random_of_nothing_is_nothing() -> None:
    assert list(select(Select.RANDOM, [], random.Random(1).randrange)) == []
