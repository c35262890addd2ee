"""A bucket of any store as a `Shelf`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from moorage.data.base import SourceError
from moorage.data.copies.crew import Crew
from moorage.data.copies.shelf import PART, RANGES, Arrived, Away, Conflict, ObjectChanged
from moorage.data.objects.bucket import Bucket, Found
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer import etags

_PARALLEL = 16
_RANGE = 32 * 1024 * 1024
"""Bytes that one thread fetches of a large object."""
_WHOLE = 16 * 1024 * 1024
"""A file up to this size is sent in one piece, on the condition that nobody was faster."""
_PIECE = 4 * 1024 * 1024


class _Large:
    """An object that comes in ranges. Which are there is written down beside it."""

    def __init__(self, found: Found, path: Path) -> None:
        self.found, self.path = found, path
        self.part, self.journal = Path(f"{path}{PART}"), Path(f"{path}{RANGES}")
        count = -(-found.size // _RANGE)
        self._lock = threading.Lock()
        self._there: set[int] = set()
        if found.etag and self.part.exists() and self.journal.exists():
            # The last line may be torn.
            lines = self.journal.read_text().split("\n")[:-1]
            self._there = {int(line) for line in lines if line.isdigit()}
        else:
            self.journal.unlink(missing_ok=True)
        self.missing = [number for number in range(count) if number not in self._there]
        self._left = len(self.missing)

    def begin(self) -> None:
        """OSError."""
        with open(self.part, "ab") as file:
            os.truncate(file.fileno(), self.found.size)
        if not self.missing:
            self._finish()

    def arrived(self, number: int) -> None:
        """A range is in the file. OSError."""
        with self._lock:
            with open(self.journal, "a") as file:
                file.write(f"{number}\n")
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        self.part.rename(self.path)
        self.journal.unlink(missing_ok=True)


class _Piece(NamedTuple):
    """What one thread fetches at once: a small object, or a range of a large one."""

    found: Found
    path: Path
    large: _Large | None = None
    number: int = 0


class ObjectShelf:
    """See `Shelf`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def listing(self, prefix: str) -> Iterator[Sequence[Found]]:
        """See `Shelf`."""
        with _problems():
            yield from self._bucket.list(prefix)

    def find(self, key: str) -> Found | None:
        """See `Shelf`."""
        with _problems():
            try:
                return self._bucket.head(key)
            except StoreProblem as error:
                if error.reason == "no-object":
                    return None
                raise

    def fetch(self, wanted: Sequence[tuple[Found, Path]], arrived: Arrived) -> list[str]:
        """See `Shelf`."""
        none: list[str] = []

        def work(piece: _Piece) -> None:
            with _problems():
                try:
                    self._piece(piece, crew, arrived)
                except StoreProblem as error:
                    if error.reason == "no-object" and not piece.found.size:
                        none.append(piece.found.key)
                    elif error.reason in ("no-object", "changed"):
                        raise ObjectChanged(piece.found.key) from None
                    else:
                        raise

        crew: Crew[_Piece] = Crew(work, min(_PARALLEL, max(2, len(wanted))))
        crew.run(_pieces(wanted, arrived))
        return none

    def _piece(self, piece: _Piece, crew: Crew[_Piece], arrived: Arrived) -> None:
        found = piece.found
        if piece.large is None:
            content, now = self._bucket.buffer(found.key, found.etag)
            if now.size != found.size or (not found.etag and now.modified != found.modified):
                raise ObjectChanged(found.key)
            part = f"{piece.path}{PART}"
            with open(part, "wb", 0) as file:
                _write(file.fileno(), content, 0)
            os.rename(part, piece.path)
            arrived(found.size)
            return
        start = piece.number * _RANGE
        end = min(start + _RANGE, found.size)
        with open(piece.large.part, "r+b", 0) as file:
            for data in self._bucket.pieces(found.key, start, end, found.etag):
                crew.check()
                _write(file.fileno(), memoryview(data), start)
                start += len(data)
                arrived(len(data))
        if start != end:
            raise ObjectChanged(found.key)
        piece.large.arrived(piece.number)

    def same(self, entry: Found, path: Path) -> bool:
        """See `Shelf`."""
        size = path.stat().st_size
        if entry.size != size:
            return False
        known = etags.same_content(str(path), size, entry.etag)
        if known is not None:
            return known
        start = 0
        with _problems(), open(path, "rb", 0) as file:
            for data in self._bucket.pieces(entry.key, 0, size, entry.etag):
                if os.pread(file.fileno(), len(data), start) != data:
                    return False
                start += len(data)
        return start == size

    def put(self, key: str, path: Path, size: int, base: Found | None, arrived: Arrived) -> None:
        """See `Shelf`."""
        with _problems():
            try:
                self._put(key, path, size, base, arrived)
            except StoreProblem as error:
                if error.reason == "changed" or (error.reason == "no-object" and base):
                    raise Conflict(key) from None
                raise

    def _put(self, key: str, path: Path, size: int, base: Found | None, arrived: Arrived) -> None:
        if size <= _WHOLE and (base is None or base.etag):
            with open(path, "rb", 0) as file:
                content = file.read()
            with suppress(_NoConditions):
                self._put_if(key, content, None if base is None else base.etag)
                arrived(size)
                return
        # In parts, on which no condition can be put: asked as late as possible.
        now = self.find(key)
        if now != base and (now is None or base is None or not _same_version(now, base)):
            raise Conflict(key)
        self._bucket.put_stream(key, _read(path, arrived), size)

    def _put_if(self, key: str, content: bytes, etag: str | None) -> None:
        try:
            self._bucket.put_if(key, content, etag)
        except StoreProblem as error:
            if error.reason == "not-possible":
                raise _NoConditions from None
            raise


class _NoConditions(Exception):
    """The store cannot write conditionally."""


def _same_version(one: Found, other: Found) -> bool:
    if one.etag or other.etag:
        return one.etag == other.etag
    return (one.size, one.modified) == (other.size, other.modified)


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except StoreProblem as error:
        if error.reason in ("unreachable", "failed"):
            raise Away(str(error)) from None
        raise SourceError(str(error)) from None


def _pieces(wanted: Sequence[tuple[Found, Path]], arrived: Arrived) -> Iterator[_Piece]:
    """Large objects first: nobody is to wait for a single one in the end."""
    for found, path in sorted(wanted, key=lambda one: -one[0].size):
        if found.size <= _RANGE:
            yield _Piece(found, path)
            continue
        large = _Large(found, path)
        large.begin()
        arrived(found.size - sum(_length(found, number) for number in large.missing))
        for number in large.missing:
            yield _Piece(found, path, large, number)


def _length(found: Found, number: int) -> int:
    return min(_RANGE, found.size - number * _RANGE)


def _write(descriptor: int, content: memoryview, start: int) -> None:
    while content:
        done = os.pwrite(descriptor, content, start)
        content, start = content[done:], start + done


def _read(path: Path, arrived: Arrived) -> Iterator[bytes]:
    with open(path, "rb", 0) as file:
        while data := file.read(_PIECE):
            yield data
            arrived(len(data))
