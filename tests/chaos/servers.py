"""The servers of one run: one broker and one S3 server for most scenarios, their own for those that break them.

Owns: starting and stopping them. Does not own: what is done to them (scenarios, through `arena.kafka.server` and
`arena.s3.server`).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from demo import kafka_server
from tests.servers import S3, Kafka, make_s3

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.registry import Scenario


class Servers:
    """`kind`: ministack or versitygw. Starts what is asked for, once; to be called from the main thread."""

    def __init__(self, folder: Path, *, kind: str) -> None:
        self.kind = kind
        self._folder = folder
        self._kafkas: list[Kafka] = []
        self._stores: list[S3] = []
        self._shared_kafka: Kafka | None = None
        self._shared_s3: S3 | None = None

    def kafka_for(self, scenario: Scenario) -> Kafka:
        if scenario.own_kafka:
            return self._new_kafka(scenario)
        self._shared_kafka = self._shared_kafka or self._new_kafka(None)
        return self._shared_kafka

    def s3_for(self, scenario: Scenario) -> S3:
        if scenario.own_s3:
            return self._new_s3()
        self._shared_s3 = self._shared_s3 or self._new_s3()
        return self._shared_s3

    def release(self, kafka: Kafka, s3: S3) -> None:
        """The scenario is over: servers of its own end, their data too unless somebody wants to look."""
        if kafka is not self._shared_kafka:
            kafka.server.stop()
            self._kafkas.remove(kafka)
        if s3 is not self._shared_s3:
            s3.server.stop()
            self._stores.remove(s3)

    def stop(self) -> None:
        for kafka in self._kafkas:
            kafka.server.stop()
        for s3 in self._stores:
            s3.server.stop()

    def remove_data(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new_kafka(self, scenario: Scenario | None) -> Kafka:
        folder = self._folder / f"kafka-{scenario.name if scenario else 'shared'}"
        server = kafka_server.KafkaServer(
            kafka_server.runtime(), folder, settings=scenario.kafka_settings if scenario else None
        )
        self._kafkas.append(Kafka(server))
        server.start()
        return self._kafkas[-1]

    def _new_s3(self) -> S3:
        folder = self._folder / f"{self.kind}-{len(list(self._folder.glob(f'{self.kind}-*')))}"
        self._stores.append(make_s3(self.kind, folder))
        self._stores[-1].server.start()
        return self._stores[-1]
