"""The embedded store as one end of a transfer: the file and the packs beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moorage.store.base import StoreBroken
from moorage.store.packfiles import PackFiles
from moorage.store.sqlite import open_sqlite
from moorage.store.sqlite_errors import damaged, meaning
from moorage.store.transfer import NUMBERED, Cells

_PIECE = 1024 * 1024


class SqliteEnd:
    """Implements `store.transfer.End` for a server's directory."""

    def __init__(self, directory: Path) -> None:
        """StoreBroken, with the remedy, where a server uses it or it cannot be used."""
        self._path = directory / "moorage.db"
        self._new: list[str] = []
        self._store = open_sqlite(self._path)  # which holds the lock
        try:
            self._packs = PackFiles(directory / "packs")
            self._connection = sqlite3.connect(self._path, isolation_level=None)
        except BaseException:
            self._store.close()
            raise
        with self._translated():
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE")

    @property
    def place(self) -> str:
        """See `End.place`."""
        return str(self._path)

    @property
    def remedy(self) -> str:
        """See `End.remedy`."""
        return f"move {self._path}* and {self._path.parent}/packs away, or delete them"

    def columns(self, table: str) -> tuple[str, ...]:
        """See `End.columns`."""
        with self._translated():
            found = self._connection.execute(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608 - ours
            return tuple(column[0] for column in found.description)

    def count(self, table: str) -> int:
        """See `End.count`."""
        with self._translated():
            return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Cells]:
        """See `End.rows`."""
        with self._translated():
            yield from self._connection.execute(f"SELECT {_names(columns)} FROM {table}")  # noqa: S608 - ours

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Cells]) -> None:
        """See `End.fill`."""
        places = ", ".join("?" * len(columns))
        with self._translated():
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - ours
            self._connection.executemany(
                f"INSERT INTO {table} ({_names(columns)}) VALUES ({places})",  # noqa: S608 - ours
                rows,
            )

    def pieces(self, pack: str) -> Iterator[bytes]:
        """See `End.pieces`."""
        with self._packs.open(pack) as file:
            while piece := file.read(_PIECE):
                yield piece

    def fill_pack(self, pack: str, pieces: Iterable[bytes]) -> None:
        """See `End.fill_pack`. What a transfer that was cut off left there goes first."""
        self._packs.remove(pack)
        self._new.append(pack)
        self._packs.write(pack, pieces)

    def last_number(self) -> int:
        """See `End.last_number`."""
        text = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?"
        with self._translated():
            return int(self._connection.execute(text, NUMBERED[:1]).fetchone()[0])

    def number_from(self, last: int) -> None:
        """See `End.number_from`."""
        with self._translated():
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", NUMBERED[:1])
            text = "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)"
            self._connection.execute(text, (NUMBERED[0], last))

    def commit(self) -> None:
        """See `End.commit`."""
        with self._translated():
            if self._connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StoreBroken(damaged(self._path, "rows refer to rows that do not exist"))
            self._connection.execute("COMMIT")
            self._new.clear()

    def close(self) -> None:
        """See `End.close`. Packs that were not committed go: the disk may be full of them."""
        for pack in self._new:
            self._packs.remove(pack)
        self._connection.close()
        self._store.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise meaning(error, self._path, "transfer") from error


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
