"""The account of log and topic sees what it is for: losses, doubles, strangers, and what was said twice."""

from __future__ import annotations

import json

import pytest

from tests.numbered_api import NumberedApi, RecordId, account, record_id


def served(polls: int, first_size: int = 2) -> tuple[NumberedApi, list[list[bytes]]]:
    """An API that was asked so often, and the records of each answer."""
    api = NumberedApi(first_size=first_size)
    bodies = [json.loads(api.next_body()) for _ in range(polls)]
    return api, [[json.dumps(record).encode() for record in body] for body in bodies]


def test_no_two_records_share_an_id_and_no_two_polls_a_size() -> None:
    api, polls = served(5)
    ids = [record_id(value) for poll in polls for value in poll]
    assert len(set(ids)) == len(ids) == 2 + 3 + 4 + 5 + 6
    assert [api.poll_of(len(poll)) for poll in polls] == [0, 1, 2, 3, 4]


def test_all_in_order_is_no_finding() -> None:
    api, polls = served(3)
    found = account(api, [2, 4], polls[0] + polls[2])
    assert (found.lost, found.doubled, found.strange, found.said_again) == ((), (), (), ())
    assert (found.said, found.in_topic) == (6, 6)
    assert found.missing == tuple(RecordId(1, place) for place in range(3))
    assert found.cut_off == frozenset()
    assert found.said_polls == {0, 2}


def test_each_kind_of_finding_is_seen() -> None:
    api, polls = served(3)
    stranger = b'{"poll":7,"place":0}'
    found = account(api, [2, 3, 3], [*polls[0], polls[0][1], *polls[1][1:], polls[2][0], stranger])
    assert found.lost == (RecordId(1, 0),)
    assert found.doubled == (RecordId(0, 1),)
    assert found.strange == (RecordId(7, 0),)
    assert found.said_again == (1,)
    assert found.in_topic == 7


def test_a_last_poll_of_which_nothing_arrived_may_have_been_cut_off() -> None:
    api, polls = served(3)
    assert account(api, [], polls[0]).cut_off == {2}
    assert account(api, [], polls[2][:1]).cut_off == frozenset()


def test_a_number_of_records_that_no_poll_had_is_refused() -> None:
    api, _ = served(3)
    with pytest.raises(AssertionError, match="no poll of the 3 had 5 records"):
        account(api, [5], [])
