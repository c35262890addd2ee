"""Pack files on the server's disk: written once, durable before anyone hears of them.

A file without a row in `packs` is an upload under way or what a crash left of one; a row without
a file cannot be: files come before their rows and go after them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from moorage.errors import Unavailable
from moorage.units import format_size

_RESERVE = 64 * 1024 * 1024
"""Bytes that uploads leave free, so that the database beside them can still grow."""
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

Piece = bytes | memoryview


class PackFiles:
    """The files `<directory>/<2 hex>/<id>.pack`. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unfinished: set[str] = set()
        self._gate = Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def new(self) -> Iterator[str]:
        """The id of a pack to be made. Within the block `orphans` leaves its file alone: write
        the file and commit its row there."""
        pack = secrets.token_hex(16)
        with self._gate:
            self._unfinished.add(pack)
        try:
            yield pack
        finally:
            with self._gate:
                self._unfinished.discard(pack)

    @contextmanager
    def create(self, pack: str) -> Iterator[BinaryIO]:
        """A new file to fill, durable at the end of the block and gone if it fails.
        Unavailable when the disk is full."""
        path = self._path(pack)
        with no_space(self._directory):
            with self._gate:  # nobody may rely on a directory that another has not synced yet
                if not path.parent.is_dir():
                    path.parent.mkdir(mode=0o700)
                    _sync_directory(self._directory)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(descriptor)
                _sync_directory(path.parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    path.unlink()
                raise

    def write(self, pack: str, pieces: Iterable[Piece]) -> None:
        """Make a file of these pieces, durable on return."""
        with self.create(pack) as file:
            file.writelines(pieces)

    def open(self, pack: str) -> BinaryIO:
        """For reading; FileNotFoundError where it was collected meanwhile."""
        return open(self._path(pack), "rb", buffering=0)

    def remove(self, pack: str) -> int:
        """Delete a file whose row is gone; the bytes that this freed."""
        path = self._path(pack)
        try:
            freed = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return freed

    def listing(self) -> tuple[list[str], set[str]]:
        """All files that are there, and then the ids of those still being made. A file that is
        not among the latter and has no row now is an orphan."""
        there = [path.stem for path in self._directory.glob("??/*.pack")]
        with self._gate:
            return there, set(self._unfinished)

    def _path(self, pack: str) -> Path:
        return self._directory / pack[:2] / f"{pack}.pack"


def require_space(directory: Path, needed: int) -> None:
    """Unavailable when `needed` more bytes would not leave the reserve free."""
    free = shutil.disk_usage(directory).free
    if free < needed + _RESERVE:
        raise _full(free, needed)


@contextmanager
def no_space(directory: Path) -> Iterator[None]:
    """Turns the system's word for a full disk into Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _full(shutil.disk_usage(directory).free) from error
        raise


def _full(free: int, needed: int = 0) -> Unavailable:
    wanted = (
        f", {format_size(needed)} are needed beside a reserve of {format_size(_RESERVE)}"
        if needed
        else ""
    )
    return Unavailable(
        f"the server's disk is full: {format_size(free)} free{wanted}; free space there, or "
        "delete finished runs and run moorage server collect"
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
