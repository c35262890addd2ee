"""Numbers of runs, jobs and events: how far to go on where it is not known which were used."""

from __future__ import annotations

MARGIN = 1_000_000
"""Above the highest that is known: nobody has used so many without a trace of them."""
_LARGEST = 2**62


def is_number(text: str) -> bool:
    """Whether it can be read as a number by every database, with room above it."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < _LARGEST
