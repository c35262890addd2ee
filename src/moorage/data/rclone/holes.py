"""Which parts of a sparse file are there. Spans are pairs of begin and end, in bytes."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

Span = tuple[int, int]
_BLOCK = 4096


def told_in(directory: Path) -> bool:
    """Whether that file system says where holes are; some say that there are none."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(1 << 20)
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0


def written(file: int, size: int) -> list[Span]:
    """What was written. Of a block of which only a part was, what is zero at its edge counts as
    not written, unless there are no holes at all."""
    found = list(_data(file, size))
    if found == [(0, size)]:
        return found
    return [_trimmed(file, span) for span in found]


def missing(here: Iterable[Span], size: int) -> list[Span]:
    """What lies between these, and after them."""
    found, place = [], 0
    for begin, end in sorted(here):
        if begin > place:
            found.append((place, min(begin, size)))
        place = max(place, end)
        if place >= size:
            return found
    return [*found, (place, size)] if place < size else found


def _data(file: int, size: int) -> Iterator[Span]:
    end = 0
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, min(end, size)


def _trimmed(file: int, span: Span) -> Span:
    begin, end = span
    first = os.pread(file, min(_BLOCK, end - begin), begin)
    length = (end - begin) % _BLOCK or min(_BLOCK, end - begin)
    last = os.pread(file, length, end - length)
    if any(first):
        begin += len(first) - len(first.lstrip(b"\0"))
    if any(last):
        end -= len(last) - len(last.rstrip(b"\0"))
    return begin, end
