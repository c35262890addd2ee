"""The digest of a local file, read so that a change under way is noticed."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from blake3 import blake3

from moorage.ids import Digest

_STEP = 4 * 1024 * 1024
"""Bytes read at once; files larger than this are hashed by several threads. They are read, not
mapped: a mapped file that somebody truncates kills the process with SIGBUS."""


Identity = tuple[int, int, int, int]
"""Size, mtime and ctime in nanoseconds, inode: what stays the same as long as a file is not
written. A plain tuple, because tens of thousands of them are made in each scan."""


def identity(status: os.stat_result) -> Identity:
    """The identity in what `stat` gave."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class Known(NamedTuple):
    """A file's digest, and the identity that it belongs to."""

    identity: Identity
    digest: Digest


class FileChanged(OSError):
    """It was written while it was read, twice."""


def hash_file(path: str) -> Known:
    """Read a file to its digest. OSError where it cannot be read or keeps changing."""
    for _ in range(2):
        fd = open_regular(path)
        try:
            before = identity(os.fstat(fd))
            digest = _hash(fd, before[0])
            if identity(os.fstat(fd)) == before:
                return Known(before, digest)
        finally:
            os.close(fd)
    raise FileChanged(0, "it changes while it is read", path)


def open_regular(path: str) -> int:
    """A descriptor of a regular file; OSError for anything else, without waiting for a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "it is not a regular file any more", path)
    return fd


def _hash(fd: int, size: int) -> Digest:
    if size <= _STEP:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return Digest(blake3(data).hexdigest())
        os.lseek(fd, 0, os.SEEK_SET)
    check = blake3(max_threads=blake3.AUTO)
    buffer = bytearray(_STEP)
    view = memoryview(buffer)
    while count := os.readv(fd, [buffer]):
        check.update(view[:count])
    return Digest(check.hexdigest())
