"""The servers under the demo: Kafka and S3, started here or named by the user, with topic and bucket in them.

Owns: their set-up, start and stop. Does not own: the services (`services`). Invariant: what the user named is used,
never started or stopped; nothing is deleted anywhere.
"""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from botocore.exceptions import BotoCoreError, ClientError

from demo import buckets, installation, kafka_server, s3_server
from demo.buckets import S3Access
from demo.server_process import ServerError

if TYPE_CHECKING:
    from pathlib import Path

    from demo.options import Options
    from demo.server_process import ServerProcess

PARTITIONS = 6
KAFKA_PORT, S3_PORT = 9092, 9000
TOPIC_EXISTS = 36
ANSWER_SECONDS = 60.0
LEAST_FREE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What set-up brought. None where the user named a server of their own."""

    producer: Path
    consumer: Path
    kafka: kafka_server.KafkaRuntime | None
    s3: Path | None


def install(options: Options) -> Installed:
    """Bring everything that is not there yet (a minute or two, later nothing). Blocks; raises InstallationError."""
    # Two at a time: bringing Kafka mostly waits for the network, the others mostly compute.
    with ThreadPoolExecutor(2) as pool:
        kafka = None if options.kafka else pool.submit(kafka_server.runtime)
        consumer = pool.submit(installation.ensure, "consumer")
        producer = pool.submit(installation.ensure, "producer")
        s3 = None if options.s3 else pool.submit(installation.ensure, "s3")
    return Installed(
        producer=producer.result(),
        consumer=consumer.result(),
        kafka=kafka.result() if kafka else None,
        s3=s3.result() if s3 else None,
    )


class LocalServers:
    """Both servers, for one run of the demo."""

    def __init__(self, options: Options, installed: Installed) -> None:
        self._options = options
        folder = options.folder
        self._kafka = (
            kafka_server.KafkaServer(installed.kafka, folder / "kafka", port=KAFKA_PORT) if installed.kafka else None
        )
        self._s3 = s3_server.MiniStack(installed.s3, folder / "s3", port=S3_PORT) if installed.s3 else None

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return self._kafka.bootstrap_servers if self._kafka else str(self._options.kafka)

    @property
    def s3(self) -> S3Access:
        return S3Access(
            endpoint_url=self._s3.endpoint_url if self._s3 else str(self._options.s3),
            access_key=self._options.access_key,
            secret_key=self._options.secret_key,
            region=self._options.region,
        )

    @property
    def bucket_folder(self) -> Path | None:
        """Where the objects lie as files; None on a server of the user's."""
        return self._s3.bucket_folder(self._options.bucket) if self._s3 else None

    async def start(self) -> None:
        """Both at once, then topic and bucket. Raises ServerError. Call it in the main thread's event loop."""
        if self._s3 is not None:
            self._s3.spawn()
        if self._kafka is not None:
            await asyncio.to_thread(self._kafka.prepare)
            self._kafka.spawn()
        for server in (self._s3, self._kafka):
            if server is not None:
                await asyncio.to_thread(server.wait_ready)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.gather(self._make_topic(), buckets.create(self.s3, self._options.bucket))
        except TimeoutError as error:
            raise ServerError(
                f"no answer within {ANSWER_SECONDS:.0f} s from {self.kafka} or {self.s3.endpoint_url}"
            ) from error
        except KafkaError as error:
            raise ServerError(f"topic {self._options.topic} on {self.kafka}: {error!r}") from error
        except (BotoCoreError, ClientError) as error:
            raise ServerError(f"bucket {self._options.bucket} on {self.s3.endpoint_url}: {error}") from error

    def ended(self) -> list[ServerProcess]:
        """Those of ours that should run and do not."""
        return [server.process for server in (self._kafka, self._s3) if server is not None and not server.process.alive]

    def short_of_disk(self) -> str | None:
        """What is wrong with the room for our S3 server's files; None = there is enough, or it is not ours.

        MiniStack says 200 to a put that its full disk did not take, and has lost the object after its next start.
        """
        if self._s3 is None:
            return None
        free = shutil.disk_usage(self._s3.data).free
        if free >= LEAST_FREE_BYTES:
            return None
        return f"only {free >> 20} MiB are free on the disk of {self._s3.data}, {LEAST_FREE_BYTES >> 20} are wanted"

    async def stop(self) -> None:
        """Ours, both at once."""
        running = [server for server in (self._kafka, self._s3) if server is not None]
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in running))

    def kill(self) -> None:
        """At once, whatever they hold."""
        for server in (self._kafka, self._s3):
            if server is not None and server.process.alive:
                server.kill()

    async def _make_topic(self) -> None:
        topic = NewTopic(self._options.topic, PARTITIONS, 1)
        topic.replication_factor = -1  # the broker's default: right for one node and for a real cluster
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            answer = await admin.create_topics([topic])
        finally:
            await admin.close()
        for name, code, *_ in answer.topic_errors:
            if code not in {0, TOPIC_EXISTS}:
                raise ServerError(f"Kafka at {self.kafka} refused to make the topic {name}: error {code}")
