"""What the demo is asked to do: the DEMO_ variables.

Owns: their names, defaults and faults. Invariant: no other variable of the shell decides where the demo sends
anything.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.installation import ROOT, STATE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HELP = """\
usage: make demo        or: python3 bootstrap.py consumer -m demo

Runs the whole chain on this machine: a sample market API, the producer, Apache Kafka, two consumers, a local S3
server. Ctrl-C stops it. Everything it makes lies under .local/; delete .local/demo to begin anew.

DEMO_SECONDS=60          stop by itself after so many seconds, then verify the bucket against the topic; the exit code
                         says whether all was well
DEMO_SYMBOLS=517         quotes in each poll of the sample market API, up to 12,000
DEMO_KAFKA=HOST:PORT     use this Kafka instead of starting one; the topic is made (6 partitions) if it is not there
DEMO_TOPIC=task          the topic
DEMO_S3=URL              use this S3 server instead of starting one, with the four below
DEMO_S3_BUCKET=ticklake-demo    the bucket; it is made if it is not there
DEMO_S3_REGION=us-east-1
DEMO_S3_ACCESS_KEY=      \\ its credentials, wanted with DEMO_S3
DEMO_S3_SECRET_KEY=      /
DEMO_STATE=.local/demo   where its state lies; with servers of your own the default is a folder for each pair of them
"""
KNOWN = {
    "DEMO_SECONDS", "DEMO_SYMBOLS", "DEMO_KAFKA", "DEMO_TOPIC", "DEMO_S3", "DEMO_S3_BUCKET", "DEMO_S3_REGION",
    "DEMO_S3_ACCESS_KEY", "DEMO_S3_SECRET_KEY", "DEMO_STATE",
}  # fmt: skip


class OptionsError(Exception):
    """A DEMO_ variable cannot be used; the text is one line that names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`seconds` None = until stopped; `kafka`, `s3` None = start one."""

    seconds: float | None
    symbols: int
    kafka: str | None
    topic: str
    s3: str | None
    bucket: str
    region: str
    access_key: str
    secret_key: str
    state: str | None

    @property
    def folder(self) -> Path:
        """Where the state lies. One for each pair of servers: a chain belongs to one Kafka and one bucket."""
        if self.state is not None:
            return ROOT / self.state
        if self.kafka is None and self.s3 is None:
            return STATE / "demo"
        place = f"{self.kafka}|{self.s3}|{self.bucket}".encode()
        return STATE / f"demo-{hashlib.sha256(place).hexdigest()[:8]}"


def read(environ: Mapping[str, str]) -> Options:
    """The options; empty means unset. Raises OptionsError."""
    given = {name: value for name, value in environ.items() if name.startswith("DEMO_") and value}
    if unknown := sorted(given.keys() - KNOWN):
        raise OptionsError(f"{unknown[0]} is unknown; there are {', '.join(sorted(KNOWN))}")
    s3 = given.get("DEMO_S3")
    if s3 is not None and not s3.startswith(("http://", "https://")):
        raise OptionsError(f"DEMO_S3={s3}: a URL with http:// or https:// is wanted")
    missing = [name for name in ("DEMO_S3_ACCESS_KEY", "DEMO_S3_SECRET_KEY") if s3 and name not in given]
    if missing:
        raise OptionsError(f"{missing[0]} is wanted with DEMO_S3")
    return Options(
        seconds=_number(given, "DEMO_SECONDS", 1, 86_400 * 365) if "DEMO_SECONDS" in given else None,
        symbols=int(_number(given, "DEMO_SYMBOLS", 1, 12_000, default=517)),
        kafka=given.get("DEMO_KAFKA"),
        topic=given.get("DEMO_TOPIC", "task"),
        s3=s3,
        bucket=given.get("DEMO_S3_BUCKET", "ticklake-demo"),
        region=given.get("DEMO_S3_REGION", "us-east-1"),
        access_key=given.get("DEMO_S3_ACCESS_KEY", "ticklake-local"),
        secret_key=given.get("DEMO_S3_SECRET_KEY", "ticklake-local-secret"),
        state=given.get("DEMO_STATE"),
    )


def _number(given: Mapping[str, str], name: str, least: float, most: float, default: float = math.nan) -> float:
    text = given.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise OptionsError(f"{name}={text}: a number from {least:,.0f} to {most:,.0f} is wanted")
    return value
