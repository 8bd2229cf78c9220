"""The line of progress."""

from __future__ import annotations

from demo.progress import Progress, samples, summed

PRODUCER = """\
# TYPE ticklake_producer_records_published_total counter
ticklake_producer_records_published_total 1034.0
"""
CONSUMER = """\
# TYPE ticklake_consumer_records_stored_total counter
ticklake_consumer_records_stored_total 500.0
# TYPE ticklake_consumer_records_quarantined_total counter
ticklake_consumer_records_quarantined_total{reason="empty"} 1.0
ticklake_consumer_records_quarantined_total{reason="not_json"} 2.0
# TYPE ticklake_consumer_objects_total counter
ticklake_consumer_objects_total{outcome="created"} 3.0
ticklake_consumer_objects_total{outcome="own"} 1.0
ticklake_consumer_objects_total{outcome="adopted"} 9.0
# TYPE ticklake_consumer_lag_records gauge
ticklake_consumer_lag_records{partition="0"} 7.0
ticklake_consumer_lag_records{partition="1"} 5.0
"""


def test_the_services_numbers_add_up_without_adopted_objects() -> None:
    consumer = samples(CONSUMER)
    assert summed([samples(PRODUCER), consumer, consumer]) == Progress(published=1034, stored=1006, objects=8, lag=24)


def test_lag_is_unknown_until_a_consumer_tells() -> None:
    progress = summed([samples(PRODUCER)])
    assert progress.lag is None
    assert str(progress) == "1,034 records published, 0 stored in 0 objects, lag ?"
