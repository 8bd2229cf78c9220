"""The order of the tests on several workers: none is lost, and the long ones begin early, shared out evenly."""

from __future__ import annotations

import pytest

from tests.order import LONG, SHORT_SECONDS, TOGETHER, dealt, seconds
from tests.processes import ROOT

LONG_TEST = f"tests/e2e/test_x.py::{min(LONG)}"
SECURED = [f"{path}::test_{number}" for path in TOGETHER for number in range(21)]
SERVED = [f"tests/integration/test_y.py::test_{number}[a]" for number in range(100)]
MANY = [*(f"tests/unit/test_z.py::TestX::test_{number}" for number in range(2_403)), *SECURED, *SERVED, LONG_TEST]


def shares(node_ids: list[str], workers: int) -> list[list[str]]:
    """What each worker begins with: worksteal gives each in turn what is left by those who have none yet."""
    left = [node_ids[number] for number in dealt(node_ids, workers)]
    found = []
    for waiting in range(workers, 0, -1):
        found.append(left[: len(left) // waiting])
        del left[: len(left) // waiting]
    return found


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 30, len(MANY)])
def test_every_test_is_there_once(workers: int, count: int) -> None:
    assert sorted(dealt(MANY[-count:] if count else [], workers)) == list(range(count))


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_each_worker_begins_with_its_longest_and_has_as_much_to_do_as_the_others(workers: int) -> None:
    found = shares(MANY, workers)
    for share in found:
        if SECURED[0] not in share:
            assert [seconds(one) for one in share] == sorted((seconds(one) for one in share), reverse=True)
        assert seconds(share[-1]) == SHORT_SECONDS
    spent = [sum(map(seconds, share)) for share in found]
    assert max(spent) - min(spent) < max(LONG.values())


def test_those_that_share_a_server_are_on_one_worker() -> None:
    assert sum(not set(SECURED).isdisjoint(share) for share in shares(MANY, 4)) == 1


def test_what_is_said_to_be_long_is_a_test() -> None:
    everything = "".join(path.read_text() for path in ROOT.glob("tests/*/test_*.py"))
    assert not [name for name in LONG if f"def {name}(" not in everything]
    assert all((ROOT / path).is_file() for path in TOGETHER)
