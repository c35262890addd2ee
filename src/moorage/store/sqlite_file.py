"""What is done to an SQLite file beside its use: giving space back, copying it, proving it.

Each call takes a connection of its own, so that readers and the writer of a running server go on;
only `shrink` takes the writer's lock, for a millisecond or two at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from moorage.store.sqlite_errors import meaning
from moorage.store.telling import Tell, nobody

_STEP = 64
"""Pages given back in one transaction: about a millisecond."""
_COPIED = 2048
"""Pages copied between two looks at whether anybody still wants the copy."""
_INSTRUCTIONS = 100_000
"""Of SQLite's machine, between two such looks: a millisecond or so."""
_SHOWN = 50
_INDEX_ONLY = ("missing from index", "wrong # of entries in index", "non-unique entry in index")


class SqliteFile:
    """A database at `path`. Errors of SQLite are raised as `StoreBroken`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shrink(self) -> bool:
        """Give one step of free pages back to the filesystem; False when none are left (or the
        file was made by a version that could not: see `convert`)."""
        with self._connection() as connection:
            before = _number(connection, "freelist_count")
            if not before or _number(connection, "auto_vacuum") != 2:
                return False
            # Not `execute`: that stops after the first page.
            connection.executescript(f"PRAGMA incremental_vacuum({_STEP})")
            left = _number(connection, "freelist_count")
            return 0 < left < before

    def checkpoint(self) -> None:
        """Move what is committed from the log into the file, and cut the log where nobody reads:
        most without any lock, the rest only if it can be had at once."""
        with self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def free(self) -> int:
        """Bytes of the file that hold nothing."""
        with self._connection() as connection:
            return _number(connection, "freelist_count") * _number(connection, "page_size")

    def can_shrink(self) -> bool:
        """Whether the file was made so that `shrink` works."""
        with self._connection() as connection:
            return _number(connection, "auto_vacuum") == 2

    def convert(self) -> None:
        """Write the file anew, so that it can shrink from then on. Nobody else may use it, and
        it needs its own size once more on the disk."""
        with self._connection() as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")

    def snapshot(self, target: Path, tell: Tell = nobody) -> None:
        """A copy of what is committed now, while the server goes on writing. `target` must not
        exist; the caller makes it durable."""
        with self._connection() as connection, closing(sqlite3.connect(target)) as copy:
            size = _number(connection, "page_size")
            copy.execute("PRAGMA synchronous = OFF")
            # Without a transaction the copy would begin anew at every write of others.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

            def step(_: int, left: int, pages: int) -> None:
                tell("database", (pages - left) * size, pages * size)

            connection.backup(copy, pages=_COPIED, progress=step)
            connection.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it

    def damage(self, tell: Tell = nobody) -> list[str]:
        """What SQLite finds wrong in the file: pages, indexes, references."""
        with self._connection() as connection, _watched(connection, tell):
            found = connection.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()
            lines = [str(row[0]) for row in found if row[0] != "ok"]
            for row in connection.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN):
                lines.append(f"a row of {row[0]} (number {row[1]}) refers to no row of {row[2]}")
            return lines

    def reindex(self) -> None:
        """Build every index anew from its table."""
        with self._connection() as connection:
            connection.execute("REINDEX")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
                connection.execute("PRAGMA busy_timeout = 10000")
                yield connection
        except sqlite3.Error as error:
            raise meaning(error, self.path) from error


@contextmanager
def _watched(connection: sqlite3.Connection, tell: Tell) -> Iterator[None]:
    """Lets `tell` end a statement that takes long."""
    raised: list[Exception] = []

    def look() -> bool:
        try:
            tell("pages", 0, 0)
        except Exception as error:  # SQLite can only be told to stop
            raised.append(error)
        return bool(raised)

    connection.set_progress_handler(look, _INSTRUCTIONS)
    try:
        yield
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise


def is_index_damage(line: str) -> bool:
    """Whether `reindex` mends what this line of `damage` says."""
    return any(words in line for words in _INDEX_ONLY)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
