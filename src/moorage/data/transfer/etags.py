"""What an etag says about content: a plain MD5, or that of the MD5s of equal parts; other stores
say nothing by it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from moorage.data.hashing import open_regular
from moorage.data.objects.bucket import part_size

_STEP = 1024 * 1024
_MD5 = re.compile(r"[0-9a-f]{32}(-[1-9]\d*)?")
_USUAL_PARTS = tuple(size * _STEP for size in (8, 5, 16, 50, 64, 100))
"""Of the programs that people upload with, when they are told nothing."""


def bare(etag: str) -> str:
    """Without quotes and the mark of weak ones."""
    return etag.removeprefix("W/").strip('"')


def tells_content(etag: str) -> bool:
    """Whether it can be compared with a file's content."""
    return _MD5.fullmatch(bare(etag)) is not None


def same_content(path: str, size: int, etag: str) -> bool | None:
    """Has the file the content that the etag stands for? None: nobody can tell. OSError."""
    wanted = bare(etag)
    found = _MD5.fullmatch(wanted)
    if found is None:
        return None
    if found[1] is None:
        return _digests(path, [size])[0].hex() == wanted
    count = int(found[1][1:])
    sizes = [part for part in dict.fromkeys((part_size(size), *_USUAL_PARTS)) if part]
    fitting = [part for part in sizes if -(-size // part) == count]
    if not fitting:
        return None
    if any(_of_parts(_digests(path, _parts(size, part))) == wanted for part in fitting):
        return True
    return None  # its parts may have had other sizes


def _parts(size: int, part: int) -> list[int]:
    return [min(part, size - begin) for begin in range(0, size, part)]


def _of_parts(digests: Sequence[bytes]) -> str:
    """As S3 names an object that came in these parts."""
    import hashlib  # OpenSSL takes 20 ms to load, and few transfers compare content

    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def _digests(path: str, parts: Sequence[int]) -> list[bytes]:
    fd = open_regular(path)
    try:
        return [_read(fd, part) for part in parts]
    finally:
        os.close(fd)


def _read(fd: int, left: int) -> bytes:
    import hashlib

    check = hashlib.md5(usedforsecurity=False)
    while left:
        data = os.read(fd, min(left, _STEP))
        if not data:
            break
        check.update(data)
        left -= len(data)
    return check.digest()
