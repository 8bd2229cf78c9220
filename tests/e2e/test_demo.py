"""The demo as a user runs it: real processes, real Kafka, a real S3 server; and as a user stops it."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from demo.installation import ROOT, SHELL
from tests.servers import PATIENCE_SECONDS, eventually, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import S3, Kafka

pytestmark = pytest.mark.timeout(900)  # set-up included: environments and Kafka may have to be brought first
CONSUMERS = ("consumer-1", "consumer-2")
SETUP_SECONDS = 800.0
# What must not reach any service.
MISLEADING = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "KAFKA_TOPIC": "somebody-elses",
    "AWS_PROFILE": "no-such-profile",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
    "S3_BUCKET": "somebody-elses",
    "HTTP_PROXY": "http://127.0.0.1:9",  # not HTTPS_PROXY, which set-up would take
    "SELECT": "nonsense",
}
PROGRESS = re.compile(
    r"^=== ([\d,]+) records published, ([\d,]+) stored in ([\d,]+) objects, lag ([\d,]+|\?)$", re.MULTILINE
)


class Demo:
    """A running `python -m demo`; its output goes to a file."""

    def __init__(self, output: Path, settings: dict[str, str]) -> None:
        self._output = output
        environ = {name: value for name, value in SHELL.items() if not name.startswith("DEMO_")}
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo"],
                cwd=ROOT,
                env=environ | MISLEADING | settings,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    async def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        await eventually(lambda: self.process.poll() is not None, "the end of the demo", seconds)
        return self.process.returncode

    async def shows(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> None:
        def shown() -> bool:
            assert self.process.poll() is None, self.output
            return re.search(pattern, self.output, re.MULTILINE) is not None

        await eventually(shown, f"{pattern} in the output", seconds)


@contextmanager
def running(output: Path, settings: dict[str, str]) -> Iterator[Demo]:
    """A demo on state of its own; whatever the test does, it is gone afterwards, and what it started with it."""
    demo = Demo(output, settings)
    try:
        yield demo
    finally:
        demo.process.kill()
        demo.process.wait()


def left_behind(marks: set[str]) -> list[str]:
    """Command lines of living processes that mention one of the marks: a folder or port of the demo's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if int(entry.name) != os.getpid() and any(mark in command or mark in environ for mark in marks):
            found.append(command)
    return found


def on_servers(kafka: Kafka, s3: S3, topic: str, bucket: str) -> dict[str, str]:
    """The variables for a demo on the session's servers, which the test can then look into."""
    return {
        "DEMO_KAFKA": kafka.bootstrap_servers,
        "DEMO_TOPIC": topic,
        "DEMO_S3": s3.access.endpoint_url,
        "DEMO_S3_BUCKET": bucket,
        "DEMO_S3_ACCESS_KEY": s3.access.access_key,
        "DEMO_S3_SECRET_KEY": s3.access.secret_key,
    }


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")
async def test_the_demo_runs_stores_verifies_and_leaves_nothing_running(tmp_path: Path, kafka: Kafka, s3: S3) -> None:
    topic, bucket = unique("topic"), unique("bucket")
    settings = on_servers(kafka, s3, topic, bucket) | {"DEMO_SECONDS": "15"}
    with running(tmp_path / "demo.log", settings) as demo:
        await demo.shows(r"^\[[\d.]+ s\] Kafka and S3 are up$", SETUP_SECONDS)
        code = await demo.wait()
        assert code == 0, demo.output
        progress = PROGRESS.findall(demo.output)
        assert len(progress) >= 3, demo.output
        stored = re.search(r"^=== ([\d,]+) records stored in ([\d,]+) objects$", demo.output, re.MULTILINE)
        assert stored, demo.output
        assert number(stored[2]) >= 6  # one for each partition at least
        assert re.search(r"^producer +\| .*Message sent", demo.output, re.MULTILINE)
        for name in CONSUMERS:
            assert re.search(rf"^{name} +\| .*Uploaded", demo.output, re.MULTILINE), demo.output
        assert "Verified: all is well." in demo.output
        assert left_behind({topic}) == []
    on_topic = [record.value for records in (await kafka.read(topic)).values() for record in records]
    files = str(s3.folder(bucket) / f"topic={topic}" / "**" / "*.jsonl.gz")
    found = duckdb.connect().execute(f"SELECT count(*) FROM read_ndjson_objects('{files}')").fetchone()
    assert found == (len(on_topic),)
    assert number(stored[1]) == len(on_topic) >= number(progress[-1][0]) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")
async def test_one_interrupt_stops_the_demo_and_its_own_servers_in_order(tmp_path: Path) -> None:
    bucket = unique("bucket")
    settings = {"DEMO_STATE": str(tmp_path / "state"), "DEMO_S3_BUCKET": bucket}
    with running(tmp_path / "demo.log", settings) as demo:
        await demo.shows(r"^\[[\d.]+ s\] first object stored$", SETUP_SECONDS)
        folder = re.search(r"^bucket +(/.*)$", demo.output, re.MULTILINE)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.wait() == 0, demo.output
        assert left_behind({bucket, str(tmp_path / "state")}) == []
    lines = [line.split(" ")[0] for line in demo.output.splitlines()]
    stopping = lines.index("Stopping:")
    first_of_consumers = min(lines.index(name, lines.index("producer", stopping)) for name in CONSUMERS)
    assert "producer" not in lines[first_of_consumers:], demo.output
    assert folder
    assert list(Path(folder[1]).glob("topic=task/**/*.jsonl.gz"))


class PersonAtTerminal:
    """An interactive shell on a terminal of its own, and who types into it."""

    def __init__(self, settings: dict[str, str]) -> None:
        kept = {name: value for name, value in SHELL.items() if not name.startswith("DEMO_")}
        environ = kept | {"PYTHON": sys.executable, "PS1": "$ "} | settings
        self._terminal, theirs = pty.openpty()
        self.shell = subprocess.Popen(
            # The script makes the terminal its session's own, as a login does.
            [sys.executable, "-I", "-S", "-c", _LOGIN, "bash", "--norc", "-i"],
            cwd=ROOT,
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self._terminal, False)
        self.screen = ""
        self._seen = 0

    def types(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    async def sees(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Wait for the pattern behind what was seen last."""
        match: re.Match[str] | None = None

        def shown() -> bool:
            nonlocal match
            self._read()
            match = re.compile(pattern, re.MULTILINE).search(self.screen, self._seen)
            return match is not None

        try:
            await eventually(shown, f"{pattern} on the screen", seconds)
        except AssertionError:
            print(self.screen)
            raise
        assert match
        self._seen = match.end()
        return match

    def leaves(self) -> None:
        """Closes the terminal: who still runs on it is hung up."""
        os.close(self._terminal)
        self.shell.kill()
        self.shell.wait()

    def _read(self) -> None:
        try:
            while part := os.read(self._terminal, 65_536):
                self.screen += part.decode(errors="replace").replace("\r\n", "\n")
        except (BlockingIOError, OSError):
            return  # nothing more now, or the shell has ended


_LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")
@pytest.mark.skipif(not shutil.which("bash"), reason="job control is a shell's")
async def test_make_demo_obeys_ctrl_z_and_ends_well_by_ctrl_c(kafka: Kafka, s3: S3) -> None:
    topic = unique("topic")
    person = PersonAtTerminal(on_servers(kafka, s3, topic, unique("bucket")) | {"NO_COLOR": "1"})
    try:
        person.types("make demo; echo make: $?\n")
        await person.sees(r"^=== ", SETUP_SECONDS)
        person.types("\x1a")
        await person.sees(r"^make: 148$")  # 128 + SIGTSTP
        person.types("fg; echo make: $?\n")
        await person.sees(r"first object stored$")
        person.types("\x03")
        assert (await person.sees(r"^make: (\d+)$"))[1] == "0", person.screen
        person.types("unset DEMO_TOPIC; exec sleep 60\n")  # the shell itself has the topic in its environment
        await eventually(lambda: left_behind({topic}) == [], "the end of all that was started", 10)
    finally:
        person.leaves()


async def test_a_service_that_dies_ends_the_demo_with_its_last_lines(tmp_path: Path, kafka: Kafka, s3: S3) -> None:
    topic = unique("topic")
    settings = on_servers(kafka, s3, topic, await s3.create_bucket())
    # No layout of ours: the consumers refuse it.
    await s3.put(settings["DEMO_S3_BUCKET"], f"_ticklake/{topic}/layout.json", b"{}")
    with running(tmp_path / "demo.log", settings) as demo:
        assert await demo.wait(SETUP_SECONDS) == 1, demo.output
        told = r"^The demo ended: consumer-\d ended with exit code 2\. Its last lines:"
        assert re.search(told, demo.output, re.MULTILINE), demo.output
        assert left_behind({topic}) == []


def test_a_variable_that_cannot_be_used_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**SHELL, "DEMO_SECONDS": "soon"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("demo: DEMO_SECONDS=soon: a number from 1 to")
    assert "Traceback" not in done.stderr
