"""Where to look while the demo runs: lines for the terminal.

Owns: their wording. Does not own: what they point to.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from demo.installation import ROOT
from demo.services import BATCH_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from demo.options import Options
    from demo.services import Services


def signposts(options: Options, services: Services, kafka: str, s3_url: str, bucket_folder: Path | None) -> list[str]:
    """One line for each place; `bucket_folder` None = the objects are no files here."""
    lines = [f"Kafka    {kafka}, topic {options.topic}", f"API      {services.market.url}prices"]
    lines += [f"status   {service.url}  {service.name}" for service in (services.producer, *services.consumers)]
    if bucket_folder is None:
        lines.append(f"bucket   {options.bucket} on {s3_url}")
    else:
        lines += [f"bucket   {bucket_folder}", f"query    {query(bucket_folder, options.topic)}"]
    return [*lines, f"A batch becomes an object when it is {BATCH_SECONDS} s old. Ctrl-C stops everything."]


def query(bucket_folder: Path, topic: str) -> str:
    """A shell command to paste, which counts the quotes per symbol; it brings DuckDB's command line along."""
    return f'python3 {shlex.quote(str(ROOT / "bootstrap.py"))} query duckdb -c "{sql(bucket_folder, topic)}"'


def sql(bucket_folder: Path, topic: str) -> str:
    """The JSON is read untyped: DuckDB's structs do not tell the vendor's `p` from its `P`."""
    files = f"{bucket_folder}/topic={topic}/**/*.jsonl.gz"
    return (
        "SELECT json->>'ticker' AS ticker, count(*) AS quotes, "  # noqa: S608 - for a person, about files of their own
        "max(CAST(json->'lastTrade'->>'p' AS DOUBLE)) AS highest "
        f"FROM read_ndjson_objects('{files}') GROUP BY ticker ORDER BY quotes DESC, ticker LIMIT 10"
    )
