"""How a directory becomes blobs: a manifest, itself a blob, that names every file by its digest.

The manifest's bytes are canonical (entries sorted by path, no times, no owners), so that equal
content and modes always give an equal digest.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from moorage.decoding import msgpack_decoder
from moorage.ids import Digest


class Entry(Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """One file, directory or symbolic link; `path` is relative, with `/`, without `.` or `..`."""

    path: str
    kind: Literal["file", "dir", "link"]
    mode: int = 0o644
    """Permission bits only; 0 for links."""
    digest: Digest | None = None
    size: int = 0
    target: str = ""
    """Where a link points, verbatim; never outside the tree."""


class Manifest(Struct, frozen=True):
    """A tree. A single uploaded file is a tree of one entry whose path is `.`."""

    entries: list[Entry]
    version: int = 1


encode = msgspec.msgpack.Encoder().encode
decode = msgpack_decoder(Manifest)
