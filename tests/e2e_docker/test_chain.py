"""`docker compose up` as a stranger types it, and what one does to it afterwards. Needs an engine: make e2e-docker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e_docker.stack import Stack, StackError, engine_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 360.0
GRACE_SECONDS = 35.0
PARTITIONS = 6
KILLED = 137
SETTINGS = {
    "BATCH_MAX_SECONDS": "2",
    # A killed consumer's partitions are taken over after this long.
    "KAFKA_SESSION_TIMEOUT_SECONDS": "10",
}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    if (fault := engine_fault()) is not None:
        pytest.fail(f"no container engine: {fault}; start one, or name it with DOCKER_HOST", pytrace=False)
    started = Stack(tmp_path, SETTINGS, SECONDS)
    try:
        yield started
    finally:
        started.down()


def wait_for_growth(stack: Stack, what: str) -> None:
    """Every partition gets two more objects: what was in flight before may be one, not both."""
    before = {partition: len(starts) for partition, starts in stack.starts().items()}
    stack.wait_until(
        f"two more objects in each of {PARTITIONS} partitions, {what}",
        lambda: all(len(stack.starts().get(p, ())) >= before.get(p, 0) + 2 for p in range(PARTITIONS)),
    )


def stop(stack: Stack, containers: list[str]) -> None:
    """SIGTERM ends each within the grace, as a success."""
    started = time.monotonic()
    stack.docker("stop", *containers)
    assert time.monotonic() - started < GRACE_SECONDS
    assert {container: stack.exit_code(container) for container in containers} == dict.fromkeys(containers, 0)


def walk(stack: Stack) -> None:
    stack.compose("build")
    stack.compose("up", "--detach", "--wait")
    wait_for_growth(stack, "after the start")
    assert len(stack.containers("consumer")) == 2
    for service in ("producer", "consumer", "market-api"):
        assert stack.compose("exec", "-T", service, "id", "-u").strip() == "10001"
        with pytest.raises(StackError, match="Read-only file system"):
            stack.compose("exec", "-T", service, "touch", "/app/new")

    stack.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "consumer=4")
    assert len(stack.containers("consumer")) == 4
    wait_for_growth(stack, "with four consumers")

    victim, leaver, *rest = stack.containers("consumer")
    stack.docker("kill", victim)
    assert stack.exit_code(victim) == KILLED
    wait_for_growth(stack, "after one was killed")
    stop(stack, [leaver])
    wait_for_growth(stack, "after one was stopped under load")

    stop(stack, stack.containers("producer"))
    published = stack.published()
    assert set(published) == set(range(PARTITIONS))
    stack.wait_until("every published record in S3", lambda: stack.stored() == published)
    stop(stack, rest)
    print(stack.compose("run", "--rm", "--no-deps", "-T", "consumer", "python", "-m", "consumer", "verify", "--deep"))
    assert stack.published() == published
    assert stack.stored() == published


@pytest.mark.timeout(SECONDS + 180)
def test_every_record_is_stored_once_through_scaling_a_kill_and_stops(stack: Stack) -> None:
    try:
        walk(stack)
    except BaseException:
        print(stack.story())
        raise
