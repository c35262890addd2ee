"""Objects become files: large ones by many requests at once into one file, small ones by one.

Nobody ever sees half a file under its name: what is new gets its name when it is whole, and what
is replaced stays until then, so that hard links to it keep their content.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.counting import Counter
from moorage.data.transfer.listing import PART_NAME
from moorage.data.transfer.partfile import WHOLE, PartFile
from moorage.data.transfer.places import Entry, Remote
from moorage.data.transfer.pool import Pool, Task
from moorage.errors import Unavailable
from moorage.units import format_size

THREADS = 16
_EVERYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SPARE = 16 * 1024 * 1024
"""Bytes of a disk that a transfer leaves free."""


class Download:
    """Fetches entries of `source` to paths below a directory."""

    def __init__(self, source: Remote, target: str, pool: Pool, counter: Counter) -> None:
        self._source = source
        self._bucket = source.bucket
        self._target = target
        self._pool = pool
        self._counter = counter
        self._directories: set[str] = set()
        self._unfinished: set[_Large] = set()
        self._making = threading.Lock()

    def run(self, entries: Sequence[Entry]) -> None:
        """All of them; see `Pool.run` for what ends it. Problems of one file are the pool's."""
        self._require_room(sum(entry.size for entry in entries))
        try:
            self._pool.run(self._tasks(entries))
        finally:
            for large in self._unfinished:
                large.file.leave()
            self._unfinished.clear()

    def _tasks(self, entries: Sequence[Entry]) -> Iterator[Task]:
        """Large ones first: at the end all threads have something to do."""
        for entry in entries:
            if entry.size > WHOLE:
                yield from self._parts(entry)
        for entry in entries:
            if entry.size <= WHOLE:
                yield partial(self._guarded, entry, partial(self._small, entry))

    def _require_room(self, needed: int) -> None:
        place = self._target
        while place and not os.path.isdir(place):
            place = os.path.dirname(place) or "/"
        status = os.statvfs(place)
        free = status.f_bavail * status.f_frsize - _SPARE
        if needed > free:
            text = f"{format_size(needed)} are to be written, and {format_size(max(0, free))}"
            raise Unavailable(f"{self._target}: {text} are free; name a place on another disk")

    def _guarded(self, entry: Entry, work: Task) -> None:
        """A failure of the one file only, unless no other can be written either."""
        try:
            work()
        except OSError as error:
            if error.errno in _EVERYWHERE:
                raise Unavailable(f"{self._target}: {(error.strerror or '').lower()}") from None
            reason = (error.strerror or str(error)).lower()
            self._pool.problem(self._path(entry), reason)

    def _path(self, entry: Entry) -> str:
        return f"{self._target}/{entry.name}" if entry.name else self._target

    def _small(self, entry: Entry) -> None:
        path = self._path(entry)
        self._make_directory(os.path.dirname(path))
        key = self._source.at(entry.name)
        try:
            content, modified = self._content(key, entry)
        except StoreProblem as error:
            if error.reason == "no-object" and not entry.size:
                self._make_directory(path)  # its key ends in a slash: a directory's mark
                return
            raise
        _write(path, content, modified)
        self._counter.add(1, len(content))

    def _content(self, key: str, entry: Entry) -> tuple[memoryview, float]:
        try:
            return self._bucket.buffer(key, entry.etag)[0], entry.modified
        except StoreProblem as error:
            if error.reason != "changed":
                raise
        content, now = self._bucket.buffer(key)  # it changed since it was listed: the newest
        return content, now.modified

    def _parts(self, entry: Entry) -> Iterator[Task]:
        path = self._path(entry)
        opened: list[_Large] = []

        def begin() -> None:
            self._make_directory(os.path.dirname(path))
            opened.append(_Large(self, entry, path))

        self._guarded(entry, begin)
        for large in opened:
            if large.finished:
                continue
            for number, start, end in list(large.file.missing()):
                yield partial(self._guarded, entry, partial(large.fetch, number, start, end))

    def _make_directory(self, path: str) -> None:
        if path in self._directories:
            return
        with self._making:
            os.makedirs(path, exist_ok=True)
            self._directories.add(path)


class _Large:
    """One object in parts."""

    def __init__(self, whole: Download, entry: Entry, path: str) -> None:
        self._whole = whole
        self._entry = entry
        self._key = whole._source.at(entry.name)
        self._lock = threading.Lock()
        self.file = PartFile(path, entry.size, f"{entry.etag} {entry.modified}")
        self._left = sum(1 for _ in self.file.missing())
        self._broken = False
        self._etag = entry.etag
        self._versions: set[str] = set()
        whole._unfinished.add(self)
        whole._counter.add(0, self.file.arrived)
        self.finished = self._left == 0
        if self.finished:
            self._end()

    def fetch(self, number: int, start: int, end: int) -> None:
        """One part, unless another has failed."""
        arrived = False
        try:
            if not self._broken:
                version = self._fetch(start, end)
                self.file.arrived_now(number)
                self._versions.add(version)
                arrived = True
        finally:
            with self._lock:
                self._broken = self._broken or not arrived
                self._left -= 1
                last = self._left == 0
            if last:
                self._end()

    def _fetch(self, start: int, end: int) -> str:
        """The etag of what is there then."""
        etag = self._etag
        try:
            self._write(start, end, etag)
            return etag
        except StoreProblem as error:
            if error.reason != "changed":
                raise
            now = self._whole._bucket.head(self._key)
            same = now.size == self._entry.size and int(now.modified) == int(self._entry.modified)
            if not same or now.etag == etag:
                raise
            self._etag = now.etag  # some stores say another etag in listings than of the object
        self._write(start, end, now.etag)
        return now.etag

    def _write(self, start: int, end: int, etag: str) -> None:
        bucket, counter = self._whole._bucket, self._whole._counter
        at = start
        try:
            for piece in bucket.pieces(self._key, start, end, etag):
                self._whole._pool.check()  # its file may be closed soon, and the number another's
                at += os.pwrite(self.file.fd, piece, at)
                counter.add(0, len(piece))
        except BaseException:
            counter.add(0, start - at)
            raise
        if at != end:
            counter.add(0, start - at)
            raise OSError(0, f"the store sent {at - start} of {end - start} bytes")

    def _end(self) -> None:
        self._whole._unfinished.discard(self)
        if self._broken or not self.file.whole:
            self.file.leave()
            return
        if len(self._versions) > 1:  # within the second in which it had been written before
            self.file.forget()
            place = self._whole._bucket.at(self._key)
            self._whole._pool.problem(place, "the object has changed meanwhile", "try again")
            return
        self.file.finish(self._entry.modified)
        self._whole._counter.add(1, 0)


def _write(path: str, content: memoryview, modified: float) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    directory = path.rpartition("/")[0]
    own = f"{directory}/{PART_NAME[0]}{os.getpid()}-{threading.get_native_id()}{PART_NAME[1]}"
    fd = os.open(own, flags, 0o666)
    try:
        left = content
        while left:
            left = left[os.write(fd, left) :]
        when = int(modified * 1e9)
        os.utime(fd, ns=(when, when))
        os.replace(own, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(own)
        raise
    finally:
        os.close(fd)
