"""What copies ask of a bucket, whatever store it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from moorage.data.base import SourceError
from moorage.data.objects.bucket import Found

Arrived = Callable[[int], None]
"""Called with the number of bytes that have come, or gone, since the last call."""


PART = ".part"


class ObjectChanged(Exception):
    """It is not any more what the listing said."""


class Conflict(Exception):
    """Somebody else changed the object, so it was not written."""


class Away(SourceError):
    """The store does not answer; it may later."""


class Shelf(Protocol):
    """One bucket. Everything blocks, ends early by `data.stopping`, tries again by itself where
    the network fails, and raises SourceError where that does not help: Away, or another."""

    def listing(self, prefix: str) -> Iterator[Sequence[Found]]:
        """All objects below `prefix` (no slash at its end; empty: all), in any order."""

    def find(self, key: str) -> Found | None:
        """One object; None where there is none."""

    def fetch(self, wanted: Sequence[tuple[Found, Path]], arrived: Arrived) -> list[str]:
        """Write each object to its path, which appears when the object is complete; in its
        directory may be files with the suffix PART meanwhile. Called again, it goes on with them.
        The keys of empty objects that are not there: they only stand for directories.
        ObjectChanged."""

    def same(self, entry: Found, path: Path) -> bool:
        """Whether the object's content is that of the file."""

    def put(self, key: str, path: Path, size: int, base: Found | None, arrived: Arrived) -> None:
        """Upload a file in the place of the object `base`; None: there must be none. Conflict
        where there is another, or none."""
