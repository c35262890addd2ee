"""The output of finished attempts goes when it is old or too much; what went is remembered, so
that whoever asks for it is told so and not that there never was any."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from moorage.ids import AttemptKey
from moorage.protocol.agent import Sweep, Swept

REMOVED = "removed"
"""Beside the directories of attempts: a line `key bytes` for each whose output is gone. A key is
never used again, so lines may stay when the run itself is deleted."""
REMEMBERED = 100_000
_BLOCK = 512  # the unit of st_blocks, whatever the filesystem's own


class Kept(NamedTuple):
    """One finished attempt's output. `bytes` on disk: dropped parts are holes in the file."""

    modified: float
    key: str
    bytes: int


def sweep(
    root: Path, asked: Sweep, is_busy: Callable[[str], bool], end_of: Callable[[str], int]
) -> Swept:
    """Remove what is beyond the limits, oldest first; blocks on the disk. `is_busy`: attempts
    that still run or of which the server does not know the end; `end_of`: how many bytes one
    ever wrote."""
    going = list(_beyond(root, asked, is_busy))
    if not asked.dry_run:
        for kept in going:
            _remember(root, kept.key, end_of(kept.key))
            shutil.rmtree(root / kept.key, ignore_errors=True)
        _shorten(root)
    return Swept(asked.request, len(going), sum(kept.bytes for kept in going))


def removed(root: Path, key: str) -> int | None:
    """How many bytes an attempt had written whose output was removed; None for any other."""
    with suppress(OSError, ValueError), open(root / REMOVED) as file:
        for line in file:
            if line.startswith(f"{key} "):
                return int(line.split()[1])
    return None


def _beyond(root: Path, asked: Sweep, is_busy: Callable[[str], bool]) -> Iterator[Kept]:
    total = 0
    before = time.time() - asked.age
    for kept in sorted(_finished(root, is_busy), reverse=True):
        total += kept.bytes
        if (asked.total and total > asked.total) or (asked.age and kept.modified < before):
            yield kept


def _finished(root: Path, is_busy: Callable[[str], bool]) -> Iterator[Kept]:
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            with suppress(OSError, ValueError):
                AttemptKey.parse(entry.name)
                files = [file.stat() for file in os.scandir(entry.path)]
                modified = max((file.st_mtime for file in files), default=entry.stat().st_mtime)
                size = sum(file.st_blocks for file in files) * _BLOCK
                if not is_busy(entry.name):
                    yield Kept(modified, entry.name, size)


def _remember(root: Path, key: str, end: int) -> None:
    with suppress(OSError), open(root / REMOVED, "a") as file:
        file.write(f"{key} {end}\n")


def _shorten(root: Path) -> None:
    path = root / REMOVED
    with suppress(OSError):
        lines = path.read_text().splitlines(keepends=True)
        if len(lines) > 2 * REMEMBERED:
            temporary = path.with_suffix(".new")
            temporary.write_text("".join(lines[-REMEMBERED:]))
            temporary.replace(path)
