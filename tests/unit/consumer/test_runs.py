"""Runs: several wire batches taken as one, with nothing changed about their records."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.encoder import value_lines
from consumer.ports import Fetched, SourceError
from consumer.runs import RUN_BYTES, Run, read
from tests.fakes.wire import FakeWire, record, wire, wire_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@st.composite
def wires(draw: st.DrawFn) -> list[FakeWire]:
    """Adjoining wire batches with gaps and behind it perhaps more, of values that are lines or are not."""
    offset, result = draw(st.integers(0, 5)), []
    value = draw(st.sampled_from((st.sampled_from((b"1", b'"ab"')), st.sampled_from((None, b"", b"NaN", b"1")))))
    size = draw(st.sampled_from((1, RUN_BYTES // 3)))
    for _ in range(draw(st.integers(0, 6))):
        records = []
        for _ in range(draw(st.integers(1, 4))):
            offset += draw(st.integers(0, 2))
            records.append(record(offset, draw(value), timestamp=draw(st.integers(-1, 9))))
            offset += 1
        offset += draw(st.integers(0, 2))
        result.append(replace(wire(*records, next_offset=offset), header_bytes=size))
    return result


def runs_of(batches: Sequence[FakeWire]) -> Sequence[Run]:
    return read(Fetched(partition=3, start=0, next_offset=99, batches=batches), value_lines).runs


@given(wires())
def test_runs_hold_every_record_of_their_wire_batches_in_order(batches: list[FakeWire]) -> None:
    known = [record for batch in batches for record in batch.records]
    runs = runs_of(batches)
    assert [wire for run in runs for wire in run.wires] == batches
    assert [run.record(index) for run in runs for index in range(run.count)] == known
    assert [run.offset(index) for run in runs for index in range(run.count)] == [record.offset for record in known]
    assert [run.timestamp(at) for run in runs for at in range(run.count)] == [record.timestamp for record in known]
    assert [run.value(index) for run in runs for index in range(run.count)] == [record.value for record in known]


@given(wires(), st.data())
def test_a_run_answers_for_any_of_its_records(batches: list[FakeWire], data: st.DataObject) -> None:
    for run in runs_of(batches):
        begin = data.draw(st.integers(0, run.count - 1))
        end = data.draw(st.integers(begin + 1, run.count))
        values = [run.value(index) for index in range(begin, end)]
        assert run.size_between(begin, end) == sum(len(value or b"") for value in values)
        lines = run.lines_between(begin, end)
        assert (lines is None) is (run.lines is None)
        if lines is not None:
            assert lines == b"".join(b"%s\n" % value for value in values)
        parts = [(0, begin), (begin, end), (end, run.count)]
        whole = run.wires_bytes + run.size
        if run.size:
            assert whole - 3 <= sum(run.memory_between(*part) for part in parts) <= whole, "rounded down"
        assert run.memory_between(0, run.count) == whole
        assert run.max_timestamp == max(map(run.timestamp, range(run.count)))
        with pytest.raises(IndexError):
            run.offset(run.count)


@given(wires())
def test_wire_batches_make_a_run_until_they_are_large_enough(batches: list[FakeWire]) -> None:
    runs = runs_of(batches)
    sizes = [[batch.size_bytes for batch in run.wires] for run in runs]
    assert all(sum(of_run) >= RUN_BYTES for of_run in sizes[:-1])
    assert all(sum(of_run[:-1]) < RUN_BYTES for of_run in sizes)


def test_what_was_read_is_let_go_of_once_the_lines_are_made() -> None:
    one = wire_of([b"1", b"2"])
    (run,) = runs_of([one])
    assert run.lines == b"1\n2\n"
    assert one.released == [True]


def test_a_wire_batch_that_cannot_be_read_is_not_left_out() -> None:
    class Broken(FakeWire):
        @property
        def values(self) -> Sequence[bytes | None]:
            raise SourceError("broken zstd frame")

    good = wire_of([b"1"])
    with pytest.raises(SourceError, match="broken zstd frame"):
        runs_of([good, Broken(records=good.records, next_offset=1)])
