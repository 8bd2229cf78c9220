"""The demo's command line. Runs under any Python >= 3.11: it looks for an environment that has what it needs first."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys

from demo import environment, installation, options

# Topic, bucket and metrics are handled with the consumer's own packages.
NEEDED = ("aioboto3", "aiokafka", "aiohttp", "prometheus_client")


def main(arguments: list[str]) -> int:
    """Exit code 2 = it was called wrongly."""
    if arguments:
        print(options.HELP, end="", file=sys.stdout if arguments[0] in {"-h", "--help"} else sys.stderr)
        return 0 if arguments[0] in {"-h", "--help"} else 2
    try:
        chosen = options.read(os.environ)
    except options.OptionsError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    if not all(importlib.util.find_spec(name) for name in NEEDED):
        os.chdir(installation.ROOT)
        os.execv(sys.executable, [sys.executable, "bootstrap.py", "consumer", "-m", "demo"])  # noqa: S606
    environment.shield(os.environ)
    from demo import stack  # noqa: PLC0415 - needs the packages looked for above

    return asyncio.run(stack.run(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
