"""Child processes of the demo and servers of the tests: their output, their end, their tie to who started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo.ports import HOST, free_port, is_free
from demo.server_process import ServerError, ServerProcess, tethered, told_end
from demo.supervisor import Supervisor, Terminal
from tests.servers import eventually

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(300)
"""


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's tie between processes, or its /proc")


def state(pid: int) -> str:
    """The kernel's letter for the process: S sleeping, T stopped, Z dead and not collected, "" gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


async def test_lines_appear_whole_behind_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('a' * 200_000, flush=True); sys.stderr.write('b\\r\\nlast without end')"
    child = await Supervisor(Terminal()).start("one", python(code), os.environ)
    assert await child.ended == 0
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert sorted(lines) == sorted(["one        | " + "a" * 200_000, "one        | b", "one        | last without end"])
    assert "last without end" in child.last_lines


async def test_an_ended_child_is_noticed_with_its_exit_code() -> None:
    supervisor = Supervisor(Terminal())
    child = await supervisor.start("one", python("raise SystemExit(3)"), os.environ)
    await child.ended
    assert ([c.name for c in supervisor.ended()], supervisor.running(), child.exit_code) == (["one"], [], 3)
    assert await child.stop(1) == 3


async def test_a_child_that_ignores_the_signal_is_killed_after_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    child = await Supervisor(Terminal()).start("stubborn", python(STUBBORN), os.environ)
    await eventually(lambda: "up" in child.last_lines)
    assert await child.stop(0.1) == -signal.SIGKILL
    assert "stubborn did not stop within 0 s: killed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "told"),
    [(3, "ended with exit code 3"), (-9, "was ended by SIGKILL"), (-40, "was ended by signal 40")],
)
def test_how_a_process_ended_is_told_in_words(code: int, told: str) -> None:
    assert told_end(code) == told


def test_a_server_that_dies_before_it_answers_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = ServerProcess("broken", tmp_path / "broken.log")
    server.spawn(python("print('out of luck'); raise SystemExit(7)"), os.environ, tmp_path)
    with pytest.raises(ServerError, match=r"(?s)broken ended with exit code 7 .*out of luck"):
        server.wait_ready(lambda: "no answer")


async def test_a_server_that_never_answers_is_told_with_the_reason_and_can_be_killed(tmp_path: Path) -> None:
    server = ServerProcess("slow", tmp_path / "slow.log")
    server.spawn(python(STUBBORN), os.environ, tmp_path)
    await eventually(lambda: "up" in server.tail())
    with pytest.raises(ServerError, match="slow was not ready after 0 s: no answer"):
        server.wait_ready(lambda: "no answer", seconds=0.01)
    server.stop(seconds=0.1)
    assert not server.alive


@LINUX
async def test_a_suspended_server_can_be_stopped(tmp_path: Path) -> None:
    server = ServerProcess("frozen", tmp_path / "frozen.log")
    server.spawn(python("import time; print('up', flush=True); time.sleep(300)"), os.environ, tmp_path)
    await eventually(lambda: "up" in server.tail())
    server.suspend()
    await eventually(lambda: state(server.pid) in "Tt")
    process = server._process
    server.stop()
    assert process
    assert process.returncode == -signal.SIGTERM
    server.stop()  # once more does no harm


@LINUX
async def test_what_was_started_ends_with_who_started_it_even_by_kill_9(tmp_path: Path) -> None:
    note = tmp_path / "child.pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid()) + chr(10)); time.sleep(300)"
    command = tethered(python(child))
    command[4] = "PARENT"
    parent = (
        "import os, subprocess, time; "
        f"subprocess.Popen([str(os.getpid()) if part == 'PARENT' else part for part in {command!r}]); time.sleep(300)"
    )
    with subprocess.Popen(python(parent)) as process:
        await eventually(lambda: note.exists() and note.read_text().endswith("\n"))
        process.kill()
    pid = int(note.read_text())
    await eventually(lambda: state(pid) in ("", "Z"), "the end of the child")


def test_a_taken_port_is_not_given_out() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
    assert free_port(port) == port
