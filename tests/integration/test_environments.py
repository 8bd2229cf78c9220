"""The set-up, and that each service runs with its own requirements alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import bootstrap
from bootstrap import SetupError, ensure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Modules that one service must do without; the other one brings them.
FOREIGN = {"producer": ["aioboto3", "aiobotocore"], "consumer": ["httpx"]}

ALONE = """
import importlib.util, sys
service, *foreign = sys.argv[1:]
there = [name for name in foreign if importlib.util.find_spec(name)]
assert not there, f"{there} in the environment of {service}"
__import__(f"{service}.__main__")
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_a_service_imports_where_only_its_own_requirements_are(service: str) -> None:
    done = run([str(ensure(service)), "-c", ALONE, service, *FOREIGN[service]])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((bootstrap.ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_requirement_files_hash_everything_and_name_no_place(path: Path) -> None:
    text = path.read_text()
    for block in re.split(r"\n(?=[a-zA-Z0-9])", text.strip()):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ ", block), block
        assert "--hash=sha256:" in block
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**bootstrap.environment(), **variables},
        cwd=bootstrap.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of the test's own, whose environment `empty` has no packages: quick to set up."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "empty.txt").write_text("# nothing\n")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "STATE", tmp_path / ".local")
    monkeypatch.setattr(bootstrap, "SHELL", {**os.environ, "PYTHON": sys.executable})
    return tmp_path


def test_an_environment_is_made_once_and_again_when_it_no_longer_fits(sandbox: Path) -> None:
    interpreter = ensure("empty")
    mark = interpreter.parent / "mark"
    mark.touch()
    assert ensure("empty") == interpreter
    assert mark.exists(), "made twice"

    (sandbox / "requirements" / "empty.txt").write_text("# still nothing\n")
    ensure("empty")
    assert not mark.exists(), "not made again although its requirements changed"

    interpreter.unlink()
    interpreter.symlink_to("/no/such/python")
    ensure("empty")
    assert run([str(interpreter), "-c", "print('works')"]).stdout == "works\n"


def test_a_broken_set_up_is_told_and_starts_over(sandbox: Path) -> None:
    file = sandbox / "requirements" / "empty.txt"
    file.write_text("nothing==1\n")  # without a hash: pip refuses before it asks any registry
    with pytest.raises(SetupError, match=r"setting up .local/venv-empty-3\.\d+ failed \(exit code 1, "):
        ensure("empty")
    (folder,) = (sandbox / ".local").glob("venv-empty-*[0-9]")
    mark = folder / "mark"
    mark.touch()
    file.write_text("# nothing\n")
    ensure("empty")
    assert not mark.exists()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started hears SIGINT, though a shell that runs us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_set_up_that_is_interrupted_ends_quietly_with_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    script = str(shutil.copy(bootstrap.__file__, tmp_path))
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "empty.txt").write_text("# nothing\n")
    with subprocess.Popen(
        [sys.executable, script, "empty"],
        env={**bootstrap.environment(), "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("Setting up .local/venv-empty-")
        process.send_signal(number)
        assert process.stderr.read() == ""  # read to its end: nobody holds the pipe any more
    assert process.returncode == 130


def test_an_unknown_environment_is_told_with_the_known_ones(sandbox: Path) -> None:
    with pytest.raises(SetupError, match="no environment 'dve'; there are: empty"):
        ensure("dve")


def python_that(folder: Path, name: str, *answers: str) -> Path:
    """A stand-in for a Python that answers bootstrap's question so."""
    file = folder / name
    lines = "".join(f"echo '{answer}'\n" for answer in answers)
    file.write_text(f"#!/bin/sh\n{lines or 'exit 127'}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("pythons", "outcome"),
    [
        ({"python3.13": ("venv", "3.13"), "python3.11": ("venv", "3.11")}, "3.13"),
        ({"python3.13": (), "python3.12": ("venv", "3.12")}, "3.12"),  # a shim with nothing behind it
        ({"python3.12": ("no-venv", "3.12"), "python3.11": ("venv", "3.11")}, "3.11"),
        ({"python3": ("venv", "3.14")}, "3.14"),
        ({"python3": ("no-venv", "3.11")}, r"has no venv module; on Debian or Ubuntu: apt install python3\.11-venv"),
        ({"python3": ("venv", "3.9")}, r"Python 3\.11 or newer is needed, python3 is 3\.9"),
        ({}, r"no Python found as python3\.13, python3\.12, python3\.11, python3; Python 3\.11 or newer"),
    ],
)
def test_the_first_usable_python_is_taken_or_what_is_missing_is_told(
    pythons: dict[str, tuple[str, ...]], outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, answers in pythons.items():
        python_that(tmp_path, name, *answers, *(["/path/of/" + name] if answers else []))
    monkeypatch.setattr(bootstrap, "SHELL", {"PATH": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    if outcome[0] == "3":
        assert bootstrap.find_python()[1] == outcome
    else:
        with pytest.raises(SetupError, match=outcome) as caught:
            bootstrap.find_python()
        assert "\n" not in str(caught.value)


def test_a_named_python_is_the_only_one_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = python_that(tmp_path, "old", "venv", "3.8", "/old")
    monkeypatch.setattr(bootstrap, "SHELL", {**os.environ, "PYTHON": str(old)})
    with pytest.raises(SetupError, match=r"old is 3\.8; install one or name it: make … PYTHON="):
        bootstrap.find_python()


def test_only_the_registry_of_pips_settings_and_nothing_of_pythons_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = {
        "PATH": "/bin",
        "PIP_INDEX_URL": "here",
        "PIP_TARGET": "/elsewhere",
        "PIP_USER": "1",
        "PYTHONPATH": "/elsewhere",
        "PYTHONHOME": "/elsewhere",
        "PYTHONWARNINGS": "ignore",
        "PYTHONOPTIMIZE": "2",
        "PYTHON": "/python",
        "VIRTUAL_ENV": "/elsewhere",
    }
    monkeypatch.setattr(bootstrap, "SHELL", shell)
    kept = bootstrap.environment()
    assert {name: kept[name] for name in shell if name in kept} == {
        "PATH": "/bin",
        "PIP_INDEX_URL": "here",
        "PIP_USER": "0",
        "PYTHON": "/python",
    }


def test_the_shells_python_and_pip_settings_do_not_break_a_set_up(sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "venv.py").write_text("raise SystemExit('the wrong module')\n")
    bootstrap.SHELL.update(
        PYTHONPATH=str(tmp_path / "elsewhere"), PIP_TARGET=str(tmp_path / "target"), PIP_USER="1", PYTHONSAFEPATH="1"
    )
    assert ensure("empty").exists()
    assert not (tmp_path / "target").exists()


def bootstrap_main(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return run([python, "bootstrap.py", *arguments], PYTHON=sys.executable)


def test_arguments_run_in_the_environment_from_the_repositorys_root() -> None:
    code = "import os, sys; print(sys.prefix, os.getcwd(), sys.argv[1], os.environ.get('PYTHONPATH'))"
    done = run([sys.executable, "bootstrap.py", "consumer", "-c", code, "x y"], PYTHONPATH="/elsewhere")
    assert done.stdout.strip() == f"{ensure('consumer').parent.parent} {bootstrap.ROOT} x y None", done.stderr


def test_a_program_of_the_environment_is_run_by_name() -> None:
    assert bootstrap_main("consumer", "pip", "--version").stdout.startswith("pip ")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    script = str(shutil.copy(bootstrap.__file__, tmp_path))
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "empty.txt").write_text("# nothing\n")
    (tmp_path / ".local").write_text("a file where the folder should be")
    done = run([sys.executable, script, "empty"], PYTHON=sys.executable)
    assert done.returncode == 1
    assert re.fullmatch(r"bootstrap: .*; environments are made in .*/\.local: can it be written\?\n", done.stderr)


def test_misuse_is_one_line() -> None:
    for arguments, code in (((), 2), (("dve",), 1)):
        done = bootstrap_main(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
