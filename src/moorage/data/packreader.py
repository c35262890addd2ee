"""Reads a pack while it arrives, holding at most one small blob in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backports import zstd
from blake3 import blake3

from moorage.data.base import SourceError
from moorage.ids import Digest
from moorage.protocol.packs import HEADER

SMALL = 1024 * 1024
"""Raw bytes up to which a blob is handled in memory."""


class Arrived(NamedTuple):
    """A blob whose digest was verified: in `data`, or in the file `path`, which the receiver has
    to move or delete."""

    digest: Digest
    size: int
    data: bytes
    path: Path | None


class PackReader:
    """Splits a stream of bytes into verified blobs; large ones are written below `directory`."""

    def __init__(self, stream: Iterator[bytes], directory: Path) -> None:
        self._stream = stream
        self._directory = directory
        self._held = bytearray()
        self.received = 0
        """Bytes of the stream so far."""

    def __iter__(self) -> Iterator[Arrived]:
        while self._fill(HEADER.size):
            raw, length, size = HEADER.unpack(self._take(HEADER.size))
            digest = Digest(raw.hex())
            if max(length, size) > SMALL:
                yield Arrived(digest, size, b"", self._large(digest, length, size))
            else:
                yield Arrived(digest, size, self._small(digest, length, size), None)

    def _fill(self, count: int) -> bool:
        """Have `count` bytes at hand; False where the stream ends before the first."""
        while len(self._held) < count:
            piece = next(self._stream, None)
            if piece is None:
                if self._held:
                    raise SourceError("the server's answer was cut short; submit again")
                return False
            self.received += len(piece)
            self._held += piece
        return True

    def _take(self, count: int) -> bytes:
        piece = bytes(memoryview(self._held)[:count])
        del self._held[:count]
        return piece

    def _small(self, digest: Digest, length: int, size: int) -> bytes:
        if not self._fill(length):
            raise SourceError("the server's answer was cut short; submit again")
        frame = self._take(length)
        try:
            data = zstd.ZstdDecompressor().decompress(frame, max_length=size + 1)
        except zstd.ZstdError:
            raise _damaged(digest) from None
        if len(data) != size or blake3(data).hexdigest() != digest:
            raise _damaged(digest)
        return data

    def _large(self, digest: Digest, length: int, size: int) -> Path:
        fd, name = tempfile.mkstemp(prefix="arriving-", dir=self._directory)
        try:
            with open(fd, "wb") as file:
                self._pour(digest, length, size, file.fileno())
                # A cached large file is not hashed again before use, so it must survive a crash.
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _pour(self, digest: Digest, length: int, size: int, fd: int) -> None:
        unpacker = zstd.ZstdDecompressor()
        check = blake3(max_threads=blake3.AUTO)
        written = 0
        while length:
            if not self._held and not self._fill(1):
                raise SourceError("the server's answer was cut short; submit again")
            piece = self._take(min(length, len(self._held)))
            length -= len(piece)
            while piece or not (unpacker.needs_input or unpacker.eof):
                try:
                    data = unpacker.decompress(piece, max_length=4 * SMALL)
                except (zstd.ZstdError, EOFError):
                    raise _damaged(digest) from None
                piece = b""
                written += len(data)
                if written > size:
                    raise _damaged(digest)
                check.update(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
        if written != size or check.hexdigest() != digest:
            raise _damaged(digest)


def _damaged(digest: Digest) -> SourceError:
    return SourceError(f"blob {digest[:12]} arrived damaged; submit again, or check the network")
