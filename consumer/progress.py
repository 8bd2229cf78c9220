"""A bar on a terminal, while a long command works; nothing anywhere else.

Owns: the line and how often it is drawn. Does not own: what counts as progress.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_DRAW_SECONDS: Final = 0.2
_WIDTH: Final = 30
_CLEAR: Final = "\r\x1b[K"


class ProgressBar:
    """To be entered, so that the line is gone at the end. How far = offsets done of offsets expected."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
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
            self._stream.write(_CLEAR + self._line())
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

    def _line(self) -> str:
        seconds = max(self._clock() - self._began, 0.001)
        text = f"{self._objects:,} objects {self._what}, {self._objects / seconds:,.0f}/s"
        if self._bytes:
            text += f", {self._bytes / 1e6:,.0f} MB"
        if not self._expected:
            return text
        share = min(1.0, self._offsets / self._expected)
        full = round(share * _WIDTH)
        return f"[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%}  {text}"
