"""Where the bytes of packs are: the interface, whatever keeps them.

Bytes without a row in `packs` are an upload under way or what a crash left of one; a row without
its bytes cannot be: they come before their row and go after it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import BinaryIO, Protocol

Piece = bytes | memoryview


class Packs(Protocol):
    """Named sequences of bytes, written once. Thread-safe; every method may block on a disk."""

    def new(self) -> AbstractContextManager[str]:
        """The id of a pack to be made. Within the block `listing` says that it is being made:
        write its bytes and commit its row there."""

    def create(self, pack: str) -> AbstractContextManager[BinaryIO]:
        """What to write its bytes to, durable at the end of the block and gone if that fails. Of
        what is written already, only the first bytes may be written again. Unavailable when the
        disk is full."""

    def write(self, pack: str, pieces: Iterable[Piece]) -> None:
        """Make a pack of these pieces, durable on return."""

    def open(self, pack: str) -> BinaryIO:
        """For reading; FileNotFoundError where it was collected meanwhile."""

    def remove(self, pack: str) -> int:
        """Delete a pack whose row is gone; the bytes that this freed."""

    def listing(self) -> tuple[list[str], set[str]]:
        """All packs that are there, and then the ids of those still being made. One that is not
        among the latter and has no row now is an orphan."""

    def require_space(self, needed: int) -> None:
        """Unavailable where it is known that `needed` more bytes do not fit."""


class Unfinished:
    """Ids of packs being made. Thread-safe."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._gate = Lock()

    @contextmanager
    def new(self) -> Iterator[str]:
        """See `Packs.new`."""
        pack = secrets.token_hex(16)
        with self._gate:
            self._ids.add(pack)
        try:
            yield pack
        finally:
            with self._gate:
                self._ids.discard(pack)

    def now(self) -> set[str]:
        """Those being made at this moment."""
        with self._gate:
            return set(self._ids)
