"""The report of a run, for machines (JSON) and for people (Markdown).

Owns: its form, the versions. Does not own: figures (`figures`, scenarios).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from demo import kafka_jars
from demo.s3_server import VERSITYGW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.runner import Outcome

CLIENTS = ("aiokafka", "aiobotocore", "aiohttp")
ROOT = Path(__file__).parents[2]
# What is shown in the table; everything else stands below it.
COLUMNS: Mapping[str, str] = {
    "records": "records",
    "objects": "objects",
    "mean_object_bytes": "mean object (bytes)",
    "hand_over_median_seconds": "hand-over, median (s)",
    "hand_over_beyond_kafka_longest_seconds": "beyond Kafka's waits, longest (s)",
    "recovery_seconds": "recovery to lag 0 (s)",
    "adopted": "adopted",
    "own_answers_lost": "own answers lost",
    "put_retries": "puts retried",
    "faults_injected": "faults injected",
}
HOW = """\
*Hand-over*: from the old owner's log line `Partitions revoked` (what was open is put and committed) to the first record
of the new owner, which is its first `Uploaded` line's time less the line's `seconds` (seal to stored) less
BATCH_MAX_SECONDS (first record to seal). *Beyond Kafka's waits*: the same, from the moment the last member began to
give back (its `Partitions revoked` less that line's `seconds`): until it has heard of the rebalance, Kafka waits. Not
told where a member was killed. Some new owner's first object was sealed by something else than its timer, so not every
hand-over is measured: `hand_overs_measured` of `hand_overs`. A fresh process that starts when the old owner has gone is
no hand-over, nor is a partition that stalls before its first object. *Recovery to lag 0*: from the moment the fault was
taken away (for a server that was killed: from the moment it was ready again; its own start is not counted) until every
chain in the bucket had reached the log's end of that moment, polled every 0.25 s. *Adopted*: objects found written
already by another writer or an earlier self, each a duplicate that was prevented. *Own answers lost*: puts whose answer
was lost, recognized as the process's own. *Catch-up*: as recovery, from the end of the load.
"""


def versions(s3_kind: str) -> dict[str, str]:
    """What the run stood on."""
    return {
        "ticklake": _git("rev-parse", "--short", "HEAD") + (", changed since" if _git("status", "--porcelain") else ""),
        "python": platform.python_version(),
        "kafka": kafka_jars.VERSION,
        "s3": s3_version(s3_kind),
        **{name: importlib.metadata.version(name) for name in CLIENTS},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def s3_version(kind: str) -> str:
    """The S3 server with its pinned version."""
    if kind == "versitygw":
        return f"versitygw {VERSITYGW.rsplit('@v')[-1]}"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["s3"]
    return next(str(pinned).replace("==", " ") for pinned in extras if pinned.startswith(kind))


def write(folder: Path, outcomes: Sequence[Outcome], *, seed: int, about: Mapping[str, str]) -> None:
    """`report.json` and `report.md` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"seed": seed, "versions": dict(about), "scenarios": [asdict(outcome) for outcome in outcomes]}
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n")
    (folder / "report.md").write_text(_markdown(outcomes, seed, about))


def line(outcome: Outcome) -> str:
    """One line for the terminal."""
    if outcome.skipped:
        return f"SKIPPED {outcome.name}: {outcome.skipped}"
    known = [
        f"{name.removesuffix('_seconds')} {_shown(outcome.figures[name])}"
        for name in COLUMNS
        if outcome.figures.get(name)
    ]
    return f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.name:28} {outcome.seconds:6.1f} s  {', '.join(known)}"


def verdict(outcomes: Sequence[Outcome]) -> str:
    """How all went, in one line; a skipped scenario proves nothing, so it is named and not counted as passed."""
    failed = [outcome.name for outcome in outcomes if outcome.failure]
    skipped = [outcome.name for outcome in outcomes if outcome.skipped]
    parts = [f"{len(failed)} of {len(outcomes)} FAILED: {' '.join(failed)}"] if failed else []
    parts.append(f"{sum(outcome.passed for outcome in outcomes)} passed")
    if skipped:
        parts.append(f"{len(skipped)} SKIPPED: {' '.join(skipped)}")
    return ", ".join(parts)


def _markdown(outcomes: Sequence[Outcome], seed: int, about: Mapping[str, str]) -> str:
    passed = sum(outcome.passed for outcome in outcomes)
    parts = [
        f"# Chaos: {passed} of {len(outcomes)} scenarios passed",
        f"Seed {seed}; {', '.join(f'{name} {version}' for name, version in about.items())}.",
        "| scenario | | seconds | "
        + " | ".join(COLUMNS.values())
        + " |\n"
        + "|---|---|"
        + "---:|" * (len(COLUMNS) + 1)
        + "\n"
        + "\n".join(_row(outcome) for outcome in outcomes),
        HOW,
    ]
    for outcome in outcomes:
        rest = [f"- {name}: {_shown(value)}" for name, value in outcome.figures.items() if name not in COLUMNS]
        rest += [f"- fault {name}: {count}" for name, count in sorted(outcome.faults.items())]
        parts.append(f"## {outcome.name}\n\n{outcome.tells}\n\n" + "\n".join(rest))
        if outcome.skipped:
            parts.append(f"Skipped: {outcome.skipped}")
        if outcome.failure:
            parts.append(f"Failed; everything lies in `{outcome.folder}`.\n\n```text\n{outcome.failure[:20_000]}\n```")
    return "\n\n".join(parts) + "\n"


def _row(outcome: Outcome) -> str:
    cells = [_shown(outcome.figures.get(name, "")) for name in COLUMNS]
    return f"| {outcome.name} | {_word(outcome)} | {outcome.seconds} | {' | '.join(cells)} |"


def _word(outcome: Outcome) -> str:
    return "skipped" if outcome.skipped else "ok" if outcome.passed else "FAILED"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip()
