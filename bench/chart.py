"""A bar chart as SVG text, readable on light and on dark pages.

Owns: its geometry and colours. Does not own: what the bars mean (`consumer_report`). Pure.

Invariants: bars share one scale that begins at 0; every bar's length is also written as a number. The chart brings its
own background, light or dark as the reader prefers, so nothing depends on the page's style.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, LABEL_WIDTH, NUMBER_WIDTH = 880, 350, 60
TOP, ROW, BAR, BOTTOM = 64, 26, 16, 34
STYLE = """\
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.note { font-size: 11.5px; fill: #57606a }
.ours { fill: #0969da } .measured { fill: #8c959f } .quoted { fill: #d0d7de }
.ours-name { font-weight: 600 }
.axis { stroke: #8c959f; stroke-width: 1 }
.page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .page { fill: #0d1117 }
  .ours { fill: #4493f8 } .measured { fill: #6e7681 } .quoted { fill: #3d444d } .axis { stroke: #6e7681 }
}"""


SWATCH, LETTER_WIDTH = 11, 6.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row. `shown`: the value in words; `kind`: a class of STYLE."""

    name: str
    value: float
    shown: str
    kind: str


def bars(title: str, kinds: Mapping[str, str], rows: Sequence[Bar], note: str) -> str:
    """The chart, the rows from top to bottom in the order given. `kinds`: what each kind means; `note` stands below."""
    height = TOP + ROW * len(rows) + BOTTOM
    scale = (WIDTH - LABEL_WIDTH - NUMBER_WIDTH) / max(row.value for row in rows)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(title)}>',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        *_legend(kinds),
    ]
    for number, row in enumerate(rows):
        parts += _row(row, TOP + ROW * number, scale)
    bottom = TOP + ROW * len(rows)
    parts.append(f'<line class="axis" x1="{LABEL_WIDTH}" y1="{TOP - 4}" x2="{LABEL_WIDTH}" y2="{bottom}"/>')
    parts += [f'<text class="note" x="16" y="{bottom + 20}">{escape(note)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _legend(kinds: Mapping[str, str]) -> list[str]:
    parts, left = [], 16.0
    for kind, meaning in kinds.items():
        parts.append(f'<rect class="{kind}" x="{left:.0f}" y="39" width="{SWATCH}" height="{SWATCH}"/>')
        parts.append(f'<text class="note" x="{left + SWATCH + 6:.0f}" y="48">{escape(meaning)}</text>')
        left += SWATCH + 6 + LETTER_WIDTH * len(meaning) + 18
    return parts


def _row(row: Bar, top: int, scale: float) -> list[str]:
    width = max(1.0, row.value * scale)
    baseline = top + BAR - 3
    name = ' class="ours-name"' if row.kind == "ours" else ""
    return [
        f'<text{name} x="{LABEL_WIDTH - 10}" y="{baseline}" text-anchor="end">{escape(row.name)}</text>',
        f'<rect class="{row.kind}" x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR}"/>',
        f'<text{name} x="{LABEL_WIDTH + width + 7:.1f}" y="{baseline}">{escape(row.shown)}</text>',
    ]
