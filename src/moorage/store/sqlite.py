"""The embedded database: one SQLite file, one process, one writing thread, many readers.

WAL lets readers go on while the writer commits; `synchronous=FULL` makes a commit durable before
it returns. Each read takes an idle connection of its own, so that no reader waits for another.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import quote

from moorage.store import sql
from moorage.store.base import Params, Row, Statement, StatementRefused, StoreBroken
from moorage.store.lock import FileLock
from moorage.store.sqlite_errors import damaged, meaning
from moorage.store.sqlite_file import SqliteFile
from moorage.store.sqlite_wait import PATIENCE, patient

_OLDEST = (3, 38, 0)
_LOOK = "SELECT count(*) FROM sqlite_master"
_CHECKED_AT_OPEN = 64 * 1024 * 1024
"""Bytes up to which the whole file is checked at open (about 0.1 s); a larger one is checked page
by page as it is read."""

_ORDER = MappingProxyType(
    {
        query: place
        for place, query in enumerate(
            (
                "insert_run",
                "insert_job",
                "insert_run_blob",
                "insert_attempt",
                "update_attempt",
                "update_job",
                "update_run",
                "insert_event",
            )
        )
    }
)
"""Statements of one transaction among which only the order of equal ones, and of a row's insertion
before all else, matters: each writes one row of its own table and reads no other."""

_DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeError)


class SqliteStore:
    """Implements `store.base.Store`; made by `open_sqlite`."""

    def __init__(self, path: Path, lock: FileLock, writer: sqlite3.Connection) -> None:
        self.file = SqliteFile(path)
        """What can be done to the file beside reading and writing rows."""
        self._path = path
        self._lock = lock
        self._writer = writer
        self._idle: deque[sqlite3.Connection] = deque()
        self._queries = {name: query.text for name, query in sql.queries("sqlite").items()}
        self._closed = threading.Event()

    def write(self, batch: Sequence[Statement]) -> None:
        """See `Store.write`. Neighbours that share a query are prepared once."""
        if self._closed.is_set():
            raise StoreBroken("the store is closed")
        name = ""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for name, statements in groupby(_arranged(batch), key=_query_of):
                text = self._text(name)
                self._writer.executemany(text, (statement.params for statement in statements))
            self._writer.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if isinstance(error, _DRIVER_ERRORS):
                raise meaning(error, self._path, name) from error
            raise

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        """See `Store.read`."""
        if self._closed.is_set():
            raise StoreBroken("the store is closed")
        text = self._text(query)
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _connect(self._path, read_only=True)
        try:
            cursor = connection.execute(text, params or {})
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except _DRIVER_ERRORS as error:
            raise meaning(error, self._path, query) from error
        finally:
            self._idle.append(connection)
            if self._closed.is_set():  # closed while this read was under way
                self._drop_readers()

    def close(self) -> None:
        """See `Store.close`. Call it after the writer's."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._drop_readers()
        self._writer.close()
        self._lock.release()

    def _text(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise StatementRefused(f"there is no query named {name}") from None

    def _drop_readers(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _arranged(batch: Sequence[Statement]) -> Iterator[Statement]:
    """The same in its effect, with more neighbours that share a query."""
    for commute, part in groupby(batch, key=_commutes):
        if commute:
            yield from sorted(part, key=_place_of)
        else:
            yield from part


def _commutes(statement: Statement) -> bool:
    return statement.query in _ORDER


def _place_of(statement: Statement) -> int:
    return _ORDER[statement.query]


def _query_of(statement: Statement) -> str:
    return statement.query


def open_sqlite(path: Path) -> SqliteStore:
    """Open the database at `path`, or make it (mode 0600), and bring its schema up to date.

    StoreBroken, with the remedy, when another process has it open, when it is damaged, not ours,
    or from a newer version. A file that exists is never replaced.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreBroken(
            f"SQLite {sqlite3.sqlite_version} is too old: use a Python built with 3.38 or newer"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreBroken(f"cannot make {path.parent}: {error.strerror}") from error
    lock = FileLock(path.with_name(path.name + ".lock"), f"the database {path}")
    try:
        _create(path)
        _recognize(path)
        connection = _connect(path, read_only=False)
        try:
            _migrate(connection, path)
            _convert(path)
            connection.execute("PRAGMA foreign_keys = ON")
            return SqliteStore(path, lock, connection)
        except BaseException:
            connection.close()
            raise
    except _DRIVER_ERRORS as error:
        lock.release()
        raise meaning(error, path) from error
    except BaseException:
        lock.release()
        raise


def examine_sqlite(path: Path) -> SqliteStore:
    """The database as it lies there, whatever is wrong with it: nothing is checked or migrated.
    StoreBroken where there is none, or a server has it open."""
    if not path.exists():
        raise StoreBroken(f"there is no database at {path}")
    lock = FileLock(path.with_name(path.name + ".lock"), f"the database {path}")
    try:
        return SqliteStore(path, lock, _connect(path, read_only=False))
    except BaseException:
        lock.release()
        raise


def _create(path: Path) -> None:
    """Make the file before SQLite does: its mode is right from the first moment, and the files
    beside it (`-wal`, `-shm`) inherit it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreBroken(f"cannot open the database {path}: {error.strerror}") from error


def _recognize(path: Path) -> None:
    """StoreBroken for a file of another program, a newer one, and one that is damaged: before the
    journal's mode or anything else of it is changed."""
    if not path.stat().st_size:
        return
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        patient(connection, path, _LOOK).fetchone()
        _check(connection, path)
        _version(connection, path)
    finally:
        connection.close()


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    try:
        # Transactions are ours to begin; a reader moves from thread to thread, one at a time.
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.Error as error:
        raise meaning(error, path) from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            return connection
        if not path.stat().st_size:  # only before the first table is made
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = cast(str, patient(connection, path, "PRAGMA journal_mode = WAL").fetchone()[0])
        if mode != "wal":
            raise StoreBroken(
                f"{path} lies on a filesystem without shared memory: use a local one"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16384")  # KiB: digests insert in random places
        connection.execute(f"PRAGMA journal_size_limit = {_CHECKED_AT_OPEN}")
    except sqlite3.Error as error:
        connection.close()
        raise meaning(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _convert(path: Path) -> None:
    """Files of before 0.2 cannot shrink until they are written anew. A large one takes long:
    `moorage server check --repair` does it when it suits."""
    file = SqliteFile(path)
    size = path.stat().st_size
    if file.can_shrink() or size > _CHECKED_AT_OPEN:
        return
    if shutil.disk_usage(path.parent).free > 3 * size:
        file.convert()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > _CHECKED_AT_OPEN:
        return
    verdict = cast(str, connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        raise StoreBroken(damaged(path, verdict.splitlines()[-1]))


def _version(connection: sqlite3.Connection, path: Path) -> int:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    row = None
    if "meta" in tables:
        query = sql.queries("sqlite")["meta"].text
        row = connection.execute(query, {"key": "schema_version"}).fetchone()
    if row is None:
        raise StoreBroken(f"{path} is a database, but not moorage's: use another MOORAGE_HOME")
    version, known = int(row[0]), len(sql.migrations())
    if version > known:
        raise StoreBroken(
            f"{path} was written by a newer moorage (schema {version}, this one knows "
            f"{known}): install that version, or use another MOORAGE_HOME"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the missing steps, all or none. Foreign keys are off, so that a step may rebuild a
    table, and checked at the end."""
    known = sql.migrations()
    patient(connection, path, "BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)
        for step in known[version:]:
            for statement in statements(sql.for_sqlite(step.text)):
                connection.execute(statement)
            set_meta = sql.queries("sqlite")["set_meta"].text
            connection.execute(set_meta, {"key": "schema_version", "value": str(step.version)})
        moved = version < len(known)
        if moved and connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise StoreBroken(damaged(path, "rows refer to rows that do not exist"))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(text: str) -> list[str]:
    """The statements of a script, one by one: `executescript` would commit before it begins."""
    found: list[str] = []
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
