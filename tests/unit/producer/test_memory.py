from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from producer.ledger import Record
from producer.memory import Changes, Memory

if TYPE_CHECKING:
    from collections.abc import Iterable


def record(key: str | None, value: str) -> Record:
    """As records are: the key is part of the value."""
    return Record(key=None if key is None else key.encode(), value=f"{key or ''}={value}".encode())


def key_of(value: bytes) -> bytes | None:
    return value.partition(b"=")[0] or None


def changes_of(memory: Memory, records: Iterable[Record]) -> Changes:
    return memory.changes([each.value for each in records], key_of)


A1, A2, B1 = record("A", "1"), record("A", "2"), record("B", "1")


def polled(memory: Memory, *records: Record) -> list[Record]:
    """One poll whose changes are handed over."""
    changes = changes_of(memory, records)
    memory.remember(changes)
    return list(changes.records)


def test_the_same_body_twice_is_one_publication_in_any_order() -> None:
    memory = Memory(max_keys=100)
    assert polled(memory, A1, B1) == [A1, B1]
    assert polled(memory, A1, B1) == []
    assert polled(memory, B1, A1) == []
    assert polled(memory, B1) == []
    assert polled(memory, A1) == []


def test_the_key_is_read_of_new_values_only() -> None:
    asked: list[bytes] = []

    def asking(value: bytes) -> bytes | None:
        asked.append(value)
        return key_of(value)

    memory = Memory(max_keys=100)
    for records in ([A1, B1], [A1, B1], [A2, B1]):
        memory.remember(memory.changes([each.value for each in records], asking))
    assert asked == [A1.value, B1.value, A2.value]


def test_there_and_back_again_is_three_publications() -> None:
    memory = Memory(max_keys=100)
    assert [polled(memory, each) for each in (A1, A2, A1)] == [[A1], [A2], [A1]]


def test_what_was_not_handed_over_is_still_new() -> None:
    memory = Memory(max_keys=100)
    assert changes_of(memory, [A1]).records == [A1]
    assert changes_of(memory, [A1]).records == [A1]


def test_a_record_without_a_key_is_always_new() -> None:
    memory = Memory(max_keys=100)
    null = record(None, "1")
    assert polled(memory, null, null) == [null, null]
    assert polled(memory, null) == [null]


def test_several_records_of_one_key_do_not_make_each_other_new() -> None:
    memory = Memory(max_keys=100)
    assert polled(memory, A1, A2) == [A1, A2]
    assert polled(memory, A1, A2) == []
    assert polled(memory, A2) == []
    assert polled(memory, A1, A2) == [A1, A2]


def test_a_keys_last_record_is_new_when_it_was_not_the_last_before() -> None:
    memory = Memory(max_keys=100)
    assert polled(memory, A1, A2) == [A1, A2]
    assert polled(memory, A2, A1) == [A1]
    assert polled(memory, A2) == [A2]


def test_what_was_set_aside_is_new_again() -> None:
    memory = Memory(max_keys=100)
    polled(memory, A1, B1)
    memory.forget([A1])
    assert polled(memory, A1, B1) == [A1]
    assert polled(memory, A1, B1) == []


def test_forgetting_what_has_been_replaced_by_another_value_changes_nothing() -> None:
    memory = Memory(max_keys=100)
    polled(memory, A1)
    polled(memory, A2)
    memory.forget([A1, record("C", "1"), record(None, "1")])
    assert polled(memory, A2) == []


def test_what_is_set_aside_during_a_comparison_is_new_after_it() -> None:
    memory = Memory(max_keys=100)
    polled(memory, A1)
    changes = changes_of(memory, [A1])  # in a thread, while Kafka refuses the first
    memory.forget([A1])
    memory.remember(changes)
    assert polled(memory, A1) == [A1]
    assert polled(memory, A1) == []


def test_the_number_of_keys_is_bounded_and_those_that_keep_coming_are_kept() -> None:
    memory = Memory(max_keys=100)
    steady = [record(f"steady{number}", "1") for number in range(20)]
    polled(memory, *steady)
    for number in range(1000):
        assert polled(memory, *steady, record(f"once{number}", "1")) == [record(f"once{number}", "1")]
        assert len(memory) <= 100 + 21
    assert polled(memory, record("once0", "1")) == [record("once0", "1")]


def test_many_records_of_one_key_cost_no_more_than_as_many_of_many() -> None:
    many = [record(f"{number}", f"{number}") for number in range(50_000)]
    one = [record("A", f"{number}") for number in range(50_000)]
    seconds = []
    for records in (many, one):
        began = time.process_time()
        memory = Memory(max_keys=100_000)
        assert len(polled(memory, *records)) == 50_000
        assert polled(memory, *records) == []
        seconds.append(time.process_time() - began)
    assert seconds[1] < 3 * seconds[0]


KEYS = st.sampled_from(["A", "B", "C", None])
RECORDS = st.lists(st.builds(record, KEYS, st.sampled_from("123")), max_size=6)


class BesideAPlainDictionary(RuleBasedStateMachine):
    """The memory, unbounded here, beside the sentence it stands for: key → the values of its last body."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(max_keys=1000)
        self.model: dict[bytes, list[bytes]] = {}

    @rule(records=RECORDS, handed_over=st.booleans())
    def poll(self, records: list[Record], handed_over: bool) -> None:
        changes = changes_of(self.memory, records)
        assert list(changes.records) == [each for each in records if self.is_new(each, records)]
        if handed_over:
            self.memory.remember(changes)
            for key in {each.key for each in records if each.key is not None}:
                self.model[key] = [each.value for each in records if each.key == key]

    def is_new(self, each: Record, records: list[Record]) -> bool:
        if each.key is None:
            return True
        known, now = self.model.get(each.key, []), [other.value for other in records if other.key == each.key]
        last_too = not set(now) <= set(known) or known[-1:] != now[-1:]
        return known != now and (each.value not in known or (each.value == now[-1] and last_too))

    @rule(records=RECORDS)
    def set_aside(self, records: list[Record]) -> None:
        self.memory.forget(records)
        for each in records:
            if each.key is not None and each.value in self.model.get(each.key, []):
                del self.model[each.key]

    @invariant()
    def as_many_keys(self) -> None:
        assert len(self.memory) == len(self.model)


TestBesideAPlainDictionary = BesideAPlainDictionary.TestCase
TestBesideAPlainDictionary.settings = settings(max_examples=50, stateful_step_count=20)


@given(st.lists(RECORDS, max_size=6))
def test_the_topics_last_word_on_a_key_is_the_apis(bodies: list[list[Record]]) -> None:
    memory = Memory(max_keys=1000)
    published: dict[bytes | None, bytes] = {}
    told: dict[bytes | None, bytes] = {}
    for body in bodies:
        published |= {each.key: each.value for each in polled(memory, *body)}
        told |= {each.key: each.value for each in body}
    assert published == told
