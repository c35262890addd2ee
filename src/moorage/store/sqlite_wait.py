"""Waiting for the lock of another program on an SQLite file, and saying so before long."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from moorage.store.lock import holder_of

PATIENCE = 10.0
"""Seconds that a lock of another program is waited for."""
QUIET = 1.0
"""Seconds of that before it is said: most locks are short."""
_log = logging.getLogger(__name__)


def patient(connection: sqlite3.Connection, path: Path, text: str) -> sqlite3.Cursor:
    """The statement's result, and from then on PATIENCE for all others. sqlite3.Error where the
    lock is still held then."""
    connection.execute(f"PRAGMA busy_timeout = {QUIET * 1000:.0f}")
    try:
        found = connection.execute(text)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        _log.warning(
            "%s is locked by %s; waiting up to %.0f s for it", path, locker(path), PATIENCE
        )
        _be_patient(connection)
        return connection.execute(text)
    _be_patient(connection)
    return found


def locker(path: Path) -> str:
    """Who holds the lock, in words."""
    return holder_of((path, path.with_name(path.name + "-shm")))


def _be_patient(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
