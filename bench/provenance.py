"""What a report's figures stood on: machine, versions, date, command.

Owns: finding out. Does not own: which libraries matter (each report names its own).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from demo import kafka_jars

if TYPE_CHECKING:
    from collections.abc import Iterable


def about(command: str, libraries: Iterable[str], **more: str) -> dict[str, str]:
    """Names and values in the order in which a report tells them; `more` stands after Kafka."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()}",
        "python": platform.python_version(),
        "kafka": kafka_jars.VERSION,
        **more,
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
