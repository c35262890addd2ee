"""The files of a node's blob cache: which there are, which are in use, which go first."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from moorage.data.packreader import SMALL, Arrived
from moorage.ids import Digest

_MOST = 50 * 10**9


class CacheFiles:
    """Files named by digest, mode 0400, bounded by `limit` bytes; the longest unused go first and
    none that is pinned. Safe to use from several threads; one process at a time."""

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._text = str(directory)
        self._limit = limit if limit is not None else _default_limit(directory)
        self._lock = threading.Lock()
        self._pinned: Counter[Digest] = Counter()
        self._sizes = _found(directory)
        self._total = sum(self._sizes.values())

    def path(self, digest: Digest) -> Path:
        """Where this blob lies, or would."""
        return self.directory / digest[:2] / digest

    def _name(self, digest: Digest) -> str:
        return f"{self._text}/{digest[:2]}/{digest}"

    @contextmanager
    def pinned(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep these from eviction; what is over the limit goes when the last pin does."""
        held = set(digests)
        with self._lock:
            self._pinned.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._pinned.subtract(held)
                for digest in held:
                    if self._pinned[digest] <= 0:
                        del self._pinned[digest]
            self._evict()

    def has(self, digest: Digest) -> bool:
        """Is it there? Asking counts as using."""
        with self._lock:
            if digest not in self._sizes:
                return False
            self._sizes.move_to_end(digest)
            return True

    def read(self, digest: Digest, size: int) -> bytes | int | None:
        """The bytes of a small blob, verified again, because it was not forced to the disk; an
        open descriptor (the caller's to close) of a large one; None where it is gone or damaged.
        """
        try:
            fd = os.open(self._name(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget(digest)
            return None
        if size > SMALL:
            if os.fstat(fd).st_size == size:
                # Kept on disk, the order of use survives a restart; small files are left out,
                # because the time would cost more than fetching them again.
                os.utime(fd)
                return fd
            data = b""
        else:
            data = os.read(fd, size + 1)
        os.close(fd)
        if len(data) == size and blake3(data).hexdigest() == digest:
            return data
        self._drop(digest)
        return None

    def open(self, digest: Digest) -> int | None:
        """An open descriptor (the caller's to close) of a blob of any size, verified first; None
        where it is not there or damaged."""
        try:
            fd = os.open(self._name(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget(digest)
            return None
        check = blake3(max_threads=blake3.AUTO)
        while piece := os.read(fd, 16 * SMALL):
            check.update(piece)
        if check.hexdigest() == digest:
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
        os.close(fd)
        self._drop(digest)
        return None

    def add(self, blob: Arrived) -> None:
        """Keep a verified blob."""
        path = self.path(blob.digest)
        source = blob.path or self.directory / f"arriving-{blob.digest}"
        if blob.path is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(source, flags, 0o600), "wb") as file:
                file.write(blob.data)
        source.chmod(0o400)
        try:
            source.rename(path)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            source.rename(path)
        with self._lock:
            self._total += blob.size - self._sizes.pop(blob.digest, 0)
            self._sizes[blob.digest] = blob.size
            over = self._total > self._limit
        if over:
            self._evict()

    def _forget(self, digest: Digest) -> None:
        """It was not there; but another thread may have put it there since."""
        with self._lock:
            if not self.path(digest).exists():
                self._total -= self._sizes.pop(digest, 0)

    def _drop(self, digest: Digest) -> None:
        with self._lock:
            self._total -= self._sizes.pop(digest, 0)
            self.path(digest).unlink(missing_ok=True)

    def _evict(self) -> None:
        with self._lock:
            if self._total <= self._limit:
                return
            for digest in [d for d in self._sizes if d not in self._pinned]:
                if self._total <= self._limit:
                    return
                self._total -= self._sizes.pop(digest)
                self.path(digest).unlink(missing_ok=True)


def _default_limit(directory: Path) -> int:
    return min(_MOST, shutil.disk_usage(directory).total // 5)


def _found(directory: Path) -> OrderedDict[Digest, int]:
    """What an earlier process left, longest unused first; half-written files are removed."""
    found: list[tuple[float, Digest, int]] = []
    for shelf in os.scandir(directory):
        if not shelf.is_dir(follow_symlinks=False):
            os.unlink(shelf.path)
            continue
        for entry in os.scandir(shelf.path):
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime, Digest(entry.name), status.st_size))
    found.sort()
    return OrderedDict((digest, size) for _, digest, size in found)
