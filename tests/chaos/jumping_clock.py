"""`python -m tests.chaos.jumping_clock MODULE [ARGUMENT …]`: runs a module; its wall clock jumps when told to.

Owns: what the process and its libraries read as the time of day: `time.time`, `time.time_ns`, `datetime.now`, `utcnow`,
`today` (botocore signs requests by one of them, structlog stamps lines). Does not own: the monotonic clock, which no
change of the time of day moves, on any machine. The seconds to add lie in the file that CHAOS_CLOCK names, as a double;
they are read anew for each look at the clock.
"""

from __future__ import annotations

import datetime as dt
import mmap
import os
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "CHAOS_CLOCK"
_SHIFT = struct.Struct("d")


def set_shift(file: Path, seconds: float) -> None:
    """From now on the clock of the process that reads this file is that many seconds ahead."""
    if not file.exists():
        file.write_bytes(bytes(_SHIFT.size))
    with file.open("r+b") as opened:  # in place: the process has it mapped
        opened.write(_SHIFT.pack(seconds))


def main() -> None:
    with Path(os.environ.pop(VARIABLE)).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _shift_clock(lambda: float(_SHIFT.unpack_from(mapped)[0]))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _shift_clock(shift: Callable[[], float]) -> None:
    real_time, real_time_ns, real_datetime = time.time, time.time_ns, dt.datetime

    class Kind(type):
        """A moment made before the patch, or by C code, is a datetime as well."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real_datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real_datetime)

    class Shifted(real_datetime, metaclass=Kind):  # type: ignore[misc, valid-type]  # a class, whatever its name
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return real_datetime.now(tz) + dt.timedelta(seconds=shift())

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(dt.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    time.time = lambda: real_time() + shift()
    time.time_ns = lambda: real_time_ns() + int(shift() * 1e9)
    dt.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    main()
