"""Text for people: tables that fit the terminal, ages, colours. Sizes and durations: `units`.

Colours and cutting only on a terminal; a pipe gets every character of every cell.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, NamedTuple
from unicodedata import combining, east_asian_width

from moorage.units import format_duration

if TYPE_CHECKING:
    from moorage.protocol.api import Away

GAP = "  "
NARROWEST = 8
"""Columns below which a cell is no longer cut: it would say nothing."""
READABLE = 20
"""Columns to which names may be cut while other columns can still go."""
SENTENCE = 16
"""The same of the last column, which often is a sentence."""

CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
STATE_COLOURS = {
    "scheduled": "blue",
    "queued": "yellow",
    "starting": "cyan",
    "running": "green",
    "finishing": "cyan",
    "succeeded": "dim",
    "failed": "red",
    "cancelled": "dim",
    "up": "green",
    "down": "red",
    "draining": "yellow",
    "drained": "dim",
    "unhealthy": "red",
    "ready": "green",
    "connecting": "cyan",
    "checking": "cyan",
    "installing": "cyan",
    "unreachable": "red",
    "leaving": "yellow",
}


class Style(NamedTuple):
    """How to write to one stream."""

    colours: bool
    width: int | None
    """Columns of the terminal; None: no terminal, nothing is cut."""

    def paint(self, text: str, colour: str | None) -> str:
        """The text in a colour of CODES, where colours are on."""
        if not self.colours or not colour or not text:
            return text
        return f"\x1b[{CODES[colour]}m{text}\x1b[0m"

    def state(self, state: str) -> str:
        """The name of a state in its colour."""
        return self.paint(state, STATE_COLOURS.get(state, "red" if "(" in state else None))


def state_of(state: str, away: Away | None) -> str:
    """`running`, or `running (node lost)` and `running (no contact)` where nobody knows."""
    if away is None:
        return state
    return f"{state} ({'node lost' if away.state == 'lost' else 'no contact'})"


def style_of(stream: IO[str]) -> Style:
    """What the stream can show. NO_COLOR (https://no-color.org) turns colours off."""
    if not stream.isatty():
        return Style(colours=False, width=None)
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Style(colours=not plain, width=shutil.get_terminal_size().columns)


def age(then: float | None, now: float) -> str:
    """`3m ago`, `in 2h`, or a dash."""
    if then is None:
        return "-"
    seconds = now - then
    if abs(seconds) < 1:
        return "now"
    text = coarse(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def coarse(seconds: float) -> str:
    """The largest unit alone: `45s`, `3m`, `2h`, `9d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{int(seconds)}s"


def lasted(began: float | None, ended: float | None, now: float) -> str:
    """How long something took, or takes so far; a dash before it began."""
    if began is None:
        return "-"
    return format_duration(max(0.0, (now if ended is None else ended) - began))


def printable(text: str) -> str:
    """The text in one line without control characters: a name cannot drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\r\n" else "\ufffd" for c in text)


def cells(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns; an ellipsis stands for what is gone."""
    if cells(text) <= width:
        return text
    kept = ""
    for character in text:
        if cells(kept) + cells(character) > width - 1:
            break
        kept += character
    return kept + "…"


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style,
    *,
    state: int | None = None,
    drop: Sequence[str] = (),
) -> list[str]:
    """Lines of a table; `state` is the column that is painted by its value, and never cut while
    others can be. Where the terminal is too narrow, the widest columns give way as far as they
    can still be read, and then those of `drop` are left out, one after the other."""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([cells(header), *(cells(row[at]) for row in clean)])
        for at, header in enumerate(headers)
    ]
    kept = list(range(len(headers)))
    if style.width is not None:
        kept = _fit(widths, style.width, [headers.index(name) for name in drop], state)
    painted = style if style.colours and state is not None else None
    at = kept.index(state) if state is not None and state in kept else None
    width = [widths[column] for column in kept]
    lines = [style.paint(_line([headers[column] for column in kept], width), "bold")]
    for row in clean:
        lines.append(_line([row[column] for column in kept], width, painted, at))
    return lines


def _fit(widths: list[int], available: int, drop: Sequence[int], state: int | None) -> list[int]:
    """The columns that are kept, their widths cut until the line fits or nothing more can be."""
    kept, leaving = list(range(len(widths))), list(drop)
    least = [min(width, READABLE) for width in widths]
    least[-1] = min(widths[-1], SENTENCE)
    if state is not None:
        least[state] = widths[state]
    while leaving and _total(least, kept) > available:
        kept.remove(leaving.pop(0))
    if _total(least, kept) > available:
        least = [min(width, NARROWEST) for width in widths]
    while _total(widths, kept) > available:
        spare = [column for column in kept if widths[column] > least[column]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return kept


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[column] for column in kept) + len(GAP) * (len(kept) - 1)


def _line(
    row: Sequence[str], widths: list[int], style: Style | None = None, state: int | None = None
) -> str:
    parts = []
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cut(cell, width)
        padding = " " * (width - cells(text))
        if style is not None and at == state:
            text = style.state(text)
        parts.append(text + padding)
    return GAP.join(parts).rstrip()


def say(text: str) -> None:
    """A line for the user beside the result: on stderr, so that a pipe gets the result alone."""
    print(f"moorage: {text}", file=sys.stderr)
