"""`python -m consumer`, `… check`, `… verify`: the command line, and nothing else.

Exit codes: 0 = stopped as asked (check, verify: all well), 1 = crashed, gave up or found a
fault, 2 = settings or layout.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from consumer.settings import Settings
from shared import logs
from shared.lifecycle import EXIT_SETTINGS, run
from shared.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.service import Service

USAGE = """usage: python -m consumer            consume until SIGTERM or SIGINT
       python -m consumer check      settings, Kafka, topic, bucket, permissions, conditional put: a line each
       python -m consumer verify     audit the bucket against layout, offsets and topic (verify --help)
Settings are environment variables: see .env.example."""


def main(arguments: Sequence[str]) -> int:
    """The exit code of the command."""
    command, *rest = arguments or ["consume"]
    if command not in ("consume", "check", "verify") or (rest and command != "verify"):
        sys.stderr.write(USAGE + "\n")
        return EXIT_SETTINGS
    if command == "verify":
        from consumer.verify import parse  # noqa: PLC0415

        parse(rest)  # before the settings are read: --help needs none
    return run(lambda: _dispatch(command, rest))


async def _dispatch(command: str, rest: Sequence[str]) -> int:
    settings = load(Settings, os.environ)
    # stdout belongs to the result of a command.
    stream = sys.stdout if command == "consume" else sys.stderr
    logs.configure(settings.log_level, settings.log_format, "consumer", stream)
    # Imported when needed: each command starts with its own libraries only.
    if command == "check":
        from consumer.check import check  # noqa: PLC0415

        return await check(settings)
    if command == "verify":
        from consumer.verify import verify  # noqa: PLC0415

        return await verify(settings, rest)
    return await service_class()(settings).run()


def service_class() -> type[Service]:
    """Service, imported without a look for garbage in between, a tenth of a start: what imports make stays."""
    gc.disable()
    try:
        from consumer.service import Service  # noqa: PLC0415
    finally:
        gc.enable()
    return Service


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
