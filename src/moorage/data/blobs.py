"""Blobs on a node: each fetched once, kept in a bounded cache, laid out where a job needs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from moorage.data import manifests
from moorage.data.base import NotHere, SourceError
from moorage.data.cachefiles import CacheFiles
from moorage.data.packreader import PackReader
from moorage.data.treewriter import TreeWriter
from moorage.ids import Digest
from moorage.protocol.tree import Entry, Manifest
from moorage.units import format_size

Fetch = Callable[[Sequence[Digest]], Iterator[bytes]]
"""Asks the server for blobs and gives the bytes of one pack as they arrive. SourceError where the
server cannot be reached or lacks one."""

Content = tuple[Digest, bytes | int, int]
"""A blob, its bytes or an open file, and the bytes that were received for it."""

_BATCH = 2000
_ANY_SIZE = -1


class Laid(NamedTuple):
    """What `materialize` wrote. Bytes; `fetched` counts compressed bytes from the server."""

    files: int
    bytes: int
    fetched: int

    def __str__(self) -> str:
        noun = "file" if self.files == 1 else "files"
        fetched = f"{format_size(self.fetched)} fetched" if self.fetched else "nothing fetched"
        return f"{self.files} {noun}, {format_size(self.bytes)}, {fetched}"


class _Flight:
    """A blob on its way here. Threads that want the same one wait instead of asking again."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.failed = False


class BlobCache:
    """The blobs of this node. Threads may share it; `limit` in bytes (None: 50 GB or a fifth of
    the disk, whichever is less). One process at a time may use `directory`."""

    def __init__(self, directory: Path, fetch: Fetch, *, limit: int | None = None) -> None:
        self._files = CacheFiles(directory, limit)
        self._fetch = fetch
        self._lock = threading.Lock()
        self._flights: dict[Digest, _Flight] = {}

    def materialize(
        self,
        tree: Digest,
        root: Path,
        rest: PurePosixPath | None = None,
        *,
        merge: bool = False,
    ) -> Laid:
        """Write a tree to `rest` (or nothing) below `root`, a single file as `rest` itself.

        With `merge`, files are replaced atomically and nothing is deleted; without, the place must
        not exist. Links below `root` are never followed. SourceError with one line for the user.
        """
        below = rest or PurePosixPath(".")
        try:
            return self._materialize(tree, root, below, merge)
        except OSError as error:
            place = error.filename or root / below
            reason = error.strerror or str(error)
            raise SourceError(f"{place} cannot be written: {reason}") from error

    def manifest(self, tree: Digest) -> Manifest:
        """A tree's manifest, fetched if need be and checked."""
        return self._manifest(tree)[0]

    def open(self, digest: Digest) -> tuple[int, int]:
        """An open file of the blob (the caller closes it), and the bytes fetched for it."""
        with self._files.pinned([digest]):
            fd = self._files.open(digest)
            if fd is not None:
                return fd, 0
            with closing(self._each({digest: _ANY_SIZE})) as blobs:
                fetched = sum(fetched for _, _, fetched in blobs)
            fd = self._files.open(digest)
        if fd is None:
            raise NotHere(f"blob {digest[:12]} cannot be kept; is the node's disk full?")
        return fd, fetched

    def _manifest(self, tree: Digest) -> tuple[Manifest, int]:
        fd, fetched = self.open(tree)
        with open(fd, "rb") as file:
            return manifests.decode(file.read()), fetched

    def _materialize(self, tree: Digest, root: Path, rest: PurePosixPath, merge: bool) -> Laid:
        manifest, fetched = self._manifest(tree)
        entries = manifest.entries
        if manifests.single(manifest) and entries[0].kind == "file":
            if rest.parts:
                rest, name = rest.parent, rest.name
            elif merge:
                raise SourceError(f"{root} is a directory; name the file that is to be there")
            else:
                root, name = root.parent, root.name
            entries = [Entry(name, "file", entries[0].mode, entries[0].digest, entries[0].size)]
        elif not merge:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TreeWriter(root, rest, merge=merge) as writer:
            files: dict[Digest, list[Entry]] = {}
            for entry in entries:
                if entry.kind == "dir":
                    writer.directory(entry.path, entry.mode)
                elif entry.kind == "file" and entry.digest:
                    files.setdefault(entry.digest, []).append(entry)
            fetched += self._write(writer, files)
            for entry in entries:
                if entry.kind == "link":
                    writer.link(entry.path, entry.target)
            writer.finish()
        written = [entry for same in files.values() for entry in same]
        return Laid(len(written), sum(entry.size for entry in written), fetched)

    def _write(self, writer: TreeWriter, files: dict[Digest, list[Entry]]) -> int:
        total = 0
        with self._files.pinned(files):
            sizes = {digest: same[0].size for digest, same in files.items()}
            with closing(self._each(sizes)) as blobs:
                for digest, content, fetched in blobs:
                    total += fetched
                    try:
                        for entry in files[digest]:
                            writer.file(entry.path, entry.mode, content)
                    finally:
                        if isinstance(content, int):
                            os.close(content)
        return total

    def _each(self, sizes: dict[Digest, int]) -> Generator[Content, None, None]:
        """Every blob once with its content (an open file is the receiver's) and the bytes that
        were fetched since the one before; those at hand first. The caller has pinned them."""
        absent: dict[Digest, int] = {}
        for digest, size in sizes.items():
            content = self._cached(digest, size)
            if content is None:
                absent[digest] = size
            else:
                yield digest, content, 0
        mine, others = self._claim(absent)
        try:
            yield from self._fetched(mine, absent)
        finally:
            self._land(mine)
        for digest, flight in others.items():
            flight.landed.wait()
            content = None if flight.failed else self._cached(digest, absent[digest])
            if content is not None:
                yield digest, content, 0
            else:
                yield from self._each({digest: absent[digest]})

    def _cached(self, digest: Digest, size: int) -> bytes | int | None:
        if not self._files.has(digest):
            return None
        if size != _ANY_SIZE:
            return self._files.read(digest, size)
        return b""

    def _claim(
        self, digests: Iterable[Digest]
    ) -> tuple[dict[Digest, _Flight], dict[Digest, _Flight]]:
        """Those that this thread fetches, and those that another one does already."""
        mine: dict[Digest, _Flight] = {}
        others: dict[Digest, _Flight] = {}
        with self._lock:
            for digest in digests:
                if digest in self._flights:
                    others[digest] = self._flights[digest]
                elif self._files.has(digest):  # it landed since the caller looked
                    others[digest] = _Flight()
                    others[digest].landed.set()
                else:
                    mine[digest] = self._flights[digest] = _Flight()
        return mine, others

    def _land(self, flights: dict[Digest, _Flight]) -> None:
        """End the flights that did not arrive; those who wait will try themselves."""
        with self._lock:
            for digest, flight in flights.items():
                if not flight.landed.is_set():
                    flight.failed = True
                    del self._flights[digest]
                    flight.landed.set()

    def _fetched(self, mine: dict[Digest, _Flight], sizes: dict[Digest, int]) -> Iterator[Content]:
        queue = iter(list(mine))
        while batch := list(islice(queue, _BATCH)):
            wanted = set(batch)
            reader = PackReader(self._fetch(batch), self._files.directory)
            counted = 0
            for blob in reader:
                if blob.digest not in wanted:
                    raise SourceError("the server sent a blob that was not asked for; update it")
                wanted.discard(blob.digest)
                self._files.add(blob)
                with self._lock:
                    mine[blob.digest].landed.set()
                    del self._flights[blob.digest]
                new, counted = reader.received - counted, reader.received
                size = sizes[blob.digest]
                if size not in (_ANY_SIZE, blob.size):
                    raise SourceError("the uploaded tree is refused: a file has another size")
                content = blob.data if blob.path is None else self._cached(blob.digest, size)
                if content is None:
                    raise SourceError(f"blob {blob.digest[:12]} vanished from the node's cache")
                yield blob.digest, content, new
            if wanted:
                raise SourceError(
                    f"the server lacks {len(wanted)} of {len(batch)} blobs; submit again"
                )
