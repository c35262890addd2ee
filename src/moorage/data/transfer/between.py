"""Objects from one bucket to another, through this machine: large ones by several requests ahead
of what is being sent. Inside one bucket the store copies by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from moorage.data.objects.bucket import PART
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.counting import Counter
from moorage.data.transfer.places import Entry, Remote
from moorage.data.transfer.pool import Pool

THREADS = 16
_LARGE_AT_ONCE = 2
_AHEAD = 4
"""Parts that are fetched before they are needed."""
_COPY_LIMIT = 5 * 1024**3
"""Bytes that a store copies in one request."""


class Between:
    """Copies entries of `source` to a path in a bucket."""

    def __init__(
        self, source: Remote, target: Remote, pool: Callable[[int], Pool], counter: Counter
    ) -> None:
        self._source = source
        self._target = target
        self._make_pool = pool
        self._counter = counter
        self.sent: dict[str, tuple[int, str]] = {}
        """Size of each that was copied, by name, and no etag: stores have their own."""
        self._inside = (
            source.bucket.name == target.bucket.name
            and source.bucket.access == target.bucket.access
        )

    def run(self, entries: Sequence[Entry], threads: int) -> None:
        """All of them; see `Pool.run` for what ends it."""
        large = [entry for entry in entries if entry.size > PART]
        small = [entry for entry in entries if entry.size <= PART]
        for some, count in ((large, min(threads, _LARGE_AT_ONCE)), (small, threads)):
            if some:
                pool = self._make_pool(min(count, len(some)))
                pool.run(
                    (partial(self._one, entry) for entry in some),
                    self._target.bucket.sending.give_up,
                )

    def _one(self, entry: Entry) -> None:
        source, target = self._source.at(entry.name), self._target.at(entry.name)
        if self._inside and entry.size < _COPY_LIMIT:
            self._target.bucket.copy(source, target)
            self._done(entry, entry.size, entry.size)
        elif entry.size > PART:
            with ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch") as ahead:
                pieces = self._pieces(entry, source, ahead)
                self._target.bucket.put_stream(target, pieces, entry.size)
            self._done(entry, entry.size, 0)
        elif (content := self._content(entry, source)) is not None:
            self._target.bucket.put(target, content)
            self._done(entry, len(content), entry.size)

    def _done(self, entry: Entry, size: int, moved: int) -> None:
        self.sent[entry.name] = size, ""
        self._counter.add(1, moved)

    def _content(self, entry: Entry, key: str) -> memoryview | None:
        try:
            return self._source.bucket.buffer(key, entry.etag)[0]
        except StoreProblem as error:
            if error.reason == "no-object" and not entry.size:
                return None  # a directory's mark, which stands for nothing in a bucket
            if error.reason != "changed":
                raise
            return self._source.bucket.buffer(key)[0]

    def _pieces(self, entry: Entry, key: str, ahead: ThreadPoolExecutor) -> Iterator[bytes]:
        waiting: deque[Future[bytes]] = deque()
        for start in range(0, entry.size, PART):
            end = min(start + PART, entry.size)
            waiting.append(ahead.submit(self._part, entry, key, start, end))
            if len(waiting) > _AHEAD:
                yield self._counted(waiting.popleft().result())
        while waiting:
            yield self._counted(waiting.popleft().result())

    def _part(self, entry: Entry, key: str, start: int, end: int) -> bytes:
        return b"".join(self._source.bucket.pieces(key, start, end, entry.etag))

    def _counted(self, piece: bytes) -> bytes:
        self._counter.add(0, len(piece))
        return piece
