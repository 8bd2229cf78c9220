"""Fixtures: the real Kafka, the real S3 servers, and names of one's own for each test.

The servers start once a session, when the first test asks. MiniStack is always the S3 server `s3`; with
`TEST_S3=versitygw` the fixture `any_s3` runs its tests on versitygw too. Nothing of the shell's AWS, Kafka or proxy
variables reaches a test or what it starts.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from demo import environment, kafka_server
from demo.server_process import ServerError
from shared import kafka_connection
from tests.order import dealt
from tests.servers import S3, Kafka, make_s3, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Read before the shield is up.
SECOND_S3 = os.environ.get("TEST_S3", "")
if SECOND_S3 not in {"", "ministack", "versitygw"}:
    raise pytest.UsageError(f"TEST_S3={SECOND_S3} is unknown: versitygw, or nothing for MiniStack alone")
ALL_S3 = ["ministack", "versitygw"] if SECOND_S3 == "versitygw" else ["ministack"]


def pytest_configure() -> None:
    environment.shield(os.environ)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On several workers: long tests first, or the last one runs alone."""
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    if workers > 1:
        items[:] = [items[number] for number in dealt([item.nodeid for item in items], workers)]


@pytest.fixture(autouse=True)
def no_attempts_of_other_tests() -> None:
    """A process remembers for 90 s why it could not connect; what a test before ran into is none of this one's."""
    kafka_connection.ATTEMPTS._failed.clear()
    kafka_connection.ATTEMPTS.reminders.over()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the session's servers keep their data; gone at its end, for Kafka's files are large."""
    folder = tmp_path_factory.mktemp("servers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(server_folder: Path) -> Iterator[Kafka]:
    """The session's broker. Leave it running: tests that stop or kill one take `new_kafka`."""
    server = kafka_server.KafkaServer(kafka_server.runtime(), server_folder / "kafka")
    try:
        server.start()
        yield Kafka(server)
    finally:
        server.stop()


@pytest.fixture
def new_kafka(tmp_path: Path) -> Iterator[Callable[..., Kafka]]:
    """Makes a broker of the test's own (4 s), which it may stop, kill and suspend; keywords as for KafkaServer."""
    servers: list[kafka_server.KafkaServer] = []

    def make(**options: object) -> Kafka:
        folder = tmp_path / f"kafka-{len(servers)}"
        server = kafka_server.KafkaServer(kafka_server.runtime(), folder, **options)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return Kafka(server)

    yield make
    for number, server in enumerate(servers):
        server.stop()
        shutil.rmtree(tmp_path / f"kafka-{number}", ignore_errors=True)


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """A topic with one partition."""
    return await kafka.create_topic()


@pytest.fixture
def group() -> str:
    return unique("group")


def start_s3(kind: str, folder: Path) -> S3:
    """A running S3 server of that kind; the caller stops it."""
    s3 = make_s3(kind, folder)
    try:
        s3.server.start()
    except ServerError:
        s3.server.stop()
        raise
    return s3


@pytest.fixture(scope="session")
def s3(server_folder: Path) -> Iterator[S3]:
    """The session's MiniStack. Leave it running: tests that stop or kill one take `new_s3`."""
    running = start_s3("ministack", server_folder / "ministack")
    yield running
    running.server.stop()


@pytest.fixture(scope="session")
def versitygw(server_folder: Path) -> Iterator[S3]:
    """The session's versitygw; skips without TEST_S3=versitygw."""
    if SECOND_S3 != "versitygw":
        pytest.skip("runs with TEST_S3=versitygw only")
    running = start_s3("versitygw", server_folder / "versitygw")
    yield running
    running.server.stop()


@pytest.fixture(params=ALL_S3)
def any_s3(request: pytest.FixtureRequest) -> S3:
    """Each S3 server of this session in turn."""
    found = request.getfixturevalue("versitygw" if request.param == "versitygw" else "s3")
    assert isinstance(found, S3)
    return found


@pytest.fixture
def new_s3(tmp_path: Path) -> Iterator[Callable[[], S3]]:
    """Makes a MiniStack of the test's own (1 s), which it may stop, kill and suspend."""
    started: list[S3] = []

    def make() -> S3:
        started.append(start_s3("ministack", tmp_path / f"ministack-{len(started)}"))
        return started[-1]

    yield make
    for running in started:
        running.server.stop()


@pytest.fixture
async def bucket(s3: S3) -> str:
    """An empty bucket on the session's MiniStack."""
    return await s3.create_bucket()
