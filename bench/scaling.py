"""The tables of docs/scaling.md: `python -m bench.scaling`, part of `make bench-scaling`.

Owns: which sizes are shown, the tables, their places in the document. Does not own: the formulas (`scale_model`), the
simulation (`scale_simulation`), the measurement (`partitions`), the words around the tables.

Invariant: the document holds what these tables say; tests/unit/test_scaling.py compares.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from bench import scale_model as model
from bench.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCUMENT: Final = ROOT / "docs" / "scaling.md"
FIGURES: Final = ROOT / "docs" / "benchmarks" / "scaling.json"
CONSUMER: Final = ROOT / "docs" / "benchmarks" / "consumer.json"  # what a million records take, once measured
GOAL_CPU_SECONDS: Final = 1.5  # until then
VALUE_BYTES: Final = 200
UTILISATION: Final = 0.6
ZONES: Final = 3
SIMULATED: Final = (1, 8, 64, 512)
SIMULATED_GAP_SECONDS: Final = 10.0
PRESSED_PARTITIONS, PRESSED_BYTES = 32, 1 << 20
GROUPS: Final = ((1, 1), (8, 2), (64, 4), (512, 4), (512, 16), (2_048, 16), (10_000, 20), (10_000, 80))


def tables(figures: Mapping[str, object], *, cpu_seconds: float | None = None) -> dict[str, str]:
    """Every table by its name in the document. `figures`: what docs/benchmarks/scaling.json holds.

    `cpu_seconds` a million 200-byte records, gzip, everything on; None = as measured, else the goal.
    """
    if cpu_seconds is None:
        cpu_seconds = measured_cpu_seconds()
    return {
        "cost": _cost(cpu_seconds),
        "tasks": _tasks(cpu_seconds),
        "objects": _objects(),
        "groups": _groups(),
        "memory": _memory(),
        "fitting": _fitting(),
        "recovery": _recovery(),
        "simulated": _simulated(figures),
        "measured": _measured(figures),
    }


def measured_cpu_seconds() -> float:
    """Of docs/benchmarks/consumer.json, to a tenth so that runs alike give pages alike; the goal where it has none."""
    cases = json.loads(CONSUMER.read_text()).get("cases", {}) if CONSUMER.exists() else {}
    found = cases.get("plain", {}).get("median_cpu_seconds_per_million", GOAL_CPU_SECONDS)
    return round(float(found), 1)


# ---- what the model says ---------------------------------------------------------------------------------------------


def _cost(cpu_seconds: float) -> str:
    x86, arm = model.Task(vcpus=1, gigabytes=2), model.Task(vcpus=1, gigabytes=2, arm=True)
    compute, on_arm = (
        model.compute_dollars(task, cpu_seconds=cpu_seconds, utilisation=UTILISATION) for task in (x86, arm)
    )
    plain, packed = (model.zone_dollars(VALUE_BYTES / ratio, zones=ZONES) for ratio in (1.0, model.RATIO["zstd"]))
    rows = [
        [
            f"{records:,}",
            _dollars(compute),
            _dollars(on_arm),
            _dollars(model.put_dollars(records)),
            _dollars(plain),
            _dollars(packed),
            _dollars(compute + model.put_dollars(records) + packed),
        ]
        for records in (100_000, 10_000, 1_000, 100, 1)
    ]
    head = [
        "records an object",
        "ECS x86",
        "ECS ARM",
        "puts",
        "zones, plain",
        "zones, zstd",
        "x86 + puts + zones, zstd",
    ]
    whose = "as measured" if CONSUMER.exists() else "the goal"
    said = f"With {cpu_seconds:g} CPU-s a million records ({whose}); ECS's part is in proportion to it."
    return f"{_table(head, rows)}\n\n{said}"


def _tasks(cpu_seconds: float) -> str:
    rows = []
    for vcpus, gigabytes in ((0.25, 1.0), (0.5, 1.0), (1.0, 2.0)):
        month = [
            model.Task(vcpus=vcpus, gigabytes=gigabytes, arm=arm).hour * model.MONTH_HOURS for arm in (False, True)
        ]
        rate = vcpus * UTILISATION / cpu_seconds * 1e6
        rows.append([f"{vcpus:g} vCPU, {gigabytes:g} GB", f"{rate:,.0f}", *(f"${each:.2f}" for each in month)])
    return _table(["task", f"records/s at {UTILISATION:.0%}", "x86, a month", "ARM, a month"], rows)


def _objects() -> str:
    counts = (1, 8, 64, 512, 10_000)
    rows = []
    for rate in (1, 100, 10_000, 100_000, 1_000_000):
        cells = [f"{rate:,}"]
        for partitions in counts:
            a_day = model.objects_a_day(rate, VALUE_BYTES, partitions)
            cells.append(f"{_count(a_day)} of {model.DAY_SECONDS * rate / a_day:,.0f}")
        rows.append(cells)
    return _table(["records/s", *(f"{count:,} partition{'s' * (count > 1)}" for count in counts)], rows)


def _groups() -> str:
    rows = []
    for partitions, members in GROUPS:
        still = model.standstill(partitions, members)
        each = math.ceil(partitions / members)
        rows.append(
            [
                f"{partitions:,} / {members}",
                f"{each:,}",
                f"{still.seconds:.1f} s",
                f"{still.give_back:.1f} s",
                f"{still.probe:.1f} s",
                f"{partitions:,}",
                f"{model.deploy_objects(partitions, members):,}",
                f"{min(partitions, model.puts_a_second(members)):,.0f}",
            ]
        )
    head = [
        "partitions / members",
        "each",
        "standstill",
        "giving back",
        "probing",
        "objects cut",
        "by a deploy",
        "puts/s",
    ]
    return _table(head, rows)


def _memory() -> str:
    rows = []
    for partitions in (1, 8, 64, 128, 512, 1_024, 2_048, 10_000):
        idle = model.IDLE_CPU_SHARE * partitions
        cells = [f"{partitions:,}", _size(model.process_bytes(partitions, "none", 0)), f"{idle:.1%}"]
        for compression in ("gzip", "zstd"):
            cells.append(_size(partitions * model.open_bytes(compression, VALUE_BYTES)))
            taken = model.taken_at_pressure(compression, partitions)
            cells.append(_pressed(taken, compression))
        rows.append(cells)
    head = [
        "partitions of a member",
        "idle, resident",
        "idle, of a core",
        "gzip: one record each",
        "objects",
        "zstd: one record each",
        "objects",
    ]
    return _table(head, rows)


def _pressed(taken: float, compression: str) -> str:
    """An object's size where memory ends the batches, if it does."""
    if taken >= model.BATCH_BYTES - 1:
        return "whole"
    return _size(taken / model.RATIO[compression]) if taken > 1 else "a poll's"


def _fitting() -> str:
    rows = [
        [_size(taken), *(f"{model.partitions_at_limit(name, taken):,}" for name in ("gzip", "zstd"))]
        for taken in (4 * model.KIB, 64 * model.KIB, 454 * model.KIB, 2 * model.MIB, 8 * model.MIB, 16 * model.MIB)
    ]
    return _table(["taken by each open batch", "gzip: partitions", "zstd: partitions"], rows)


def _recovery() -> str:
    rows = [
        [f"{a_day:,}", f"{partitions:,}", _seconds(model.recovery_seconds(a_day, partitions))]
        for a_day, partitions in ((1_440, 1), (11_520, 8), (92_160, 64), (737_280, 128), (14_400_000, 500))
    ]
    return _table(["objects a day", "partitions of the member", "until it reads"], rows)


# ---- what was simulated and measured ---------------------------------------------------------------------------------


def _simulated(figures: Mapping[str, object]) -> str:
    found = _part(figures, "simulation")
    rows = []
    for seen in _list(found, "worlds"):
        partitions, gap = int(_number(seen, "partitions")), _number(seen, "gap_seconds")
        back = math.ceil(partitions / model.UPLOADS) * model.PUT_SECONDS  # one member had them all
        rows.append(
            [
                f"{partitions:,}",
                f"{_number(seen, 'cycle_seconds'):.1f} s",
                f"{model.cycle_seconds(1 / gap, VALUE_BYTES):.1f} s",
                f"{_number(seen, 'busiest_start'):.0f}",
                f"{_number(seen, 'busiest_steady'):.0f}",
                f"{_number(seen, 'busiest_hour'):.0f}",
                f"{min(partitions, model.puts_a_second(1)):.0f}",
                f"{_number(seen, 'standstill_seconds'):.1f} s",
                f"{back:.1f} s",
                f"{_number(seen, 'cut_objects'):.0f}",
            ]
        )
    head = [
        "partitions",
        "cycle",
        "formula",
        "start",
        "steady",
        "hour",
        "bound",
        "standstill",
        "formula",
        "objects cut",
    ]
    pressed = _number(found, "pressed_object_bytes")
    formula = model.taken_at_pressure("none", PRESSED_PARTITIONS, PRESSED_BYTES)
    said = (
        f"Objects where only memory ends them, {PRESSED_PARTITIONS} partitions in {_size(PRESSED_BYTES)}, no codec: "
        f"{pressed:,.0f} bytes; formula {formula:,.0f}."
    )
    return f"{_table(head, rows)}\n\n{said}"


def _measured(figures: Mapping[str, object]) -> str:
    rows = []
    for name, run in _part(figures, "runs").items():
        case = _part(run, "case")
        partitions, compression = int(_number(case, "partitions")), str(case["compression"])
        taken = (_number(case, "value_bytes") + _number(case, "records")) / partitions
        formula = model.process_bytes(partitions, compression, taken)
        limit = _number(case, "memory_limit_bytes")
        if "limit reached" in name:
            formula -= max(0.0, partitions * model.open_bytes(compression, taken) - limit)
        rows.append(
            [
                f"{partitions}: {name}",
                _size(taken),
                _size(limit),
                _size(_number(run, "buffered_peak_bytes")),
                _size(_number(run, "resident_peak_bytes")),
                _size(formula),
                f"{_number(run, 'read_seconds'):.1f} s",
                f"{_number(run, 'idle_core_percent'):.1f} %",
                f"{_number(run, 'give_back_seconds'):.1f} s",
                f"{_number(run, 'objects'):,.0f}",
            ]
        )
    head = [
        "partitions: case", "taken each", "limit", "buffered, as counted", "peak RSS", "formula",
        "start to all read", "idle: of a core", "giving back", "objects",
    ]  # fmt: skip
    second = _part(figures, "rebalance")
    said = (
        f"A second member joins, {_number(_part(second, 'case'), 'partitions'):.0f} partitions with open batches: "
        f"{_number(second, 'give_back_seconds'):.1f} s until everything was put and committed, "
        f"{_number(second, 'joined_seconds'):.2f} s until both had their partitions, at most "
        f"{_number(second, 'located_seconds'):.1f} s until every chain's end was known."
    )
    about = _part(figures, "about")
    stood_on = ", ".join(f"{name} {about[name]}" for name in ("date", "machine", "python", "kafka", "aiokafka", "s3"))
    return f"{_table(head, rows)}\n\n{said}\n\nMeasured on: {stood_on}."


# ---- words and numbers -----------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *("---:" for _ in head[1:])]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))
        .replace("| ---: ", "|---:")
        .replace("| --- ", "|---")
        .replace("---: |", "---:|")
    )


def _dollars(value: float) -> str:
    return f"${value:.2f}" if value >= 1 else f"${value:.2g}" if value >= 0.001 else f"${value:.6f}"  # noqa: PLR2004 -- digits


def _size(value: float) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            number = value / size
            return f"{number:.{0 if number >= 10 else 1}f} {unit}"  # noqa: PLR2004 -- digits
    return f"{value:.0f} B"


def _count(value: float) -> str:
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"  # noqa: PLR2004 -- digits


def _seconds(value: float) -> str:
    return f"{value / 60:.0f} min" if value >= 120 else f"{value:.0f} s"  # noqa: PLR2004 -- as people say it


def _part(found: object, name: str) -> Mapping[str, object]:
    part = found[name] if isinstance(found, dict) else None
    if not isinstance(part, dict):
        message = f"docs/benchmarks/scaling.json has no {name}: run make bench-scaling"
        raise TypeError(message)
    return part


def _list(found: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    part = found[name]
    return part if isinstance(part, list) else ()


def _number(found: object, name: str) -> float:
    return float(str(found[name])) if isinstance(found, dict) else 0.0


# ---- the document ----------------------------------------------------------------------------------------------------


def with_tables(text: str, found: Mapping[str, str]) -> str:
    """The document with each table between its markers. KeyError for a marker without a table."""
    return re.sub(
        r"(<!-- table ([a-z]+) -->\n).*?(<!-- end -->)",
        lambda place: f"{place[1]}{found[place[2]]}\n{place[3]}",
        text,
        flags=re.DOTALL,
    )


def write(found: Mapping[str, str]) -> None:
    """The tables into docs/scaling.md."""
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), found))


def simulate() -> dict[str, object]:
    """The simulation anew (a minute)."""
    from bench import scale_simulation  # noqa: PLC0415 -- brings the tests' fakes, which printing does not need

    return {
        "worlds": [asdict(scale_simulation.simulate(partitions, SIMULATED_GAP_SECONDS)) for partitions in SIMULATED],
        "pressed_object_bytes": scale_simulation.simulate_pressure(PRESSED_PARTITIONS, PRESSED_BYTES),
    }


def main(given: Sequence[str]) -> int:
    """Print the tables; with --write put them into the document."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description="The tables of docs/scaling.md.")
    parser.add_argument("--simulate", action="store_true", help="run the simulation anew and keep its figures")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    options = parser.parse_args(given)
    figures = json.loads(FIGURES.read_text())
    if options.simulate:
        figures["simulation"] = simulate()
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    found = tables(figures)
    if options.write:
        write(found)
    for name, table in found.items():
        sys.stdout.write(f"## {name}\n\n{table}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
