"""The status page as text: what a process is doing, for a person with a browser.

Owns: the shape of a status and its HTML. Does not own: what is shown (each service's probe does) or who serves it.
Pure. Invariants: everything shown is escaped; the page needs nothing else (no script, no other file).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REFRESH_SECONDS = 5

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}"
    "h1{font-size:1.3rem}h2{font-size:1rem;margin-top:1.5rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}"
    "th{font-weight:600;border-bottom:1px solid #bbb}td{border-bottom:1px solid #eee;font-variant-numeric:tabular-nums}"
    ".ok{color:#176b2c}.bad{color:#a31515}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.ok{color:#6c6}.bad{color:#f77}"
    "td{border-color:#333}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page; each row as long as `columns`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a service tells of itself: single facts, then tables."""

    facts: Mapping[str, object] = field(default_factory=dict)
    tables: Sequence[Table] = ()


def render(service: str, status: Status, not_alive: str | None, not_ready: Sequence[str]) -> str:
    """The whole HTML document."""
    title = f"ticklake {service}"
    state = [("bad", f"not alive: {not_alive}")] if not_alive else []
    state += [("bad", f"not ready: {reason}") for reason in not_ready] or [("ok", "ready")]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f'<meta http-equiv=refresh content="{REFRESH_SECONDS}">',
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        *(f"<p class={kind}>{escape(text)}</p>" for kind, text in state),
    ]
    if status.facts:
        parts += ["<table>", *(_row("td", pair) for pair in status.facts.items()), "</table>"]
    for table in status.tables:
        parts += [f"<h2>{escape(table.title)}</h2><table>", _row("th", table.columns)]
        parts += [*(_row("td", row) for row in table.rows), "</table>"]
    parts.append("<p><a href=/metrics>metrics</a> <a href=/readyz>readyz</a> <a href=/healthz>healthz</a></p></html>")
    return "\n".join(parts)


def _row(cell: str, values: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(_text(value))}</{cell}>' for value in values)}</tr>"


def _text(value: object) -> str:
    return "" if value is None else f"{value:,}" if type(value) is int else str(value)
