"""The terminal that a command of a job gets in place of its own."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


def size() -> tuple[int, int]:
    """Rows and columns of ours."""
    found = os.get_terminal_size(sys.stdout.fileno())
    return found.lines, found.columns


@contextmanager
def raw(terminal: int) -> Iterator[None]:
    """Every key goes to the other side, Ctrl-C too."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
