"""A PostgreSQL database as one end of a transfer: rows and packs by COPY; and a copy of all its
rows, as of one moment, while servers use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from moorage.store.databasepacks import PART
from moorage.store.postgres import open_postgres
from moorage.store.postgres_errors import Place, meaning_of, place_of
from moorage.store.postgres_store import PostgresStore
from moorage.store.telling import Tell, nobody
from moorage.store.transfer import NUMBERED, Cells, copy_rows
from moorage.store.transfer_sqlite import SqliteEnd

_AT_ONCE = 5000


class PostgresView:
    """Implements `store.transfer.Source` over a connection with a transaction of one moment."""

    def __init__(self, connection: psycopg.Connection, where: Place) -> None:
        self._connection = connection
        self._where = where

    def columns(self, table: str) -> tuple[str, ...]:
        """See `End.columns`."""
        with self._translated():
            found = self._execute("SELECT * FROM {} LIMIT 0", table)
            return tuple(column.name for column in found.description or ())

    def count(self, table: str) -> int:
        """See `End.count`."""
        with self._translated():
            return int(self._value("SELECT count(*) FROM {}", table))

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Cells]:
        """See `End.rows`."""
        text = sql.SQL("SELECT {} FROM {}").format(_names(columns), sql.Identifier(table))
        with self._translated(), self._connection.cursor(name="transfer") as cursor:
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(text)

    def pieces(self, pack: str) -> Iterator[bytes]:
        """See `End.pieces`."""
        text = "SELECT data FROM pack_parts WHERE pack = %s AND part = %s"
        part = 0
        with self._translated():
            while row := self._connection.execute(text, (pack, part)).fetchone():
                yield row[0]
                part += 1
        if not part:
            raise FileNotFoundError(pack)

    def last_number(self) -> int:
        """See `End.last_number`."""
        with self._translated():
            name = self._value("SELECT pg_get_serial_sequence(%s, %s)", params=NUMBERED)
            found = self._connection.execute(
                sql.SQL("SELECT last_value, is_called FROM {}").format(_dotted(name))
            ).fetchone()
        assert found is not None
        return int(found[0]) if found[1] else 0

    def _execute(self, text: str, table: str) -> psycopg.Cursor[Any]:
        named = sql.SQL(text).format(sql.Identifier(table))
        return self._connection.execute(named)

    def _value(self, text: str, table: str = "", params: Sequence[object] = ()) -> Any:
        named = sql.SQL(text).format(sql.Identifier(table)) if table else text
        row = self._connection.execute(named, params).fetchone()
        assert row is not None
        return row[0]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise meaning_of(self._where, error) from error


class PostgresEnd(PostgresView):
    """Implements `store.transfer.End` for a database."""

    def __init__(self, url: str) -> None:
        """StoreBroken, with the remedy, where a server leads there or it cannot be used."""
        self._store = open_postgres(url)
        try:
            super().__init__(self._store.seize(), place_of(url))
            with self._translated():
                self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        except BaseException:
            self._store.close()
            raise

    @property
    def place(self) -> str:
        """See `End.place`."""
        return self._where.text

    @property
    def remedy(self) -> str:
        """See `End.remedy`."""
        return "make an empty one: createdb"

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Cells]) -> None:
        """See `End.fill`. COPY keeps the numbers of a column that numbers itself."""
        text = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _names(columns))
        with self._translated():
            self._execute("DELETE FROM {}", table)
            with self._connection.cursor() as cursor, cursor.copy(text) as copy:
                for row in rows:
                    copy.write_row(row)

    def fill_pack(self, pack: str, pieces: Iterable[bytes]) -> None:
        """See `End.fill_pack`."""
        text = "COPY pack_parts (pack, part, data) FROM STDIN (FORMAT BINARY)"
        with (
            self._translated(),
            self._connection.cursor() as cursor,
            cursor.copy(text) as copy,
        ):
            copy.set_types(["text", "int4", "bytea"])
            for part, data in enumerate(_divided(pieces)):
                copy.write_row((pack, part, data))

    def number_from(self, last: int) -> None:
        """See `End.number_from`."""
        text = "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)"
        with self._translated():
            self._connection.execute(text, (*NUMBERED, max(last, 1), last > 0))

    def commit(self) -> None:
        """See `End.commit`."""
        with self._translated():
            self._connection.execute("COMMIT")
        # The planner knows nothing about tables that were filled a moment ago. They are there by
        # now, also where this fails.
        with suppress(psycopg.Error):
            self._connection.execute("ANALYZE")

    def close(self) -> None:
        """See `End.close`."""
        self._store.close()


def snapshot(store: PostgresStore, target: Path, tell: Tell = nobody) -> None:
    """An SQLite database at `target`, where nothing is, with all rows as of now, while servers go
    on; the caller makes it durable. Unavailable."""
    work = target.with_name(f"{target.name}.making")
    try:
        with store.moment() as (connection, place), closing(SqliteEnd(work)) as copy:
            copy_rows(PostgresView(connection, place), copy, tell)
        (work / "moorage.db").replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)


def _dotted(name: str) -> sql.SQL:
    """A name that the database itself has quoted where that is needed."""
    return sql.SQL(name)


def _divided(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut as `DatabasePacks` reads them."""
    rest = bytearray()
    for piece in pieces:
        rest += piece
        while len(rest) >= PART:
            yield bytes(rest[:PART])
            del rest[:PART]
    if rest:
        yield bytes(rest)
