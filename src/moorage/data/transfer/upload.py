"""Files become objects. A file that changes while it is sent is sent once more; if it changes
again, it is named: what lies in the bucket then is a mixture, unless it was sent in one piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from moorage.data.hashing import Identity, identity, open_regular
from moorage.data.objects.bucket import PART
from moorage.data.transfer.counting import Counter
from moorage.data.transfer.places import Entry, Local, Remote
from moorage.data.transfer.pool import Pool

THREADS = 24
_LARGE_AT_ONCE = 2
"""Files sent in parts; each has several parts on the way itself."""
_REST = "let it rest, and try again"


class Upload:
    """Sends entries of `source` to a path in a bucket."""

    def __init__(
        self, source: Local, target: Remote, pool: Callable[[int], Pool], counter: Counter
    ) -> None:
        self._source = source
        self._target = target
        self._bucket = target.bucket
        self._make_pool = pool
        self._counter = counter
        self.sent: dict[str, tuple[int, str]] = {}
        """Size and etag of each, by name."""

    def run(self, entries: Sequence[Entry], threads: int) -> None:
        """All of them; see `Pool.run` for what ends it. Problems of one file are the pool's."""
        large = [entry for entry in entries if entry.size > PART]
        small = [entry for entry in entries if entry.size <= PART]
        for some, send, count in (
            (large, self._large, min(threads, _LARGE_AT_ONCE)),
            (small, self._small, threads),
        ):
            if some:
                pool = self._make_pool(min(count, len(some)))
                tasks = (partial(self._one, pool, entry, send) for entry in some)
                pool.run(tasks, self._bucket.sending.give_up)

    def _one(self, pool: Pool, entry: Entry, send: Callable[[Entry, str], bool]) -> None:
        path = self._source.at(entry.name)
        try:
            if send(entry, path) or send(entry, path):
                self._counter.add(1, 0)
            else:
                pool.problem(path, "it changes while it is sent", _REST)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            pool.problem(path, reason, _REST if isinstance(error, FileNotFoundError) else "")

    def _small(self, entry: Entry, path: str) -> bool:
        """Send what the file has now; False where that changed while it was read."""
        fd = open_regular(path)
        try:
            before = identity(os.fstat(fd))
            content = os.read(fd, before[0] + 1)
            while 0 < len(content) < before[0]:
                more = os.read(fd, before[0] + 1 - len(content))
                if not more:
                    break
                content += more
            if identity(os.fstat(fd)) != before or len(content) != before[0]:
                return False
        finally:
            os.close(fd)
        etag = self._bucket.put(self._target.at(entry.name), content)
        self.sent[entry.name] = before[0], etag
        self._counter.add(0, entry.size)
        return True

    def _large(self, entry: Entry, path: str) -> bool:
        before = _identity(path)
        told = 0

        def arrived(size: int) -> None:
            nonlocal told
            told += size
            self._counter.add(0, size)

        done = False
        try:
            etag = self._bucket.put_file(self._target.at(entry.name), path, before[0], arrived)
            done = _identity(path) == before
        finally:
            self._counter.add(0, entry.size - told if done else -told)
        if done:
            self.sent[entry.name] = before[0], etag
        return done


def _identity(path: str) -> Identity:
    fd = open_regular(path)
    try:
        return identity(os.fstat(fd))
    finally:
        os.close(fd)
