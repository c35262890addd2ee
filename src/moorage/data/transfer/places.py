"""The two kinds of places that files are moved between, and what lies there."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from moorage.data.hashing import Identity
from moorage.data.objects.bucket import Bucket


class Entry(NamedTuple):
    """A file or an object. `name` is relative to its place, with `/` between its parts; empty
    where the place itself is one file or object."""

    name: str
    size: int
    modified: float
    """Unix time; of a file the later of its mtime and ctime, so that one that was moved or
    restored here counts as new."""
    etag: str = ""
    identity: Identity | None = None
    """Of a file."""


class Local(Struct, frozen=True):
    """A directory or file of this machine."""

    path: str
    """Absolute."""

    @property
    def shown(self) -> str:
        """For people."""
        return self.path

    def at(self, name: str) -> str:
        """The path of an entry."""
        return f"{self.path}/{name}" if name else self.path


class Remote(Struct, frozen=True):
    """A bucket, what lies below a path in it, or one object."""

    bucket: Bucket
    path: str = ""
    """No slash at either end."""

    @property
    def shown(self) -> str:
        """For people."""
        return self.bucket.at(self.path)

    def at(self, name: str) -> str:
        """The key of an entry."""
        return "/".join(part for part in (self.path, name) if part)


Place = Local | Remote


class Progress(Struct, frozen=True):
    """How far a transfer is. Totals are those of what has to be moved."""

    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
