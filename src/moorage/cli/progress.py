"""One line on a terminal that shows how far something is; silent in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO

from moorage.cli.render import cut, style_of
from moorage.units import format_duration, format_size

REDRAW = 0.1
"""Seconds between two drawings; a faster line only costs CPU."""


class Bar:
    """Draws `uploading 3.1 MB of 12 MB, 40 MB/s, 2s left` on a terminal, nothing in a pipe.

    A context manager; the line is gone afterwards. `show` may be called from several threads, one
    at a time.
    """

    def __init__(
        self,
        verb: str,
        stream: IO[str] | None = None,
        amount: Callable[[float], str] = format_size,
    ) -> None:
        self.verb = verb
        self._stream = stream or sys.stderr
        self._amount = amount
        self._style = style_of(self._stream)
        self._began = time.monotonic()
        self._drawn = 0.0
        self._note = ""

    @property
    def drawn(self) -> bool:
        """Is there a terminal to draw on?"""
        return self._style.width is not None

    def note(self, text: str) -> None:
        """Shown in place of how far it is, until it is empty."""
        self._note = text
        if self._style.width is not None and text:
            self._drawn = time.monotonic()
            self._write(cut(text, self._style.width - 1))

    def show(self, done: int, total: int) -> None:
        """`done` of `total` bytes, or whatever is counted, are through; 0: nobody knows how many
        there are."""
        now = time.monotonic()
        if self._style.width is not None and now - self._drawn >= REDRAW and not self._note:
            self._drawn = now
            text = self.text(done, total, now - self._began)
            self._write(cut(text, self._style.width - 1))

    def text(self, done: int, total: int, elapsed: float) -> str:
        """The line after `elapsed` seconds."""
        parts = [self.verb]
        if done or total:
            parts[0] += f" {self._amount(done)}" + (f" of {self._amount(total)}" if total else "")
        if elapsed > 0.5 and done:
            rate = done / elapsed
            parts.append(f"{self._amount(rate)}/s")
            if total:
                parts.append(f"{format_duration(max(0, total - done) / rate)} left")
        return ", ".join(parts)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # who has closed the terminal may still want the work done
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._write("")
