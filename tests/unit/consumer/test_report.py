"""What the consumer tells: which line and which count a link of the chain makes, which level a record has."""

from __future__ import annotations

import logging

import pytest
import structlog
from prometheus_client import CollectorRegistry

from consumer.encoder import Body, Reason
from consumer.events import Chunk, Linked, Outcome
from consumer.report import Report
from tests.fakes.wire import run, wire_of

BODY = Body(content=b"gz", crc32=1, sha256="ab", record_count=3, quarantined={Reason.NOT_JSON: 2}, quarantine=None)
CHUNK = Chunk(key="k", start=10, next_offset=15, first_timestamp=0, max_timestamp=0, records=5)


def linked(outcome: Outcome, chunk: Chunk | None = CHUNK) -> Linked:
    return Linked(key="k", start=10, next_offset=15, outcome=outcome, chunk=chunk)


@pytest.mark.parametrize("outcome", [Outcome.CREATED, Outcome.OWN])
def test_an_object_of_our_put_is_uploaded_and_its_records_count(outcome: Outcome) -> None:
    report = Report(CollectorRegistry(), each_record=False)
    with structlog.testing.capture_logs() as lines:
        report.linked(linked(outcome), BODY, 1.23456)
    (line,) = [line for line in lines if line["event"] == "Uploaded"]
    fields = {name: line[name] for name in ("key", "records", "bytes", "seconds", "start", "next")}
    assert fields == {"key": "k", "records": 3, "bytes": 2, "seconds": 1.235, "start": 10, "next": 15}
    value = report.registry.get_sample_value
    assert value("ticklake_consumer_objects_total", {"outcome": outcome}) == 1
    assert value("ticklake_consumer_records_stored_total") == 3
    assert value("ticklake_consumer_records_quarantined_total", {"reason": "not_json"}) == 2


@pytest.mark.parametrize("chunk", [CHUNK, None])
def test_an_object_of_another_writer_is_adopted_and_its_records_are_that_ones_to_count(chunk: Chunk | None) -> None:
    report = Report(CollectorRegistry(), each_record=False)
    with structlog.testing.capture_logs() as lines:
        report.linked(linked(Outcome.ADOPTED, chunk), BODY if chunk else None, 1.0)
    assert lines == [{"event": "Adopted", "log_level": "info", "key": "k", "start": 10, "next": 15}]
    value = report.registry.get_sample_value
    assert value("ticklake_consumer_objects_total", {"outcome": "adopted"}) == 1
    assert value("ticklake_consumer_records_stored_total") == 0


@pytest.mark.parametrize(("each_record", "level"), [(True, "info"), (False, "debug")])
def test_received_message_is_a_line_a_record_at_debug_unless_each_is_an_object(each_record: bool, level: str) -> None:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    try:
        with structlog.testing.capture_logs() as lines:
            records = run(wire_of([b"1", b"2", None, b"4"]))
            Report(CollectorRegistry(), each_record=each_record).received(records, 1, 3)
    finally:
        structlog.configure(**before)
    assert [(line["event"], line["record"], line["log_level"]) for line in lines] == [
        ("Received message", "2", level),
        ("Received message", None, level),
    ]
