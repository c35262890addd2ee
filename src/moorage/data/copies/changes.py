"""What a job made of its copy of a bucket.

A file counts as changed where its bytes are others than those of the generation; a new name, mode
or time alone is nothing that a bucket would keep. What the job removed is counted, and stays in
the bucket. Links, devices and sockets have no place in a bucket and are left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from moorage.data.copies import tree
from moorage.data.copies.generations import Generation
from moorage.data.copies.listing import Entry, LeftOut
from moorage.data.copies.overlay import View
from moorage.data.transfer.names import directories

_STEP = 1 << 20


class Change(NamedTuple):
    """A file to upload."""

    path: str
    size: int
    base: Entry | None
    """What it was; None: it is new."""


class Changes(NamedTuple):
    """All that is to be done with a copy after its job."""

    files: list[Change]
    left_out: list[LeftOut]
    """By path, not key."""
    removed: int
    """Files that the job removed."""

    @property
    def size(self) -> int:
        """Bytes to upload."""
        return sum(change.size for change in self.files)


def find(view: View, generation: Generation) -> Changes:
    """Compare. OSError where the view cannot be read."""
    known = {entry.path: entry for entry in generation.entries()}
    found: list[Change] = []
    left_out: list[LeftOut] = []
    walk = _Walk(view)
    for path, item, moved in walk:
        entry = known.pop(path, None)
        if item.is_symlink():
            left_out.append(LeftOut(path, "links are not uploaded"))
        elif not item.is_file(follow_symlinks=False):
            left_out.append(LeftOut(path, "it is no regular file"))
        else:
            status = item.stat(follow_symlinks=False)
            if entry is None or _changed(view, generation, entry, status, moved):
                found.append(Change(path, status.st_size, entry))
    removed = sum(1 for path in known if walk.untouched.isdisjoint(directories([path])))
    return Changes(found, left_out, removed)


class _Walk:
    """All that is no directory, with its path, and whether it lies in a directory that was another
    one before. Directories that nobody touched are not looked into."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.untouched: set[str] = set()

    def __iter__(self) -> Iterator[tuple[str, os.DirEntry[str], bool]]:
        view, waiting = self._view, [("", False)]
        while waiting:
            above, moved = waiting.pop()
            with os.scandir(f"{view.root}/{above}") as items:
                for item in items:
                    path = f"{above}/{item.name}" if above else item.name
                    if not item.is_dir(follow_symlinks=False):
                        yield path, item, moved
                    elif not moved and view.untouched(path):
                        self.untouched.add(path)
                    else:
                        waiting.append((path, moved or view.moved(path)))


def _changed(
    view: View, generation: Generation, entry: Entry, status: os.stat_result, moved: bool
) -> bool:
    if not moved and view.untouched(entry.path):
        return False
    if status.st_size != entry.size:
        return True
    same_time = status.st_mtime_ns == tree.modified_ns(entry.modified)
    if view.upper is None and same_time and status.st_ctime_ns < view.stamp:
        return False
    return not same(f"{view.root}/{entry.path}", f"{generation.content}/{entry.path}")


def same(one: str, other: str) -> bool:
    """Whether two files have the same bytes; links are not followed. OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(one, flags), "rb", 0) as first, open(os.open(other, flags), "rb", 0) as last:
        if not stat.S_ISREG(os.fstat(first.fileno()).st_mode):
            return False
        while True:
            piece = first.read(_STEP)
            if piece != last.read(_STEP):
                return False
            if not piece:
                return True
