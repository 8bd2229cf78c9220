"""What chaos scenarios deceive consumers with: a coordinator that seems to know no offsets, a clock that jumps."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos import jumping_clock, loading_coordinator
from tests.chaos.loading_coordinator import LoadingCoordinator
from tests.servers import unique

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Kafka

HOUR_SECONDS = 3600.0
TOLERANCE_SECONDS = 60.0
LOOK = """
import datetime, time
from botocore.compat import get_current_datetime
now = [time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), get_current_datetime(False).timestamp()]
assert isinstance(datetime.datetime.fromtimestamp(0, datetime.UTC), datetime.datetime)
print(*now, time.monotonic())
"""


async def test_a_stock_client_takes_a_loading_coordinator_for_a_group_without_offsets(kafka: Kafka) -> None:
    topic, group = await kafka.create_topic(1), unique("group")
    name = TopicPartition(topic, 0)
    async with LoadingCoordinator(kafka.server.port) as front:
        consumer = AIOKafkaConsumer(bootstrap_servers=front.bootstrap_servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([name])
            await consumer.commit({name: 0})
            assert (await kafka.committed(group, topic))[0].offset == 0, "what is no lie passes through"
            for error in (loading_coordinator.LOADING, loading_coordinator.MOVED):
                front.error = error
                lies = front.answered
                assert await consumer.committed(name) is None
                assert front.answered > lies
            front.error = None
            assert await consumer.committed(name) == 0
        finally:
            await consumer.stop()


def test_every_clock_but_the_monotonic_one_is_off_by_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    clock = tmp_path / "clock"
    for shift in (-HOUR_SECONDS, HOUR_SECONDS):
        jumping_clock.set_shift(clock, shift)
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.jumping_clock", "look"],
            env={**os.environ, jumping_clock.VARIABLE: str(clock), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=TOLERANCE_SECONDS,
            check=True,
        )
        *shown, monotonic = map(float, done.stdout.split())
        right = dt.datetime.now(dt.UTC).timestamp()
        assert all(abs(each - right - shift) < TOLERANCE_SECONDS for each in shown), (shift, right, shown)
        assert abs(monotonic - time.monotonic()) < TOLERANCE_SECONDS
