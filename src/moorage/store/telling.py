"""How long work says how far it is, and is ended early."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""Told from time to time: what is worked on, how much of it is done, how much there is (0: nobody
knows). What it raises ends the work, which then leaves nothing half done."""


def nobody(what: str, done: int, total: int) -> None:
    """Tells nobody."""
