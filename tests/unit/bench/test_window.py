"""What is counted from which moment to which."""

from __future__ import annotations

import queue
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import pytest

from bench.consumer_runs import STOCK, Case, Figures, NotTogetherError, Observed
from bench.process import BenchError, Line, MeasuredProcess
from tests.unit.bench.figures import TOPIC

if TYPE_CHECKING:
    from bench.ground import Ground

CASE = Case(module=STOCK, topic=TOPIC, objects=1)


@dataclass
class Sink:
    used: float
    started_at: float = 10.0
    memory: int = 100

    def cpu_seconds(self) -> float:
        return self.used

    def loop_seconds(self) -> float:
        return self.used / 2

    def peak_memory_bytes(self) -> int:
        return self.memory

    def check_childless(self) -> None:
        pass

    def check_alive(self) -> None:
        raise BenchError("nothing more was said")


class Servers:
    """Their clocks go on by a second and by half a second from one question to the next."""

    asked = 0

    def cpu_seconds(self) -> tuple[float, float]:
        self.asked += 1
        return 7.0 + self.asked, 3.0 + self.asked / 2


def follow(case: Case, sinks: dict[str, Sink], *said: tuple[str, float, float, dict[str, object]]) -> Figures:
    inbox: queue.SimpleQueue[tuple[str, Line]] = queue.SimpleQueue()
    for who, at, cpu_seconds, fields in said:
        inbox.put((who, Line(at=at, cpu_seconds=cpu_seconds, loop_seconds=cpu_seconds / 4, fields=fields)))
    ground, processes = cast("Ground", Servers()), cast("dict[str, MeasuredProcess]", sinks)
    return Observed(case, ground, processes).follow(inbox)


def assigned(count: int) -> dict[str, object]:
    return {"event": "Partitions assigned", "partitions": list(range(count))}


def uploaded(records: int) -> dict[str, object]:
    return {"event": "Uploaded", "records": records}


def test_the_window_is_from_the_assignment_to_the_last_record_stored_and_start_up_is_apart() -> None:
    found = follow(
        CASE,
        {"a": Sink(used=2.9)},
        ("a", 10.5, 0.3, {"event": "Settings"}),
        ("a", 12.0, 0.8, assigned(8)),
        ("a", 13.0, 1.5, uploaded(200)),
        ("a", 14.0, 2.5, uploaded(120)),
        ("a", 99.0, 9.9, uploaded(1)),
    )
    assert (found.records, found.value_bytes) == (320, 64_000)
    assert (found.wall_seconds, found.start_wall_seconds, found.start_cpu_seconds) == (2.0, 2.0, 0.8)
    assert found.cpu_seconds == pytest.approx(2.1)
    assert found.loop_cpu_seconds == pytest.approx(2.9 / 2 - 0.8 / 4)
    assert (found.kafka_cpu_seconds, found.s3_cpu_seconds) == (1.0, 0.5)
    assert found.block_p999_seconds is None


def test_the_window_of_two_is_from_the_later_assignment_with_the_sums_of_both() -> None:
    found = follow(
        replace(CASE, processes=2),
        {"a": Sink(used=2.0, memory=150), "b": Sink(used=3.0)},
        ("a", 12.0, 0.5, assigned(4)),
        ("b", 12.5, 0.7, assigned(4)),
        ("a", 13.0, 1.5, uploaded(160)),
        ("b", 14.0, 2.5, uploaded(160)),
    )
    assert (found.wall_seconds, found.start_wall_seconds, found.peak_memory_bytes) == (1.5, 2.5, 150)
    assert found.cpu_seconds == pytest.approx(3.8)
    assert found.start_cpu_seconds == pytest.approx(1.2)


def test_processes_that_did_not_begin_together_are_not_measured() -> None:
    two = replace(CASE, processes=2)
    with pytest.raises(NotTogetherError, match="a was given 8 partitions, 4 expected once"):
        follow(two, {"a": Sink(1.0), "b": Sink(1.0)}, ("a", 12.0, 0.5, assigned(8)))
    with pytest.raises(NotTogetherError, match="a was given 4 partitions, 4 expected once"):
        follow(two, {"a": Sink(1.0), "b": Sink(1.0)}, ("a", 12.0, 0.5, assigned(4)), ("a", 13.0, 0.5, assigned(4)))
    with pytest.raises(BenchError, match="only a had partitions"):
        follow(two, {"a": Sink(1.0), "b": Sink(1.0)}, ("a", 12.0, 0.5, assigned(4)), ("a", 13.0, 0.5, uploaded(320)))


def test_a_run_whose_last_record_is_never_stored_has_no_figures() -> None:
    with pytest.raises(BenchError, match="nothing more was said"):
        follow(CASE, {"a": Sink(1.0)}, ("a", 12.0, 0.5, assigned(8)), ("a", 13.0, 0.5, uploaded(319)))
