"""Changes of a job on their way into the bucket (`sync_back: true`).

An object is written only where it still is what the copy was made of. Where somebody else changed
it meanwhile, theirs stays, and the job's is stored beside it as `<key>.moorage-<attempt>`: nothing
is lost, and no one has to guess which was meant. An object that was removed meanwhile is written
anew. What the job removed stays in the bucket.

What is done is written down, so an agent that is started anew goes on with the rest; an upload of
which nobody could write down that it was done is known by its content.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moorage.data.base import SourceError
from moorage.data.buckets import Moved, NotFlushed
from moorage.data.copies.changes import Change
from moorage.data.copies.crew import Crew, Stalled, Stopped
from moorage.data.copies.shelf import Away, Conflict, Shelf
from moorage.data.objects.bucket import Found
from moorage.data.transfer.names import reason_against_key
from moorage.units import format_duration

_PARALLEL = 8
_PAUSES = (0.5, 1, 2, 5, 10, 30)
"""Seconds between two tries where a store does not answer."""


class SyncBack:
    """Uploads of one attempt. `key_of` gives the key for a path, `name` is the attempt's."""

    def __init__(
        self,
        shelf: Shelf,
        root: Path,
        journal: Path,
        name: str,
        key_of: Callable[[str], str],
        tell: Callable[[Moved], None],
    ) -> None:
        self._shelf, self._root, self._journal = shelf, root, journal
        self._name, self._key_of, self._tell = name, key_of, tell
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._failed: dict[str, str] = {}
        self._away = ""
        self._beside: list[str] = []

    def run(self, changes: list[Change], patience: float) -> None:
        """Upload all. `patience`: seconds without a byte that moves, after which it is given up.
        NotFlushed with those that are left; Stopped."""
        known = self._read()
        left = {c.path: c for c in changes if known.get(c.path) != self._identity(c.path)}
        self._total = sum(change.size for change in changes)
        self._done = self._total - sum(change.size for change in left.values())
        self._tell(Moved(self._done, self._total))
        pending = set(left)

        def work(change: Change) -> None:
            try:
                self._try(change, crew)
            except (SourceError, OSError) as error:
                if isinstance(error, Stopped):
                    raise
                self._failed[change.path] = _reason(error)
            else:
                pending.discard(change.path)

        crew: Crew[Change] = Crew(work, min(_PARALLEL, max(1, len(left))))
        try:
            crew.run(left.values(), patience)
        except Stalled:
            nothing = f"nothing could be uploaded for {format_duration(patience)}"
            raise NotFlushed(self._away or nothing, sorted(pending)) from None
        if pending:
            first = min(pending)
            raise NotFlushed(f"{first}: {self._failed[first]}", sorted(pending))

    def notes(self) -> list[str]:
        """What is worth saying about it."""
        if not self._beside:
            return []
        named = ", ".join(sorted(self._beside)[:3]) + (", ..." if len(self._beside) > 3 else "")
        return [f"changed by somebody else meanwhile, and stored beside theirs: {named}"]

    def _try(self, change: Change, crew: Crew[Change]) -> None:
        """One file, again and again while the store is away. SourceError, OSError."""
        key = self._key_of(change.path)
        if why := reason_against_key(key):
            raise SourceError(why)
        tries = 0
        while True:
            identity = self._identity(change.path)
            gone = 0

            def arrived(size: int) -> None:
                nonlocal gone
                crew.check()
                crew.moved()
                gone += size
                self._moved(size)

            try:
                self._upload(change, key, arrived)
            except Away as error:
                self._away = str(error)
                self._moved(-gone)
                crew.pause(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
            else:
                self._moved(change.size - gone)
                crew.moved()
                self._write(change.path, identity)
                return

    def _upload(self, change: Change, key: str, arrived: Callable[[int], None]) -> None:
        path = self._root / change.path
        base = change.base.found if change.base is not None else None
        try:
            self._shelf.put(key, path, change.size, base, arrived)
        except Conflict:
            pass
        else:
            return
        now = self._shelf.find(key)
        if now is not None and self._shelf.same(now, path):
            return  # uploaded before the agent died, or by another rank
        if now is None:
            with suppress(Conflict):
                self._shelf.put(key, path, change.size, None, arrived)
                return
        self._put_beside(f"{key}.moorage-{self._name}", path, change.size, arrived)
        with self._lock:
            self._beside.append(f"{key}.moorage-{self._name}")

    def _put_beside(self, key: str, path: Path, size: int, arrived: Callable[[int], None]) -> None:
        try:
            self._shelf.put(key, path, size, None, arrived)
        except Conflict:
            there: Found | None = self._shelf.find(key)
            if there is None or not self._shelf.same(there, path):
                raise SourceError(f"{key} is in the way; remove it") from None

    def _moved(self, size: int) -> None:
        with self._lock:
            self._done += size
            done = self._done
        self._tell(Moved(done, self._total))

    def _identity(self, path: str) -> list[int]:
        status = os.lstat(self._root / path)
        return [status.st_size, status.st_mtime_ns]

    def _read(self) -> dict[str, list[int]]:
        known: dict[str, list[int]] = {}
        with suppress(FileNotFoundError):
            for line in self._journal.read_text().splitlines():
                with suppress(ValueError, TypeError):  # the last one may be torn
                    path, *identity = json.loads(line)
                    known[path] = identity
        return known

    def _write(self, path: str, identity: list[int]) -> None:
        with self._lock, open(self._journal, "a") as file:
            file.write(json.dumps([path, *identity]) + "\n")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
