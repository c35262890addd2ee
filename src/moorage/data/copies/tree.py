"""A directory made of files that are there already: linked where it never changes, copied where
somebody will write. All directories here are the agent's own, so plain paths are safe."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from moorage.data.copies.listing import Layout
from moorage.data.treewriter import FICLONE, copy_content

_FILE, _DIRECTORY = 0o644, 0o755
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP)

Put = Callable[[str, str], None]
"""Makes the second of these files from the first."""


def build(root: Path, layout: Layout, source: Callable[[int], str], put: Put) -> None:
    """Make `root`, which must be new, from a layout; `source` gives the file that holds the
    content of the entry at an index. OSError."""
    _directory(str(root))
    made = {""}
    for path in layout.directories:
        _reach(str(root), path, made)
    for index, entry in enumerate(layout.files):
        _reach(str(root), entry.path.rpartition("/")[0], made)
        put(source(index), f"{root}/{entry.path}")


def link(source: str, target: str) -> None:
    """The same file under another name; where the file system has no links, a copy. OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy(source, target)


def copy(source: str, target: str) -> None:
    """A file of its own with the same content and times, sharing blocks where the file system
    can. OSError."""
    old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        new = os.open(target, flags, _FILE)
        try:
            copy_content(old, new)
            os.fchmod(new, _FILE)
            times = os.fstat(old)
            os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        finally:
            os.close(new)
    finally:
        os.close(old)


def clone(source: str, target: str) -> bool:
    """Whether the file system makes a copy that shares all blocks. OSError."""
    old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _FILE)
        try:
            fcntl.ioctl(new, FICLONE, old)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
                return False
            raise
        finally:
            os.close(new)
    finally:
        os.close(old)
    return True


def modified_ns(modified: float) -> int:
    """The time of a file for the time of an object."""
    return max(int(modified * 1000), 0) * 1_000_000


def finish(path: str, modified: float) -> None:
    """Mode and time of a file that was fetched. OSError."""
    os.chmod(path, _FILE)
    time = modified_ns(modified)
    os.utime(path, ns=(time, time))


def remove_files(paths: Iterable[str]) -> None:
    """Remove files that may be gone."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _reach(root: str, path: str, made: set[str]) -> None:
    if path in made:
        return
    _reach(root, path.rpartition("/")[0], made)
    _directory(f"{root}/{path}")
    made.add(path)


def _directory(path: str) -> None:
    os.mkdir(path, _DIRECTORY)
    os.chmod(path, _DIRECTORY)
