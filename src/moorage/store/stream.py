"""Sends blobs straight from their packs, neighbours in one read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from moorage.errors import Unavailable
from moorage.ids import Digest
from moorage.protocol.packs import HEADER
from moorage.store.base import Row
from moorage.store.packs import Packs

_CHUNK = 256 * 1024

Locate = Callable[[Sequence[Digest]], list[Row]]


def stream(
    files: Packs, rows: Sequence[Row], locate: Locate, *, headers: bool = True
) -> Iterator[bytes]:
    """The frames of these rows in order, with or without their headers, in chunks of about
    256 KiB. `locate` finds again what a collection moved while we were sending; what is sent
    of it then does not change, so we go on where we were."""
    position = sent = 0
    again = False
    while position < len(rows):
        pack = rows[position]["pack"]
        end = position
        while end < len(rows) and rows[end]["pack"] == pack:
            end += 1
        ranges = list(_ranges(rows[position:end], headers))
        size = sum(stop - start for start, stop in ranges)
        try:
            if sent < size:
                with files.open(pack) as file:
                    for chunk in _chunks(file, _without(ranges, sent)):
                        sent += len(chunk)
                        yield chunk
        except FileNotFoundError:
            if again:
                raise Unavailable(f"the server lost the bytes of pack {pack}") from None
            again = True
            rows = locate([row["digest"] for row in rows[position:]])
            position = 0
            continue
        again = False
        sent -= size
        position = end


def _without(ranges: Sequence[tuple[int, int]], sent: int) -> Iterator[tuple[int, int]]:
    """The ranges but for their first bytes."""
    for begin, end in ranges:
        skipped = min(sent, end - begin)
        sent -= skipped
        if begin + skipped < end:
            yield begin + skipped, end


def _ranges(rows: Sequence[Row], headers: bool) -> Iterator[tuple[int, int]]:
    """(begin, end) in the file, neighbours joined."""
    extra = HEADER.size if headers else 0
    begin = end = -1
    for row in rows:
        start = row["start"] - extra
        if start != end:
            if end > begin:
                yield begin, end
            begin = start
        end = row["start"] + row["length"]
    yield begin, end


def _chunks(file: BinaryIO, ranges: Iterator[tuple[int, int]]) -> Iterator[bytes]:
    """Large ranges cut, small ones gathered, so that neither memory nor calls run away."""
    gathered: list[bytes] = []
    size = 0
    for begin, end in ranges:
        file.seek(begin)
        while begin < end:
            data = file.read(min(_CHUNK, end - begin))
            if not data:
                raise Unavailable(f"a pack file is shorter than its index says: {file.name}")
            begin += len(data)
            gathered.append(data)
            size += len(data)
            if size >= _CHUNK:
                yield b"".join(gathered)
                gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
