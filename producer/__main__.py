"""`python -m producer [check | once]`: polls an HTTP API and publishes its records to Kafka.

Owns: the command line. Exit codes: 0 done, 1 a fault, 2 settings or command line.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from producer import service
from producer.check import check
from producer.settings import Settings
from producer.surroundings import real_surroundings
from shared import logs
from shared.lifecycle import EXIT_SETTINGS, run
from shared.settings import load

USAGE = """usage: python -m producer           poll and publish until SIGTERM or SIGINT
       python -m producer check     settings, API, broker, topic: one line each
       python -m producer once      one poll, published and acknowledged
Settings are environment variables: see .env.example.
"""


async def _run(command: str) -> int:
    settings = load(Settings, os.environ)
    # The answer of `check` is its lines on stdout; what the libraries say meanwhile goes elsewhere.
    stream = sys.stderr if command == "check" else None
    logs.configure(settings.log_level, settings.log_format, "producer", stream)
    for warning in settings.warnings:
        logs.get_logger(__name__).warning("Odd setting", reason=warning)
    surroundings = real_surroundings()
    if command == "check":
        return await check(settings, service.assemble(settings, surroundings), sys.stdout.write)
    return await (service.once if command == "once" else service.serve)(settings, surroundings)


def main(arguments: list[str]) -> int:
    """The exit code of the command."""
    command = arguments[0] if arguments else "serve"
    if len(arguments) > 1 or command not in {"serve", "check", "once"}:
        sys.stderr.write(USAGE)
        return EXIT_SETTINGS
    return run(partial(_run, command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
