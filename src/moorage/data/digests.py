"""What files hashed to, kept between runs of the client, so that an unchanged tree is not read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from moorage.data.hashing import Known
from moorage.ids import Digest

_SETTLED_NS = 2 * 10**9
"""A file is believed by its times only when it was hashed this long after its last change: within
the clock's granularity it could be written again without a trace (git's racy check)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    digest TEXT
) WITHOUT ROWID
"""


Row = tuple[str, int, int, int, int, Digest]
"""A path, its identity (four columns) and its digest."""


class DigestCache:
    """Remembers digests in an SQLite file. It is only ever a shortcut: a file that is damaged is
    replaced, and where nothing can be stored everything is hashed again. `patience`: seconds to
    wait for another process that holds it."""

    def __init__(self, path: Path, *, patience: float = 2.0) -> None:
        self._path = path
        self._patience = patience

    def known(self, root: str) -> dict[str, Row]:
        """All remembered files at or below `root` (an absolute path), by path."""
        low = root.rstrip("/") + "/"
        rows: list[Row] = []
        try:
            connection = self._connect()
            try:
                rows = connection.execute(
                    "SELECT path, size, mtime_ns, ctime_ns, inode, digest FROM digests "
                    "WHERE path = ? OR (path >= ? AND path < ?)",
                    (root, low, low[:-1] + "0"),
                ).fetchall()
            finally:
                connection.close()
        except sqlite3.OperationalError:
            pass  # locked, or no place to write: do without
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
        return {row[0]: row for row in rows}

    def remember(self, new: Mapping[str, Known], gone: Iterable[str], hashed_at: int) -> None:
        """Store files that were hashed from `hashed_at` (ns) on, forget those that are gone."""
        settled = [
            (path, *known.identity, known.digest)
            for path, known in new.items()
            if hashed_at - max(known.identity[1:3]) > _SETTLED_NS
        ]
        lost = [(path,) for path in gone]
        if not settled and not lost:
            return
        try:
            connection = self._connect()
            try:
                with connection:
                    connection.executemany("DELETE FROM digests WHERE path = ?", lost)
                    connection.executemany(
                        "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", settled
                    )
            finally:
                connection.close()
        except sqlite3.Error:
            pass  # only a shortcut

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=self._patience)
        try:
            # A lost entry costs one hash, so nothing here waits for the disk.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def now() -> int:
    """Wall time in nanoseconds: the clock that files are stamped with."""
    return time.time_ns()
