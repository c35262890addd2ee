"""How many blobs travel in one HTTP body, in both directions.

A pack is a sequence of frames: 32 bytes of BLAKE3 digest, 8 bytes big-endian length of the
compressed data, 8 bytes big-endian length of the raw data, then one zstd frame. Each blob is
compressed alone, so that a server can keep a pack as it came and still serve any one blob of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from moorage.ids import Digest

HEADER = struct.Struct(">32sQQ")
PACK_TARGET = 8 * 1024 * 1024
"""Compressed bytes at which a pack is closed."""
CHUNK_LIMIT = 32 * 1024 * 1024
"""Files larger than this travel alone and in resumable parts."""


class Frame(NamedTuple):
    """One blob in a pack; `start` is the offset of its zstd frame within the pack."""

    digest: Digest
    start: int
    length: int
    size: int


def header(digest: Digest, length: int, size: int) -> bytes:
    """The 48 bytes before a blob's zstd frame."""
    return HEADER.pack(bytes.fromhex(digest), length, size)


def frames(pack: bytes | memoryview) -> Iterator[Frame]:
    """Walk a whole pack. ValueError where it is cut short."""
    position = 0
    while position < len(pack):
        start = position + HEADER.size
        if start > len(pack):
            raise ValueError(f"pack ends inside a header at byte {position}")
        digest, length, size = HEADER.unpack_from(pack, position)
        if start + length > len(pack):
            raise ValueError(f"pack ends inside blob {digest.hex()}")
        yield Frame(Digest(digest.hex()), start, length, size)
        position = start + length
