"""`python -m consumer verify [--deep] [--json] [--ends FILE]`: is every record of the topic in the bucket, once?

Owns: the command's options, its parts, its output, its exit code. Does not own: the audit (`auditor`), the words
(`findings`).

Invariants: the bucket, the topic and the group are only read; FILE is written whole or not at all, and the same bytes
whenever the chains are the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consumer.auditor import CONCURRENCY, Auditor
from consumer.connections import new_source, new_store
from consumer.findings import Fault, Findings, Kind, as_json, as_text
from consumer.log_reader import open_log_reader
from consumer.progress import ProgressBar
from shared.kafka import connection_options
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.settings import Settings

_READABLE: Final = 0o644


async def verify(settings: Settings, arguments: Sequence[str], *, write: Callable[[str], object] | None = None) -> int:
    """Audit and `write` (to stdout) the result: 0 = clean, 1 = faults or not finished. SettingsError as at a start."""
    options = parse(arguments)
    findings = await _audit(settings, options)
    if options.ends is not None:
        findings = save_ends(findings, Path(options.ends))
    (write or sys.stdout.write)(as_json(findings) if options.json else as_text(findings))
    return EXIT_STOPPED if findings.clean else EXIT_CRASHED


class Options(argparse.Namespace):
    """What an audit is asked for."""

    deep: bool
    json: bool
    ends: str | None


def parse(arguments: Sequence[str]) -> Options:
    """The command line. As argparse does it: SystemExit with 0 for --help, with 2 for what is no option."""
    parser = argparse.ArgumentParser(
        prog="python -m consumer verify",
        description="Audit the bucket against layout, committed offsets and topic. Exit code 0 = clean, 1 = not.",
    )
    parser.add_argument("--deep", action="store_true", help="compare every line with the topic's record")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument(
        "--ends",
        metavar="FILE",
        help="write topic,partition,offset of each chain's end, for kafka-consumer-groups --reset-offsets --from-file;"
        " refused when a chain has faults or the group has members",
    )
    return parser.parse_args(arguments, namespace=Options())


async def _audit(settings: Settings, options: Options) -> Findings:
    connection = connection_options(settings)
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(ProgressBar(sys.stderr))
        kafka = new_source(settings)
        stack.push_async_callback(kafka.leave)
        connections = settings.model_copy(update={"upload_concurrency": CONCURRENCY})
        store = await stack.enter_async_context(new_store(connections))
        open_reader = partial(open_log_reader, settings.kafka_topic, connection) if options.deep else None
        auditor = Auditor(
            settings,
            kafka=kafka,
            store=store,
            progress=progress,
            open_reader=open_reader,
            alone=options.ends is not None,
        )
        return await auditor.run()


def save_ends(findings: Findings, path: Path) -> Findings:
    """Write each chain's end to the file, unless a chain has faults. The findings say what became of it.

    An offset that somebody else committed is no fault here: the file is there to correct such.
    """
    forgiven = [fault for fault in findings.faults if fault.kind is Kind.UNSIGNED_COMMIT]
    faults = tuple(fault for fault in findings.faults if fault not in forgiven)
    notes = (*findings.notes, *(f"corrected by {path}: {fault.what}" for fault in forgiven))
    if faults:
        return replace(findings, notes=(*findings.notes, f"{path} is not written: there are faults"))
    try:
        _write_whole(path, ends_csv(findings))
    except OSError as error:
        fault = Fault(kind=Kind.INCOMPLETE, what=f"{path} cannot be written: {error}")
        return replace(findings, faults=(*findings.faults, fault))
    return replace(findings, faults=(), notes=(*notes, f"{path} has the ends of {len(findings.partitions)} chains"))


def ends_csv(findings: Findings) -> str:
    """As `kafka-consumer-groups --reset-offsets --from-file` reads it: topic,partition,offset, without a heading."""
    return "".join(f"{findings.topic},{row.partition},{row.chain_end}\n" for row in findings.partitions)


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing, under its name at once."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_READABLE)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
