"""What travels on the stream of a command that runs in a job: pieces of several channels, one
after the other. Standard library only: the node's end has nothing else.

A piece is a byte for its channel, four for its length, and its bytes. No bytes on `INPUT`,
`OUTPUT` or `ERRORS`: that channel has ended.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INPUT, OUTPUT, ERRORS, SIZE, SIGNAL, EXIT = range(6)
"""`SIZE`: rows and columns of the terminal; `SIGNAL`: a number; `EXIT`: the exit code, last."""
LARGEST = 65_536
"""Bytes of a piece that this side makes."""
_MOST = 16 * LARGEST
_HEADER = struct.Struct(">BI")
_SIZE = struct.Struct(">HH")


class Torn(ValueError):
    """This is no stream of pieces."""


def piece(channel: int, data: bytes) -> bytes:
    """One piece, ready to be sent."""
    return _HEADER.pack(channel, len(data)) + data


def size(rows: int, columns: int) -> bytes:
    """The piece that tells of a terminal's size."""
    return piece(SIZE, _SIZE.pack(min(rows, 65_535), min(columns, 65_535)))


def read_size(data: bytes) -> tuple[int, int]:
    """Rows and columns. Torn."""
    if len(data) != _SIZE.size:
        raise Torn("a size of a terminal has four bytes")
    rows, columns = _SIZE.unpack(data)
    return rows, columns


class Pieces:
    """Takes bytes as they come, gives pieces as they are complete."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def take(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Channel and bytes of each piece that is complete with `data`. Torn."""
        self._rest += data
        start, end = 0, len(self._rest)
        while end - start >= _HEADER.size:
            channel, length = _HEADER.unpack_from(self._rest, start)
            if channel > EXIT or length > _MOST:
                raise Torn("the other side speaks another language")
            body = start + _HEADER.size
            if end - body < length:
                break
            yield channel, bytes(self._rest[body : body + length])
            start = body + length
        del self._rest[:start]
