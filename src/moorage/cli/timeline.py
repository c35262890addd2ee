"""Where the time of an attempt went: its phases as bars on one line of time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from moorage.cli.render import Style, lasted, printable
from moorage.protocol.agent import Phase

BAR = 30
"""Columns for the whole attempt."""


def timeline(phases: Sequence[Phase], style: Style, now: float) -> list[str]:
    """One line a phase: name, duration, bar, detail; several details get a line each below it. A
    phase too short to see gets one mark."""
    if not phases:
        return []
    begin = min(phase.began for phase in phases)
    end = max(now if phase.ended is None else phase.ended for phase in phases)
    widest = max(len(phase.name) for phase in phases)
    mark = "█" if _can_print("█") else "#"
    lines = []
    for phase in phases:
        bar = _bar(phase, begin, end, now, mark)
        colour = "green" if phase.name == "run" else "cyan"
        took = lasted(phase.began, phase.ended, now)
        line = f"{phase.name:<{widest}} {took:>7}  {style.paint(bar, colour)}"
        details = (phase.detail or ("" if phase.ended is not None else "...")).split("; ")
        if len(details) == 1:
            lines.append(f"{line}  {printable(details[0])}".rstrip())
        else:
            lines.append(line.rstrip())
            lines += [f"{'':<{widest}} {'':>7}  {printable(detail)}" for detail in details]
    return lines


def _bar(phase: Phase, begin: float, end: float, now: float, mark: str) -> str:
    scale = BAR / max(end - begin, 1e-6)
    start = min(BAR - 1, int((phase.began - begin) * scale))
    stop = now if phase.ended is None else phase.ended
    length = max(1, min(BAR - start, round((stop - phase.began) * scale)))
    return (" " * start + mark * length).ljust(BAR)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
