"""One line on a terminal that shows how far something is; silent in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import IO

from moorage.cli.render import cut, style_of
from moorage.units import format_duration, format_size

REDRAW = 0.1
"""Seconds between two drawings; a faster line only costs CPU."""


class Progress:
    """Counts bytes against a total and draws `verb 3.1 MB of 12 MB, 40 MB/s, 2s left`.

    A context manager; the line is gone afterwards. `advance` may be called from several threads:
    a lost update shows for a tenth of a second.
    """

    def __init__(self, verb: str, total: int = 0, stream: IO[str] | None = None) -> None:
        self.verb = verb
        self.total = total
        self.done = 0
        self._stream = stream or sys.stderr
        self._style = style_of(self._stream)
        self._began = time.monotonic()
        self._drawn = 0.0

    def advance(self, amount: int) -> None:
        """`amount` more bytes are through."""
        self.done += amount
        now = time.monotonic()
        if self._style.width is not None and now - self._drawn >= REDRAW:
            self._drawn = now
            self._write(cut(self.text(now - self._began), self._style.width - 1))

    def text(self, elapsed: float) -> str:
        """The line after `elapsed` seconds."""
        if not self.total:
            return f"{self.verb} {format_size(self.done)}"
        parts = [f"{self.verb} {format_size(self.done)} of {format_size(self.total)}"]
        if elapsed > 0.5 and self.done:
            rate = self.done / elapsed
            parts.append(f"{format_size(rate)}/s")
            parts.append(f"{format_duration(max(0, self.total - self.done) / rate)} left")
        return ", ".join(parts)

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._write("")
