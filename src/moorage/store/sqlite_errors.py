"""What an SQLite error means: a statement that is impossible, or a database that is unusable."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from moorage.store.base import StatementRefused, StoreBroken
from moorage.store.sqlite_wait import locker

_IMPOSSIBLE = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LITTLE_SPACE = 1 << 20
"""SQLite reports a full disk as an I/O error where it cannot grow its helper files."""


def meaning(error: Exception, path: Path, query: str = "") -> StatementRefused | StoreBroken:
    """The error to raise for one that `sqlite3` raised. Texts never hold parameters' values."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and not isinstance(error, sqlite3.OperationalError):
        # Raised by the driver before SQLite saw anything: a missing or unsuitable parameter.
        return StatementRefused(f"query {query}: {_harmless(error)}")
    primary = (code or 0) & 0xFF
    if primary in _IMPOSSIBLE:
        return StatementRefused(f"query {query}: {error}")
    return StoreBroken(_reason(primary, error, path))


def _harmless(error: Exception) -> str:
    if isinstance(error, UnicodeError):  # its text quotes the value
        return "a parameter is not valid Unicode"
    return str(error)


def _reason(primary: int, error: Exception, path: Path) -> str:
    if primary in _DAMAGED:
        return damaged(path, str(error))
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is locked by {locker(path)}: end it, then start the server again"
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return f"{path} cannot be written: make the file and its directory writable for this user"
    if primary == sqlite3.SQLITE_CANTOPEN:
        return f"{path} cannot be opened: check the permissions of the file and its directory"
    free = shutil.disk_usage(path.parent).free
    if primary == sqlite3.SQLITE_FULL or free < _LITTLE_SPACE:
        return (
            f"the disk is full ({free} bytes free) and {path} cannot grow: "
            "free some space, then start the server again"
        )
    return f"{path}: {error}; check the disk (dmesg), then start the server again"


def damaged(path: Path, detail: str) -> str:
    """What to do about a file that is no sound database."""
    return (
        f"{path} is damaged or not a database ({detail}); it was left as it is: restore a backup "
        "with 'moorage server restore FILE' in a new home, or save what can be read with "
        f"'sqlite3 {path.name} .recover' and put that in its place"
    )
