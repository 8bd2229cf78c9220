"""The report of the starts, for people (Markdown) and for machines (JSON).

Owns: the goals, the tables, the words. Does not own: measuring (`startup`), what the machine is (`provenance`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import provenance
from bench.ground import s3_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.startup import Figures, Moment

COMMAND: Final = "make bench-startup"
LIBRARIES: Final = ("aioboto3", "aiokafka", "pydantic-settings", "uvloop")
FIRST: Final = "first"
AGAIN: Final = "again"
DEFAULT_BROKER: Final = "-default-broker"
MB: Final = 1_000_000
FETCHED: Final = "Received message"
_CASES: Final = {
    AGAIN: "layout and group are there",
    FIRST: "neither layout nor group yet",
    AGAIN + DEFAULT_BROKER: "layout and group are there; a broker with Kafka's defaults",
    FIRST + DEFAULT_BROKER: "neither layout nor group yet; a broker with Kafka's defaults",
}
_MOMENTS: Final = {
    "Starting": "imports and settings",
    "Layout agreed": "connected to Kafka, S3 client made, layout agreed",
    "Partitions assigned": "joined the group",
    FETCHED: "first fetch answered",
    "Uploaded": "first object stored",
}

INTRODUCTION: Final = f"""\
Made by `{COMMAND}`: medians of {{runs}} runs and their spread, of `python -m consumer` in an environment with nothing
but the packages of its image. 8 partitions with a record to read in each."""
HOW: Final = """\
*Start to first fetch*: from spawning the process to reading its first line `Received message`, which says that a fetch
was answered with records and they were handed on (`BATCH_MAX_RECORDS=1`, so each record is told). Broker and S3 server
run on the same machine, so their answers take milliseconds; each of the four to nine requests to S3 and of the about
fifteen to Kafka that lie before it costs a round trip more elsewhere. A broker with Kafka's defaults waits
`group.initial.rebalance.delay.ms` = 3 s when somebody joins an *empty* group, to give the whole group its partitions at
once: with it a start of the only replica takes 3 s longer, and nothing in a client can shorten that. The other rows
are of a broker that has it at 0.

*Imports*: CPU time, user and system, of an interpreter that imports what the service imports and ends, beside one
that imports the libraries alone: what our own modules add; the median of pairs, three of them a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    text: str
    values: Sequence[float]
    unit: str
    digits: int
    goal: str = ""

    def __str__(self) -> str:
        middle, low, high = (f"{f(self.values):,.{self.digits}f}" for f in (median, min, max))
        return f"| {self.text} | {self.goal} | {middle} {self.unit} | {low} … {high} |"


def write(figures: Figures, folder: Path) -> None:
    """`startup.md` and `startup.json` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    about = provenance.about(COMMAND, LIBRARIES, s3=s3_name("ministack"))
    (folder / "startup.md").write_text(markdown(figures, about))
    (folder / "startup.json").write_text(json.dumps({"about": about, **asdict(figures)}, indent=2) + "\n")


def markdown(figures: Figures, about: Mapping[str, str]) -> str:
    """The report as text."""
    runs = min(len(each) for each in figures.starts.values())
    parts = [
        "# A start, measured",
        INTRODUCTION.format(runs=runs),
        _table("figure", [*_fetched(figures), *_imports(figures)]),
        *(part for case, title in _CASES.items() for part in _line_of_time(title, figures.starts[case])),
        HOW,
        "\n".join(f"- {name}: {value}" for name, value in about.items()) + "\n",
    ]
    return "\n\n".join(parts)


def line(moments: Mapping[str, Moment]) -> str:
    """A start in one line."""
    shown = ", ".join(f"{event} {moment.seconds:.2f} s" for event, moment in moments.items())
    last = moments["Uploaded"]
    return f"{shown}; {last.cpu_seconds:.2f} CPU-s, {last.memory_bytes / MB:.0f} MB"


def _table(first: str, rows: Sequence[_Row]) -> str:
    return "\n".join((f"| {first} | goal | median | spread |", "|---|---:|---:|---|", *map(str, rows)))


def _fetched(figures: Figures) -> list[_Row]:
    return [
        _Row(
            text=f"start to first fetch: {title}",
            values=[moments[FETCHED].seconds for moments in figures.starts[case]],
            unit="s",
            digits=2,
            goal="≤ 4 s",
        )
        for case, title in _CASES.items()
    ]


def _imports(figures: Figures) -> list[_Row]:
    rows = []
    for service, runs in figures.imports.items():
        more = [ours.cpu_seconds - bare.cpu_seconds for ours, bare in runs]
        bare = [bare.cpu_seconds for _, bare in runs]
        memory = [ours.memory_bytes / MB for ours, _ in runs]
        rows += [
            _Row(text=f"imports of the {service}: libraries alone", values=bare, unit="s", digits=2),
            _Row(text=f"imports of the {service}: ours more", values=more, unit="s", digits=2, goal="≤ 0.15 s"),
            _Row(text=f"imports of the {service}: memory", values=memory, unit="MB", digits=0),
        ]
    return rows


def _line_of_time(title: str, starts: Sequence[Mapping[str, Moment]]) -> tuple[str, str]:
    takes: dict[str, tuple[Callable[[Moment], float], int]] = {
        "s": (lambda moment: moment.seconds, 2),
        "CPU-s": (lambda moment: moment.cpu_seconds, 2),
        "MB": (lambda moment: moment.memory_bytes / MB, 0),
    }
    rows = []
    for event, text in _MOMENTS.items():
        cells = []
        for unit, (take, digits) in takes.items():
            values = [take(moments[event]) for moments in starts]
            low, high = (f"{f(values):.{digits}f}" for f in (min, max))
            cells.append(f"{median(values):.{digits}f} {unit} ({low} … {high})")
        rows.append(f"| {text} | {' | '.join(cells)} |")
    head = "| by then | since the spawn | CPU | memory |\n|---|---|---|---|\n"
    return f"## {title[0].upper()}{title[1:]}", head + "\n".join(rows)
