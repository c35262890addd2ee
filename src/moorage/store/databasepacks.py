"""Packs in the database itself, for servers that share it and no disk: rows of `pack_parts`.

New bytes are written beside the leader's order of writes, so that an upload delays no decision;
they are committed before the row of their pack. They are deleted only through the writer: a server
that leads no more, but does not know it yet, cannot take away what its successor is making.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, BinaryIO, Protocol

from moorage.errors import Unavailable
from moorage.store.base import Statement, Store
from moorage.store.packs import Piece, Unfinished
from moorage.store.writer import Writer

PART = 1024 * 1024
"""Bytes of every part but the last."""
_BUFFER = 16 * 1024


class SideStore(Store, Protocol):
    """A store that can write beside the writer."""

    def write_aside(self, batch: Sequence[Statement]) -> None:
        """As `write`, from any thread, in no order."""


class DatabasePacks:
    """Implements `store.packs.Packs`."""

    def __init__(self, store: SideStore, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._unfinished = Unfinished()

    def new(self) -> AbstractContextManager[str]:
        """See `Packs.new`."""
        return self._unfinished.new()

    @contextmanager
    def create(self, pack: str) -> Iterator[BinaryIO]:
        """See `Packs.create`."""
        target = _Parts(self._store, pack)
        file = io.BufferedWriter(target, _BUFFER)
        try:
            yield file
            file.flush()
            target.finish()
        except BaseException:
            with suppress(Unavailable):  # what stays is found by the next collection
                self._store.write_aside([Statement("delete_pack_parts", {"pack": pack})])
            raise

    def write(self, pack: str, pieces: Iterable[Piece]) -> None:
        """See `Packs.write`."""
        with self.create(pack) as file:
            file.writelines(pieces)

    def open(self, pack: str) -> BinaryIO:
        """See `Packs.open`; here it is the first read that raises."""
        return io.BufferedReader(_Slices(self._store, pack), _BUFFER)

    def remove(self, pack: str) -> int:
        """See `Packs.remove`."""
        size = self._size(pack)
        if size:
            self._writer.submit([Statement("delete_pack_parts", {"pack": pack})]).result()
        return size

    def listing(self) -> tuple[list[str], set[str]]:
        """See `Packs.listing`."""
        there = [row["pack"] for row in self._store.read("stored_packs")]
        return there, self._unfinished.now()

    def require_space(self, needed: int) -> None:
        """Nothing is known about the disk of a database."""

    def _size(self, pack: str) -> int:
        return _size(self._store, pack)


def _size(store: Store, pack: str) -> int:
    [row] = store.read("pack_size", {"pack": pack})
    return int(row["bytes"])


class _Parts(io.RawIOBase):
    """Takes the bytes of a new pack. The first part is kept to the end, because its beginning is
    written last."""

    def __init__(self, store: SideStore, pack: str) -> None:
        self._store = store
        self._pack = pack
        self._first = bytearray()
        self._last = bytearray()
        self._sent = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def write(self, data: Any) -> int:
        """As much of it as the current part takes, or what was written there already."""
        begin, end = self._position, self._length()
        if begin < PART:
            taken = data[: PART - begin]
            self._first[begin : begin + len(taken)] = taken
        elif begin == end:
            taken = data[: PART - len(self._last)]
            self._last += taken
            if len(self._last) == PART:
                self._send_last()
        else:
            raise io.UnsupportedOperation("only the first part of a pack is written again")
        self._position += len(taken)
        return len(taken)

    def finish(self) -> None:
        """Send what is left."""
        if self._last:
            self._send_last()
        self._send(0, bytes(self._first))

    def _length(self) -> int:
        return len(self._first) + self._sent * PART + len(self._last)

    def _send_last(self) -> None:
        self._sent += 1
        self._send(self._sent, bytes(self._last))
        self._last.clear()

    def _send(self, part: int, data: bytes) -> None:
        row = {"pack": self._pack, "part": part, "data": data}
        self._store.write_aside([Statement("insert_pack_part", row)])


class _Slices(io.RawIOBase):
    """Reads a pack, each time just the bytes that are asked for."""

    def __init__(self, store: Store, pack: str) -> None:
        self._store = store
        self._position = 0
        self.name = pack

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            size = _size(self._store, self.name)
            if not size:
                raise FileNotFoundError(self.name)
            offset += size
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        part, begin = divmod(self._position, PART)
        count = min(len(buffer), PART - begin)
        wanted = {"pack": self.name, "part": part, "begin": begin + 1, "count": count}
        rows = self._store.read("pack_slice", wanted)
        if not rows and not _size(self._store, self.name):
            raise FileNotFoundError(self.name)
        data = rows[0]["data"] if rows else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
