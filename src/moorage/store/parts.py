"""Large uploads, part by part, under `partial/<digest>` until they are complete.

The length of the file is all there is to resume from. Parts are not synced one by one: after a
power cut the digest tells at the end whether all arrived.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from backports import zstd
from blake3 import blake3

from moorage.errors import InvalidInput
from moorage.ids import Digest
from moorage.protocol.packs import HEADER, header
from moorage.store.packfiles import no_space, require_space

_CHUNK = 1024 * 1024
_STRIPES = 64


class Partials:
    """The files of large uploads. Thread-safe; two clients that send one blob take turns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks = tuple(Lock() for _ in range(_STRIPES))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, digest: Digest) -> Lock:
        """To hold while looking at, adding to or finishing this upload."""
        return self._locks[int(digest[:8], 16) % _STRIPES]

    def received(self, digest: Digest) -> int:
        """Bytes that are here; 0 for an upload that never began."""
        try:
            return (self._directory / digest).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, digest: Digest, offset: int, size: int, data: bytes) -> int:
        """Add what of `data` is new; the bytes that are here now. A part that begins beyond them
        adds nothing: the sender goes on from the number it gets."""
        if offset < 0 or offset + len(data) > size:
            raise InvalidInput(
                f"a part of {len(data)} bytes at {offset} does not lie within {size} bytes"
            )
        received = self.received(digest)
        if received > size:
            raise InvalidInput(f"blob {digest} cannot have {size} bytes: {received} are here")
        news = memoryview(data)[max(0, received - offset) :]
        if offset > received or not news:
            self._touch(digest)
            return received
        # At the end the raw file and its pack are there together.
        require_space(self._directory, size - received + size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with (
            no_space(self._directory),
            open(os.open(self._directory / digest, flags, 0o600), "ab") as file,
        ):
            file.write(news)
        return received + len(news)

    def pack(self, digest: Digest, size: int, target: BinaryIO) -> int:
        """Compress a complete upload into `target` as a pack of one frame and return the length
        of that frame. InvalidInput where it is not what its digest names: it is thrown away."""
        compressor = zstd.ZstdCompressor()
        compressor.set_pledged_input_size(size)
        hasher = blake3()
        target.write(header(digest, 0, size))
        for chunk in self._chunks(digest):
            hasher.update(chunk)
            target.write(compressor.compress(chunk))
        if hasher.hexdigest() != digest:
            self.remove(digest)
            raise InvalidInput(
                f"blob {digest} holds other content than its digest names: send it again"
            )
        target.write(compressor.flush())
        length = target.tell() - HEADER.size
        target.seek(0)
        target.write(header(digest, length, size))
        return length

    def remove(self, digest: Digest) -> int:
        """Forget an upload; the bytes that this freed."""
        freed = self.received(digest)
        (self._directory / digest).unlink(missing_ok=True)
        return freed

    def remove_old(self, before: float) -> int:
        """Forget uploads that got nothing since `before`; the bytes that this freed."""
        freed = 0
        for path in list(self._directory.iterdir()):
            digest = Digest(path.name)
            with self.lock(digest):
                try:
                    old = path.stat().st_mtime < before
                except FileNotFoundError:
                    continue
                if old:
                    freed += self.remove(digest)
        return freed

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        try:
            with open(self._directory / digest, "rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError:  # of no bytes at all: no part ever made the file
            return

    def _touch(self, digest: Digest) -> None:
        if self.received(digest):
            os.utime(self._directory / digest)
