"""The cache of an rclone that is started with other secrets: part of its directory's name is a
digest of all options, so that it would not find what the one before had not uploaded.

That gets the new name while no rclone runs, in two directories, contents and notes: one that found
only the first would throw everything away. So what is to be done is written down before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from moorage.data.rclone import options

_NOTE = "cache-name"
"""In the mount's directory, until it is done: the new name."""
_KINDS = ("vfs", "vfsMeta")


def begin(directory: Path, own: str) -> bool:
    """Whether anything in there has another name than `own`; if so, `finish` must follow."""
    if not any(_others(directory, kind, own) for kind in _KINDS):
        return False
    partial = directory / f"{_NOTE}.new"
    partial.write_text(own)
    partial.replace(directory / _NOTE)
    return True


def finish(directory: Path) -> None:
    """Do what was begun, also by somebody who was killed. While no rclone works there."""
    note = directory / _NOTE
    try:
        own = note.read_text()
    except FileNotFoundError:
        return
    for kind in _KINDS:
        for other in _others(directory, kind, own):
            _move(other, other.with_name(own))
    note.unlink()


def _others(directory: Path, kind: str, own: str) -> list[Path]:
    top = directory / options.CACHE / kind
    return [path for path in sorted(top.glob("*")) if path.name != own]


def _move(other: Path, own: Path) -> None:
    if not any(_files(own)):  # of one that has just been started
        shutil.rmtree(own, ignore_errors=True)
        other.rename(own)
        return
    for path in list(_files(other)):
        place = own / path.relative_to(other)
        if not place.exists():  # else it stays, and is told as not uploaded
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.rename(place)
    if not any(_files(other)):
        shutil.rmtree(other)


def _files(top: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(top):
        for name in names:
            yield Path(directory, name)
