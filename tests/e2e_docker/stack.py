"""One Compose project of a test's own: docker-compose.yml under a name, ports and settings that nobody else has.

Owns: the calls of `docker`, their deadline, the end of everything that was started. Does not own: what is expected.

Invariants: nothing of the shell's settings and no .env reaches the project; every call ends by the deadline; `down`
removes containers, volumes, network and images of this project and of no other.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
BUCKET = "ticklake"
POLL_SECONDS = 0.5
CLEAN_UP_SECONDS = 60.0
_OBJECT = re.compile(r"topic=task/dt=[\d-]{10}/hour=\d\d/(\d{5})-(\d{20})\.jsonl\.gz$")
_FROM_SHELL = re.compile(r"PATH|HOME|TMPDIR|DOCKER_\w+|XDG_RUNTIME_DIR")


class StackError(Exception):
    """A call of docker failed, or what was waited for did not come in time; the text has its output."""


def engine_fault() -> str | None:
    """Why no container engine can be used; None when one answers."""
    if shutil.which("docker") is None:
        return "there is no `docker` on PATH"
    answer = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return None if answer.returncode == 0 else answer.stderr.strip()


class Stack:
    """The project. `settings` is its .env; `seconds` is all the time it has, its end not counted."""

    def __init__(self, folder: Path, settings: Mapping[str, str], seconds: float) -> None:
        self.project = f"ticklake-e2e-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._end = time.monotonic() + seconds
        self._env_file = folder / "env"
        ports = {f"HOST_PORT_{name}": str(free_port()) for name in ("PRODUCER", "MARKET_API", "S3")}
        lines = [f"{name}={value}\n" for name, value in {**ports, **settings}.items()]
        self._env_file.write_text("".join(lines))

    def docker(self, *arguments: str) -> str:
        """Standard output of `docker …`; StackError on another exit code than 0."""
        command = ["docker", *arguments]
        environ = {name: value for name, value in os.environ.items() if _FROM_SHELL.fullmatch(name)}
        try:
            answer = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=self.remaining(), check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"out of time: {' '.join(command)}") from error
        if answer.returncode != 0:
            output = f"{answer.stdout}{answer.stderr}"[-8000:]
            raise StackError(f"exit code {answer.returncode}: {' '.join(command)}\n{output}")
        return answer.stdout

    def compose(self, *arguments: str) -> str:
        """Standard output of `docker compose …` on this project."""
        return self.docker("compose", "--project-name", self.project, "--env-file", str(self._env_file), *arguments)

    def remaining(self) -> float:
        """Seconds left; StackError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise StackError("out of time")
        return left

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Ask again and again until it holds; StackError names `what` did not come."""
        while not holds():
            try:
                self.remaining()
            except StackError as error:
                raise StackError(f"waited in vain: {what}") from error
            time.sleep(POLL_SECONDS)

    def containers(self, service: str) -> list[str]:
        """The ids of the service's running containers."""
        return self.compose("ps", "--quiet", "--status", "running", service).split()

    def exit_code(self, container: str) -> int:
        """Of a stopped container."""
        state = json.loads(self.docker("inspect", "--format", "{{json .State}}", container))
        assert not state["Running"], state
        return int(state["ExitCode"])

    def starts(self) -> dict[int, list[int]]:
        """The start offsets of the stored objects, partition by partition, as the S3 server's files show them."""
        found: dict[int, list[int]] = {}
        for line in self.compose("exec", "-T", "s3", "find", f"/data/{BUCKET}", "-type", "f").splitlines():
            if match := _OBJECT.search(line):
                found.setdefault(int(match[1]), []).append(int(match[2]))
        return {partition: sorted(starts) for partition, starts in found.items()}

    def stored(self) -> dict[int, int]:
        """Lines in the stored objects, partition by partition: counted here, by nothing of ours."""
        copy = self._folder / "data"
        shutil.rmtree(copy, ignore_errors=True)
        self.compose("cp", f"s3:/data/{BUCKET}", str(copy))
        lines: dict[int, int] = {}
        for path in copy.rglob("*.jsonl.gz"):
            if match := _OBJECT.search(path.as_posix()):
                body = gzip.decompress(path.read_bytes())
                lines[int(match[1])] = lines.get(int(match[1]), 0) + body.count(b"\n")
        return lines

    def published(self) -> dict[int, int]:
        """Records in the topic, partition by partition, as Kafka's own tool tells."""
        tool = ("/opt/kafka/bin/kafka-get-offsets.sh", "--bootstrap-server", "localhost:9092", "--topic", "task")
        answer = self.compose("exec", "-T", "--env", "KAFKA_HEAP_OPTS=-Xmx128m", "kafka", *tool)
        ends = (line.split(":") for line in answer.split())
        return {int(partition): int(end) for _, partition, end in ends}

    def story(self) -> str:
        """What is there and what it logged last, for a failed test's report."""
        self._end = max(self._end, time.monotonic() + CLEAN_UP_SECONDS)
        return self.compose("ps", "--all") + self.compose("logs", "--no-color", "--tail", "60")

    def down(self) -> None:
        """Remove everything of this project."""
        self._end = time.monotonic() + CLEAN_UP_SECONDS
        self.compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5")
