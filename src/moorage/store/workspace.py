"""Directories for work under way. What a kill leaves of one goes when the next is made.

The maker holds a lock on its directory for as long as it lives, so whoever gets that lock has
found one that nobody works in; process numbers would be given to others in time.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"unfinished-[a-z]+\.[a-z0-9_]+")


@contextmanager
def workspace(directory: Path, purpose: str) -> Iterator[Path]:
    """An empty directory in `directory`, mode 0700, gone afterwards. OSError where the disk
    refuses."""
    sweep(directory)
    path, descriptor = _made(directory, purpose)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove what was left there by processes that are dead."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
    for name in names:
        with suppress(OSError):  # in use, gone, or nothing of ours
            descriptor = _opened(directory / name)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory / name, ignore_errors=True)
            finally:
                os.close(descriptor)


def _made(directory: Path, purpose: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(dir=directory, prefix=f"unfinished-{purpose}."))
        with suppress(FileNotFoundError):  # somebody swept before it was locked
            descriptor = _opened(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                path.stat()
            except BaseException:
                os.close(descriptor)
                raise
            return path, descriptor


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
