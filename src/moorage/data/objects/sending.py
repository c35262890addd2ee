"""The uploads in parts that are under way, and what is to be removed of those that do not end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from moorage.data.objects.errors import StoreProblem

if TYPE_CHECKING:
    from moorage.data.objects.unfinished import Uploads

PIECE = 1024 * 1024
"""Bytes read at once; whole parts, and files that the engine reads itself, took more CPU."""


def pieces(
    file: IO[bytes], size: int, ahead: int, arrived: Callable[[int], None]
) -> Iterator[bytes]:
    """The file's first bytes. So many are on the way at most: those before them have arrived."""
    sent = told = 0
    while sent < size and (piece := file.read(min(PIECE, size - sent))):
        yield piece
        sent += len(piece)
        if sent - ahead > told:
            arrived(sent - ahead - told)
            told = sent - ahead
    arrived(sent - told)


class Sending:
    """Those of one `Bucket`. Thread-safe."""

    def __init__(self, uploads: Callable[[], Uploads]) -> None:
        self._uploads = uploads
        self._since: dict[str, float] = {}
        self._away = False
        self.left: set[str] = set()
        """Keys of which parts may be there still: nobody could remove them."""

    @contextmanager
    def upload(self, key: str) -> Iterator[None]:
        """One is under way. Where it fails, what it has sent is removed."""
        since = self._since[key] = time.time()
        try:
            yield
        except BaseException:
            self._drop(key, since)
            raise
        finally:
            self._since.pop(key, None)

    def give_up(self) -> None:
        """Remove what those that are under way have sent; they fail by that. What is only being
        begun may be missed: call it again while they go on."""
        for key, since in list(self._since.items()):
            self._drop(key, since)

    def _drop(self, key: str, since: float) -> None:
        uploads = self._uploads()
        if not uploads.kept:
            return
        try:
            gone = not self._away and uploads.known and uploads.abort_own(key, since)
        except StoreProblem as error:
            self._away = error.reason == "unreachable"  # nobody waits for it twice
            gone = False
        (self.left.discard if gone else self.left.add)(key)
