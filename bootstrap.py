"""Sets up a Python environment from its hashed requirement file and runs something in it; needs Python alone.

    python3 bootstrap.py NAME                       prints the path of its interpreter
    python3 bootstrap.py NAME -m MODULE [WORDS…]    its interpreter with these arguments
    python3 bootstrap.py NAME PROGRAM [WORDS…]      a program that is installed in it

Owns: .local/venv-NAME-X.Y, made from requirements/NAME.txt. Does not own: what the files list (`make lock`).

Invariants: an environment is used only when its stamp says that it was finished from this very requirement file; a
broken set-up starts over. Nothing of the shell's Python or pip settings gets in, but where pip finds its packages.
The file itself runs on Python 3.6, to be able to say that 3.11 is needed.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

if False:  # TYPE_CHECKING, which needs typing at run time
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
STATE = ROOT / ".local"
# As it was at import: tests shield themselves from the shell, but a set-up may need its proxy.
SHELL = dict(os.environ)
OLDEST = (3, 11)
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3")

# What of pip's variables may pass: where packages come from and how to get there.
_REGISTRY = {
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TRUSTED_HOST",
}
# pip reads these before its configuration files, so a `user = true` there does no harm.
_PIP = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
# What of Python's variables may pass: they change how it speaks, not what it imports or checks.
_HARMLESS = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING"}

_QUESTION = """
import sys
try:
    import ensurepip, venv
except ImportError:
    print("no-venv")
else:
    print("venv")
print("%d.%d" % sys.version_info[:2])
print(sys.executable)
"""


class SetupError(Exception):
    """The environment cannot be had; the text is one line that says what to do."""


def ensure(name: str) -> Path:
    """The interpreter of the environment `name` (requirements/NAME.txt), set up first when it is not there yet."""
    requirements = ROOT / "requirements" / (name + ".txt")
    if not requirements.is_file():
        known = ", ".join(sorted(path.stem for path in requirements.parent.glob("*.txt")))
        raise SetupError("no environment {!r}; there are: {}".format(name, known))
    python, version = find_python()
    folder = STATE / "venv-{}-{}".format(name, version)
    interpreter = folder / "bin" / "python"
    # The folder is in the stamp because an environment that was moved or copied does not work.
    wanted = "{}\n{}\n".format(hashlib.sha256(requirements.read_bytes()).hexdigest(), folder)
    stamp = folder / "finished"
    STATE.mkdir(exist_ok=True)
    with _lock(STATE / (folder.name + ".lock")):
        # The interpreter is a link to one that may have been uninstalled meanwhile.
        if not (stamp.is_file() and stamp.read_text() == wanted and interpreter.exists()):
            _make(python, folder, requirements)
            stamp.write_text(wanted)
    return interpreter


def environment() -> "dict[str, str]":
    """The shell's environment without what could change which code Python or pip take."""
    kept = {
        name: value
        for name, value in SHELL.items()
        if not (name.startswith("PYTHON") and name not in _HARMLESS and name != "PYTHON")
        and not (name.startswith("PIP_") and name not in _REGISTRY)
        and name not in {"VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    }
    kept.update(_PIP)
    return kept


def find_python() -> "tuple[str, str]":
    """Path and version (`3.13`) of the first usable Python; of the one in the variable PYTHON when it is set.

    Candidates are run rather than looked up: a pyenv shim is there for versions that are not switched on.
    """
    given = SHELL.get("PYTHON")
    too_old = without_venv = None
    for candidate in (given,) if given else CANDIDATES:
        answer = _ask(candidate)
        if answer is None:
            continue
        has_venv, version, path = answer
        if tuple(int(part) for part in version.split(".")) < OLDEST:
            too_old = too_old or (candidate, version)
        elif not has_venv:
            without_venv = without_venv or (candidate, version)
        else:
            return path, version
    if without_venv:
        raise SetupError(
            "{} ({}) has no venv module; on Debian or Ubuntu: apt install python{}-venv".format(
                *without_venv, without_venv[1]
            )
        )
    if too_old:
        raise SetupError(
            "Python 3.11 or newer is needed, {} is {}; install one or name it: make … PYTHON=/path/to/python3".format(
                *too_old
            )
        )
    raise SetupError("no Python found as {}; Python 3.11 or newer is needed".format(given or ", ".join(CANDIDATES)))


def _ask(candidate: str) -> "tuple[bool, str, str] | None":
    try:
        answer = subprocess.run(
            [candidate, "-I", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
            universal_newlines=True,
            env=environment(),
        ).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None  # not there, or a shim without a Python behind it: the next candidate may do
    return answer[0] == "venv", answer[1], answer[2]


def _make(python: str, folder: Path, requirements: Path) -> None:
    shown = folder.relative_to(ROOT)
    print("Setting up {} …".format(shown), file=sys.stderr, flush=True)
    if folder.exists():
        shutil.rmtree(str(folder))
    try:
        # In sessions of their own: Ctrl-C is for us, they would answer it with tracebacks.
        subprocess.run(
            [python, "-I", "-m", "venv", str(folder)],
            env=environment(),
            stdout=sys.stderr,
            check=True,
            start_new_session=True,
        )
        subprocess.run(
            [
                *(str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--progress-bar=off"),
                # The file lists everything, so nothing need be resolved.
                *("--no-deps", "--require-hashes", "-r", str(requirements)),
            ],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=True,
            start_new_session=True,
        )
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "setting up {} failed (exit code {}, the reason is above); is the package registry reachable? "
            "The next try starts over".format(shown, error.returncode)
        ) from None


@contextlib.contextmanager
def _lock(path: Path) -> "Iterator[None]":
    """One set-up of an environment at a time; a second process waits and then finds it finished."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: "list[str]") -> int:
    """Set up the environment; with more arguments become what they name, at the repository's root."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python3 bootstrap.py NAME [-m MODULE | PROGRAM] [WORDS…]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that pip ends with us
    try:
        interpreter = ensure(arguments[0])
        if len(arguments) == 1:
            print(interpreter)
            return 0
        # What it starts, and sets up in turn, shall be of the same version.
        variables = dict(environment(), PYTHON=find_python()[0])
    except SetupError as error:
        print("bootstrap: {}".format(error), file=sys.stderr)
        return 1
    except OSError as error:
        print("bootstrap: {}; environments are made in {}: can it be written?".format(error, STATE), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # the next try starts over
    command = [str(interpreter), *arguments[1:]]
    if not arguments[1].startswith("-"):
        command = [str(interpreter.parent / arguments[1]), *arguments[2:]]
    os.chdir(str(ROOT))
    os.execve(command[0], command, variables)
    raise AssertionError  # execve does not return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
