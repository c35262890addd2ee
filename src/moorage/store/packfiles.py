"""Pack files on the server's disk: written once, durable before anyone hears of them.

A file without a row in `packs` is an upload under way or what a crash left of one; a row without
a file cannot be: files come before their rows and go after them.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from moorage.errors import Unavailable
from moorage.store.packs import Piece, Unfinished
from moorage.units import format_size

_RESERVE = 64 * 1024 * 1024
"""Bytes that uploads leave free, so that the database beside them can still grow."""
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class PackFiles:
    """The files `<directory>/<2 hex>/<id>.pack`. Implements `store.packs.Packs`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unfinished = Unfinished()
        self._gate = Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self) -> AbstractContextManager[str]:
        """See `Packs.new`."""
        return self._unfinished.new()

    @contextmanager
    def create(self, pack: str) -> Iterator[BinaryIO]:
        """See `Packs.create`."""
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
        """See `Packs.write`."""
        with self.create(pack) as file:
            file.writelines(pieces)

    def open(self, pack: str) -> BinaryIO:
        """See `Packs.open`."""
        return open(self._path(pack), "rb", buffering=0)

    def remove(self, pack: str) -> int:
        """See `Packs.remove`."""
        path = self._path(pack)
        try:
            freed = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return freed

    def listing(self) -> tuple[list[str], set[str]]:
        """See `Packs.listing`."""
        there = [path.stem for path in self._directory.glob("??/*.pack")]
        return there, self._unfinished.now()

    def require_space(self, needed: int) -> None:
        """See `Packs.require_space`."""
        require_space(self._directory, needed)

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
