"""Reads what is to be sent, once more verified, into packs and parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from backports import zstd
from blake3 import blake3

from moorage.data.hashing import FileChanged, Identity, identity, open_regular
from moorage.ids import Digest
from moorage.protocol.packs import PACK_TARGET, header

_LEVEL = 1
"""On two cores a higher level costs more time than the bytes it saves on a fast network."""


class Content(NamedTuple):
    """One blob to send: bytes in memory, or a file with the identity that it was scanned with."""

    digest: Digest
    size: int
    source: bytes | Path
    identity: Identity | None = None

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return str(self.source) if isinstance(self.source, Path) else self.digest[:12]


class Packer:
    """Builds one pack after another. For one thread."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(_LEVEL)
        self._pieces: list[bytes] = []
        self._length = 0
        self._size = 0
        self.count = 0
        """Blobs in the pack under way."""

    def add(self, content: Content) -> bool:
        """Append a blob; whether the pack is large enough to send. OSError (`FileChanged` too)
        where the file cannot be read or is not what was scanned."""
        data = _read(content)
        if blake3(data).hexdigest() != content.digest:
            raise FileChanged(0, "it changed while it was uploaded", content.shown)
        frame = self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
        self._pieces += (header(content.digest, len(frame), len(data)), frame)
        self._length += len(frame)
        self._size += len(data)
        self.count += 1
        return self._length >= PACK_TARGET

    def take(self) -> tuple[int, int, bytes]:
        """The number of blobs, their raw bytes and the pack; the next one begins."""
        taken = self.count, self._size, b"".join(self._pieces)
        self._pieces = []
        self.count = self._size = self._length = 0
        return taken


def read_part(content: Content, offset: int, count: int) -> bytes:
    """Up to `count` bytes at `offset`. The digest of a large file is verified by the server at its
    end; here its identity shows a change before all of it was sent in vain."""
    if isinstance(content.source, bytes):
        return content.source[offset : offset + count]
    fd = open_regular(str(content.source))
    try:
        data = os.pread(fd, count, offset)
        if identity(os.fstat(fd)) != content.identity or not data:
            raise FileChanged(0, "it changed while it was uploaded", content.shown)
    finally:
        os.close(fd)
    return data


def _read(content: Content) -> bytes:
    if isinstance(content.source, bytes):
        return content.source
    fd = open_regular(str(content.source))
    try:
        return os.read(fd, content.size + 1)
    finally:
        os.close(fd)
