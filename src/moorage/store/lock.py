"""One process per database: a lock file that names its holder."""

from __future__ import annotations

import fcntl
import os
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
