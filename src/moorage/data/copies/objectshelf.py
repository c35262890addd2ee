"""A bucket of any store as a `Shelf`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from moorage.data.base import SourceError
from moorage.data.copies import oddkeys
from moorage.data.copies.crew import Crew, Stopped
from moorage.data.copies.shelf import PART, Arrived, Away, Conflict, ObjectChanged
from moorage.data.objects.bucket import Bucket, Found
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer import etags
from moorage.data.transfer.partfile import WHOLE, PartFile

_PARALLEL = 16
_AT_ONCE = 16 * 1024 * 1024
"""A file up to this size is sent in one piece, on the condition that nobody was faster."""
_PIECE = 4 * 1024 * 1024


class _Large:
    """An object that comes in parts, by several threads, of which the last one closes the file:
    some may still wait for the store when nobody wants it any more."""

    def __init__(self, found: Found, path: Path) -> None:
        self.file = PartFile(str(path), found.size, f"{found.etag} {found.modified}")
        self.parts = list(self.file.missing())
        self._modified = found.modified
        self._lock = threading.Lock()
        self._left = len(self.parts)
        self._users = 0
        self._open = True
        if not self.parts:
            self._finish()

    @contextmanager
    def used(self) -> Iterator[None]:
        """While the file is written to. Stopped where it is too late for that."""
        with self._lock:
            if not self._open:
                raise Stopped
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close()

    def arrived(self, number: int) -> None:
        """A part is in the file. OSError."""
        with self._lock:
            self.file.arrived_now(number)
            self._left -= 1
            if self._open and not self._left:
                self._finish()

    def _finish(self) -> None:
        self._open = False
        self._users += 1  # so that nobody closes it once more
        self.file.finish(self._modified)

    def leave(self) -> None:
        """Keep what is there for the next time."""
        with self._lock:
            if self._open:
                self._open = False
                self._close()

    def _close(self) -> None:
        if not self._open and not self._users:
            self.file.leave()


class _Piece(NamedTuple):
    """What one thread fetches at once: a small object, or a part of a large one."""

    found: Found
    path: Path
    large: _Large | None = None
    number: int = 0
    start: int = 0
    end: int = 0


class ObjectShelf:
    """See `Shelf`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def listing(self, prefix: str) -> Iterator[Sequence[Found]]:
        """See `Shelf`."""
        with _problems():
            found: list[Found] = []
            try:
                for page in self._bucket.list(prefix):
                    found += page
            except StoreProblem as error:
                if error.reason != "not-possible":
                    raise
                found = oddkeys.listing(self._bucket, prefix)
            yield found

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
        begun: list[_Large] = []
        try:
            crew.run(_pieces(wanted, arrived, begun))
        finally:
            for large in begun:
                large.leave()
        return none

    def _piece(self, piece: _Piece, crew: Crew[_Piece], arrived: Arrived) -> None:
        try:
            self._get(piece, piece.found.etag, crew, arrived)
        except StoreProblem as error:
            if error.reason != "changed" or (now := self._renamed(piece.found)) is None:
                raise
            self._get(piece, now, crew, arrived)

    def _renamed(self, found: Found) -> str | None:
        """The etag of an object that is not changed, in stores that say another in listings."""
        now = self._bucket.head(found.key)
        return now.etag if _same_version(now, found) else None

    def _get(self, piece: _Piece, etag: str, crew: Crew[_Piece], arrived: Arrived) -> None:
        found = piece.found
        if piece.large is None:
            content, now = self._bucket.buffer(found.key, etag)
            if now.size != found.size or not (etag or _same_version(now, found)):
                raise ObjectChanged(found.key)
            part = f"{piece.path}{PART}"
            with open(part, "wb", 0) as file:
                _write(file.fileno(), content, 0)
            os.rename(part, piece.path)
            arrived(found.size)
            return
        start = piece.start
        with piece.large.used():
            for data in self._bucket.pieces(found.key, start, piece.end, etag):
                crew.check()
                _write(piece.large.file.fd, memoryview(data), start)
                start += len(data)
                arrived(len(data))
            if start != piece.end:
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
                if size <= _AT_ONCE and (base is None or base.etag):
                    with suppress(_NoConditions):
                        self._put_whole(key, path, base)
                        arrived(size)
                        return
                # In parts, on which no condition can be put: asked as late as possible.
                now = self.find(key)
                if now != base and not (now and base and _same_version(now, base)):
                    raise Conflict(key)
                self._bucket.put_stream(key, _read(path, arrived), size)
            except StoreProblem as error:
                if error.reason == "changed" or (error.reason == "no-object" and base):
                    raise Conflict(key) from None
                raise

    def _put_whole(self, key: str, path: Path, base: Found | None) -> None:
        with open(path, "rb", 0) as file:
            content = file.read()
        try:
            self._put_if(key, content, None if base is None else base.etag)
        except StoreProblem as error:
            etag = self._renamed(base) if base and error.reason == "changed" else None
            if base is None or etag is None or etag == base.etag:
                raise
            self._put_if(key, content, etag)

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
    """Whether an object is what a listing said. Etags that are not of one kind cannot be compared:
    some stores say another in listings."""
    if one.etag == other.etag or not (
        etags.tells_content(one.etag) and etags.tells_content(other.etag)
    ):
        kept = one.etag == other.etag != ""
        return kept or (one.size, int(one.modified)) == (other.size, int(other.modified))
    return False


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except StoreProblem as error:
        if error.reason in ("unreachable", "failed"):
            raise Away(str(error)) from None
        raise SourceError(str(error)) from None


def _pieces(
    wanted: Sequence[tuple[Found, Path]], arrived: Arrived, begun: list[_Large]
) -> Iterator[_Piece]:
    """Large objects first: nobody is to wait for a single one in the end."""
    for found, path in sorted(wanted, key=lambda one: -one[0].size):
        if found.size <= WHOLE:
            yield _Piece(found, path)
            continue
        large = _Large(found, path)
        arrived(large.file.arrived)
        begun.append(large)
        for number, start, end in large.parts:
            yield _Piece(found, path, large, number, start, end)


def _write(descriptor: int, content: memoryview, start: int) -> None:
    while content:
        done = os.pwrite(descriptor, content, start)
        content, start = content[done:], start + done


def _read(path: Path, arrived: Arrived) -> Iterator[bytes]:
    with open(path, "rb", 0) as file:
        while data := file.read(_PIECE):
            yield data
            arrived(len(data))
