"""What an rclone that was killed had not uploaded, made its successor's own before a job sees it.

The successor uploads what the cache's notes name, but tells its listings nothing of that: a file
that they do not have yet stays one without an object until they are read again. Who opens it then
gets an empty file and its cached content is thrown away; what is appended replaces what was there;
to remove or rename it leaves the object where it is (rclone's issue 9876). So each such file is
opened and read here once: when it is closed, its upload becomes one like any other, unless that
has begun. Those that have are waited for, and listed anew. They are not broken off: a store may
still carry out what was broken off, after the next.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from moorage.data.base import SourceError
from moorage.data.rclone.notes import may_be_dirty

LINK = ".rclonelink"
"""What rclone adds to the name of an object that is a symbolic link."""
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Left(Struct, frozen=True):
    """One file: its path below the mount, the cache's note and content. Bytes, nanoseconds."""

    path: str
    note: Path
    content: Path
    size: int
    modified: int


def inherit(
    place: Path,
    left: Iterable[Left],
    ends: Iterable[int],
    patience: float,
    kill: Callable[[], object],
) -> set[str]:
    """Open them all, below where rclone mounts. Those of which the listings must be read again,
    as they were uploaded already. SourceError after `patience` seconds, or when one of the
    descriptors `ends` can be read. `kill` ends that rclone, where somebody waits for it."""
    heirs = _Heirs(place, left)
    heirs.start()
    try:
        wanted = [heirs.over, *(end for end in ends if end >= 0)]
        if heirs.over not in select.select(wanted, [], [], patience)[0]:
            kill()
            raise SourceError("it does not answer")
    finally:
        heirs.join()
        os.close(heirs.over)
    if heirs.error is not None:
        raise SourceError(str(heirs.error))
    return heirs.unlisted


class _Heirs(threading.Thread):
    """A thread of its own: who touches a mount may have to wait until its process has ended."""

    def __init__(self, place: Path, left: Iterable[Left]) -> None:
        super().__init__(name=f"heirs of {place}", daemon=True)
        self._place, self._left = place, left
        self.over = os.eventfd(0, os.EFD_CLOEXEC)
        self.error: OSError | None = None
        self.unlisted: set[str] = set()

    def run(self) -> None:
        try:
            for one in self._left:
                with suppress(*_NOT_THERE):
                    if not self._taken(one):
                        self.unlisted.add(one.path)
        except OSError as error:
            self.error = error
        finally:
            os.eventfd_write(self.over, 1)

    def _taken(self, one: Left) -> bool:
        """False where it may be in the bucket already."""
        if not may_be_dirty(one.note):  # it has been uploaded since
            return False
        if not one.path.endswith(LINK):
            return self._opened(one)
        return bool(os.readlink(self._place / one.path.removesuffix(LINK)))

    def _opened(self, one: Left) -> bool:
        flags = os.O_RDONLY if one.size else os.O_RDWR
        file = os.open(self._place / one.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if one.size == 0:  # of nothing rclone reads nothing
                os.ftruncate(file, 0)
                os.utime(file, ns=(one.modified, one.modified))
            elif not os.pread(file, 1, 0) or not may_be_dirty(one.note):
                # It is in the bucket, and what the cache has of it now is good for nothing.
                one.content.unlink(missing_ok=True)
                return False
        finally:
            os.close(file)
        return True
