"""Node-local space of an attempt is gone when it ends, whatever the job left in it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from moorage.data.base import SourceError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 100
"""Directories open at once while removing; deeper trees are first moved up."""


def remove(directory: Path) -> None:
    """Remove a directory with all in it, however deep, read-only or full of links; nothing to do
    where it is gone. SourceError where something is mounted in it, before anything is removed, and
    where something cannot be removed, after all else was."""
    if mounted := mounts_below(directory):
        raise SourceError(f"{mounted[0]} is mounted in {directory}; unmount it first")
    try:
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        device = os.stat(directory.name, dir_fd=parent, follow_symlinks=False).st_dev
        Removal(parent, device).run(directory.name)
    except FileNotFoundError:
        return
    except OSError as error:
        shown = f"{directory}: {error.filename or ''}".rstrip(": ")
        raise SourceError(f"{shown} cannot be removed: {error.strerror}") from None
    finally:
        os.close(parent)


def mounts_below(directory: Path) -> list[str]:
    """Where something is mounted at or below `directory`, in this process's namespace."""
    top = os.path.realpath(directory)
    found: list[str] = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            # Octal escapes stand for the blanks and backslashes of a path.
            place = line.split()[4].decode("unicode_escape").encode("latin-1")
            path = os.fsdecode(place)
            if path == top or path.startswith(top + "/"):
                found.append(path)
    return found


class Removal:
    """Removes one tree below the open directory `parent`, never leaving its device."""

    def __init__(self, parent: int, device: int) -> None:
        self._parent = parent
        self._top = -1
        self._device = device
        self._moved: list[str] = []
        self._first_error: OSError | None = None

    def run(self, name: str) -> None:
        """Remove all that can be; OSError with the first thing that cannot."""
        self._remove(self._parent, name, 0)
        if self._first_error:
            raise self._first_error

    def _remove(self, parent: int, name: str, depth: int) -> None:
        try:
            self._try(parent, name, depth)
        except FileNotFoundError:
            return
        except OSError as error:
            if not (self._first_error and error.errno == errno.ENOTEMPTY):
                error.filename = name
                self._first_error = error

    def _try(self, parent: int, name: str, depth: int) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            # Whatever its device: on an overlay, files may have that of a layer.
            os.unlink(name, dir_fd=parent)
            return
        if status.st_dev != self._device:
            raise OSError(errno.EXDEV, "it is on another filesystem", name)
        fd = _open_writable(parent, name, status)
        try:
            if depth == 0:
                self._top = fd
            elif depth >= _DEPTH:
                moved = f".moorage-removed-{secrets.token_hex(8)}"
                os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=self._top)
                self._moved.append(moved)
                return
            for child in os.listdir(fd):
                self._remove(fd, child, depth + 1)
            while depth == 0 and self._moved:
                self._remove(fd, self._moved.pop(), 1)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)


def _open_writable(parent: int, name: str, status: os.stat_result) -> int:
    """Open a directory whose entries can be removed, changing its mode if need be."""
    wanted = stat.S_IRWXU
    if status.st_mode & wanted != wanted and os.geteuid() != 0:
        # Follows a link put there in this very moment; but only to a file of the same user,
        # because root, who could do harm, needs no permission and does not come here.
        os.chmod(name, status.st_mode & 0o7777 | wanted, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)
