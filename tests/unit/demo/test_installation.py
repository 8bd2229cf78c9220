"""Steps of the set-up: their faults, and how they are ended early."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo import installation
from demo.installation import InstallationError


@pytest.fixture(autouse=True)
def not_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_abandoned", threading.Event())


def test_a_step_that_fails_is_told_with_what_it_printed() -> None:
    command = [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"]
    with pytest.raises(InstallationError, match=r"(?s)^tying a shoe failed with exit code 3 .*no luck"):
        installation.run(command, "tying a shoe")
    with pytest.raises(InstallationError, match=r"^tying a shoe failed: .*No such file"):
        installation.run(["/no/such/program"], "tying a shoe")


def test_after_abandon_running_steps_end_and_no_other_begins() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(installation.run, command, "waiting")
        while not installation._steps:
            assert not step.done()
            time.sleep(0.01)
        installation.abandon()
        with pytest.raises(InstallationError, match="waiting failed with exit code -15"):
            step.result(timeout=30)
    assert not installation._steps
    with pytest.raises(InstallationError, match="waiting: not begun"):
        installation.run(command, "waiting")
