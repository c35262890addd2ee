"""One process per database: a lock file that names its holder; and who holds other files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorage.store.base import StoreBroken


class FileLock:
    """An exclusive lock, held until `release` or the end of the process, however it ends.

    The file itself stays: whoever deleted it could let two processes each lock their own.
    """

    def __init__(self, path: Path, purpose: str) -> None:
        """Take the lock at once, or raise StoreBroken with the pid of the holder."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreBroken(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreBroken(
                f"{purpose} is in use by process {holder or '(unknown)'}: stop that server first"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise StoreBroken(f"cannot lock {path}: {error.strerror}") from error

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder_of(paths: Sequence[Path]) -> str:
    """Which other process keeps one of these files from being written, in words; "another
    program" where the kernel does not say."""
    places = set()
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
            places.add(f"{device}:{found.st_ino}")
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return "another program"
    for _, _, _, how, pid, place, *_ in map(str.split, lines):
        if how == "WRITE" and place in places and int(pid) not in (os.getpid(), 0, -1):
            return f"process {pid}{_name(pid)}"
    return "another program"


def _name(pid: str) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""
