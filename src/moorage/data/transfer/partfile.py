"""A file on its way: the parts of an object arrive in any order, and which of them are there is
kept at its end, so that whoever comes next goes on.

    content (size bytes) | header (512 bytes, JSON) | one byte a part: 1 when it is there

When it is whole, the file is cut to its size and takes its name. What was written before the
machine started again is not believed: the content may not have reached the disk then.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress

from blake3 import blake3

from moorage.data.transfer.listing import PART_NAME

PART = 32 * 1024 * 1024
"""Bytes fetched by one request: smaller ranges cost stores more (a fifth of SeaweedFS's time a GiB
with 16 MiB)."""
WHOLE = 16 * 1024 * 1024
"""Objects of up to so many bytes are held in memory instead, and written at once."""
_HEADER = 512
_BOOT = "/proc/sys/kernel/random/boot_id"


class InUse(OSError):
    """Another process fetches the same file."""


class PartFile:
    """Opened for `path`, whose directory exists; `identity` says which content it will have.
    OSError; InUse."""

    def __init__(self, path: str, size: int, identity: str) -> None:
        self._path = path
        self.size = size
        directory, _, name = path.rpartition("/")
        short = blake3(name.encode()).hexdigest()[:16]
        self._own = f"{directory}/{PART_NAME[0]}{short}{PART_NAME[1]}"
        self._count = -(-size // PART)
        self.fd = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            self._lock()
            self._done = self._resumed(self._header(identity))
        except BaseException:
            os.close(self.fd)
            raise

    def missing(self) -> Iterator[tuple[int, int, int]]:
        """Number, start and end of each part that is not there."""
        for number in range(self._count):
            if not self._done[number]:
                yield number, number * PART, min(self.size, (number + 1) * PART)

    @property
    def arrived(self) -> int:
        """Bytes that were there from the beginning."""
        missing = sum(end - start for _, start, end in self.missing())
        return self.size - missing

    def arrived_now(self, number: int) -> None:
        """A part is written."""
        os.pwrite(self.fd, b"\1", self.size + _HEADER + number)
        self._done[number] = 1

    @property
    def whole(self) -> bool:
        """Is everything there?"""
        return all(self._done)

    def finish(self, modified: float) -> None:
        """Give it its name; what had that name is replaced."""
        os.ftruncate(self.fd, self.size)
        when = int(modified * 1e9)
        os.utime(self.fd, ns=(when, when))
        os.replace(self._own, self._path)
        os.close(self.fd)

    def leave(self) -> None:
        """Keep what is there for the next time."""
        os.close(self.fd)

    def forget(self) -> None:
        """Keep nothing of it."""
        with suppress(FileNotFoundError):
            os.unlink(self._own)
        os.close(self.fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(0, "another transfer is fetching it", self._path) from None

    def _header(self, identity: str) -> bytes:
        known = blake3(identity.encode()).hexdigest()
        told = {"content": known, "size": self.size, "part": PART, "boot": _boot()}
        return json.dumps(told).encode().ljust(_HEADER)

    def _resumed(self, header: bytes) -> bytearray:
        length = self.size + _HEADER + self._count
        if os.fstat(self.fd).st_size == length and os.pread(self.fd, _HEADER, self.size) == header:
            return bytearray(os.pread(self.fd, self._count, self.size + _HEADER))
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, length)
        os.pwrite(self.fd, header, self.size)
        return bytearray(self._count)


def _boot() -> str:
    try:
        with open(_BOOT) as file:
            return file.read().strip()
    except OSError:
        return ""
