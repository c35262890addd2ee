"""When which byte of an output was written: one line `time offset` for each second in which there
was output. A month of them has two million lines, so nothing here reads the whole file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_BLOCK = 4096
_LONGEST = 64
"""Bytes of a line, at most."""


class Mark(NamedTuple):
    """What begins at `offset` was written at `at` (Unix seconds) or later."""

    at: float
    offset: int


def append(path: Path, mark: Mark) -> None:
    """Add a mark; a full disk is no reason to disturb the job."""
    with suppress(OSError), open(path, "a") as file:
        file.write(f"{mark.at:.3f} {mark.offset}\n")


def newest(path: Path) -> Mark | None:
    """The last mark; None without one."""
    with suppress(OSError), _Reader(path) as reader:
        marks = reader.between(reader.size - _BLOCK, reader.size)
        return marks[-1] if marks else None
    return None


def around(path: Path, since: float) -> tuple[Mark | None, Mark | None]:
    """The last mark before `since` and the first at or after it."""
    with suppress(OSError), _Reader(path) as reader:
        marks = reader.near(since)
        later = next((n for n, mark in enumerate(marks) if mark.at >= since), len(marks))
        before = marks[later - 1] if later else None
        return before, marks[later] if later < len(marks) else None
    return None, None


class _Reader:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def between(self, begin: int, end: int) -> list[Mark]:
        """The marks whose lines lie there as a whole: one without its end is not written yet."""
        begin = max(0, begin)
        text = os.pread(self._descriptor, end - begin, begin)
        lines = text.split(b"\n")[1 if begin else 0 : -1]
        marks = []
        for line in lines:
            with suppress(ValueError):
                at, offset = line.split()
                marks.append(Mark(float(at), int(offset)))
        return marks

    def near(self, since: float) -> list[Mark]:
        """Marks that lie around this moment: the file is in order, so halve it until it is
        small."""
        low, high = 0, self.size
        while high - low > _BLOCK:
            middle = (low + high) // 2
            marks = self.between(middle, middle + 4 * _LONGEST)
            if marks and marks[0].at < since:
                low = middle
            else:
                high = middle
        return self.between(low - _LONGEST, high + 4 * _LONGEST)
