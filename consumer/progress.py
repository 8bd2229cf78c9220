"""A bar on a terminal, while a long command works; nothing anywhere else.

Owns: the line and how often it is drawn. Does not own: what counts as progress.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_DRAW_SECONDS: Final = 0.2
_WIDTH: Final = 30
_LEAST_WIDTH: Final = 10
_COLUMNS: Final = 80  # where the stream cannot tell
_CLEAR: Final = "\r\x1b[K"  # of one row: a line that wrapped would leave the others behind


class ProgressBar:
    """To be entered, so that the line is gone at the end. How far = offsets done of offsets expected."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._columns = columns or (lambda: _columns(stream))
        self._shown = stream.isatty()
        self._drawn_at = float("-inf")
        self._begin("", 0)

    def expect(self, offsets: int, *, what: str) -> None:
        """A new piece of work begins. 0 = its size is not known: no bar, only counts."""
        self._begin(what, offsets)

    def advance(self, offsets: int, body_bytes: int) -> None:
        """One more object is done."""
        self._objects += 1
        self._offsets += offsets
        self._bytes += body_bytes
        if self._shown and self._clock() - self._drawn_at >= _DRAW_SECONDS:
            self._drawn_at = self._clock()
            self._stream.write(_CLEAR + self._line(self._columns() - 1))
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def _begin(self, what: str, expected: int) -> None:
        self._what = what
        self._expected = expected
        self._began = self._clock()
        self._objects = self._offsets = self._bytes = 0

    def _line(self, width: int) -> str:
        """At most `width` characters: the bar gets what the text leaves, and is left out below _LEAST_WIDTH."""
        seconds = max(self._clock() - self._began, 0.001)
        text = f"{self._objects:,} objects {self._what}, {self._objects / seconds:,.0f}/s"
        if self._bytes:
            text += f", {self._bytes / 1e6:,.0f} MB"
        if not self._expected:
            return text[:width]
        share = min(1.0, self._offsets / self._expected)
        text = f"{share:4.0%}  {text}"
        bar = min(_WIDTH, width - len(text) - len("[] "))
        if bar >= _LEAST_WIDTH:
            full = round(share * bar)
            text = f"[{'#' * full}{'.' * (bar - full)}] {text}"
        return text[:width]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
