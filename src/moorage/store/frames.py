"""Frames of packs: proving that one holds what its digest names, and where it lies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from backports import zstd
from blake3 import blake3

from moorage.errors import InvalidInput
from moorage.ids import Digest
from moorage.protocol.packs import CHUNK_LIMIT, HEADER, Frame, frames

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Span(NamedTuple):
    """Neighbouring frames of a pack, headers included: the bytes from `begin` to `end`."""

    begin: int
    end: int


def require_digest(text: str) -> Digest:
    """The text as a digest; InvalidInput where it is none. Digests become file names."""
    if _DIGEST.fullmatch(text) is None:
        raise InvalidInput(f"{text[:80]!r} is no digest: 64 lowercase hex digits expected")
    return Digest(text)


def unpack(frame: bytes | memoryview, digest: Digest, size: int) -> bytes:
    """The raw bytes of one zstd frame. ValueError unless they are `size` bytes of that digest;
    never more than one byte beyond `size` is decompressed."""
    decompressor = zstd.ZstdDecompressor()
    try:
        raw = decompressor.decompress(frame, size + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"blob {digest} is not compressed with zstd: {error}") from None
    if len(raw) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"blob {digest} is not one frame of {size} bytes")
    if blake3(raw).hexdigest() != digest:
        raise ValueError(f"blob {digest} holds other content than its digest names")
    return raw


def verified(pack: bytes, upload_limit: int) -> dict[Digest, Frame]:
    """Every blob of a pack by its digest, each one checked; InvalidInput names the first that is
    wrong, too large for a pack, or larger than `upload_limit` (0: none)."""
    found: dict[Digest, Frame] = {}
    view = memoryview(pack)
    try:
        for frame in frames(pack):
            if frame.digest in found:
                continue
            if frame.size > CHUNK_LIMIT:
                raise ValueError(
                    f"blob {frame.digest} has {frame.size} bytes: above {CHUNK_LIMIT} it must be "
                    "sent in parts"
                )
            require_allowed(frame.digest, frame.size, upload_limit)
            unpack(view[frame.start : frame.start + frame.length], frame.digest, frame.size)
            found[frame.digest] = frame
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    return found


def require_allowed(digest: Digest, size: int, upload_limit: int) -> None:
    """InvalidInput for a blob above the server's limit (0: none)."""
    if upload_limit and size > upload_limit:
        raise InvalidInput(
            f"blob {digest} has {size} bytes, the server takes at most {upload_limit}: raise "
            "'upload_limit' in the server's config.yml"
        )


def spans(chosen: Iterable[Frame]) -> list[Span]:
    """The chosen frames, neighbours joined, in the order given."""
    joined: list[Span] = []
    for frame in chosen:
        begin, end = frame.start - HEADER.size, frame.start + frame.length
        if joined and joined[-1].end == begin:
            joined[-1] = Span(joined[-1].begin, end)
        else:
            joined.append(Span(begin, end))
    return joined


def moved(chosen: Iterable[Frame]) -> list[Frame]:
    """Where the chosen frames lie once they are written one after the other into a new pack."""
    result: list[Frame] = []
    position = 0
    for frame in chosen:
        start = position + HEADER.size
        result.append(frame._replace(start=start))
        position = start + frame.length
    return result
