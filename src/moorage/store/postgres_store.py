"""A store on PostgreSQL: one session that writes, and a few that read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg.adapt import Dumper
from psycopg.rows import dict_row

from moorage.store import sql
from moorage.store.base import Params, Row, Statement, StatementRefused, StoreBroken
from moorage.store.leader import Identity
from moorage.store.postgres_errors import Place, meaning_of, place_of
from moorage.store.postgres_leader import PostgresLeadership
from moorage.store.postgres_schema import LEADER_LOCK, prepare
from moorage.store.postgres_session import (
    READ,
    Impatient,
    Prepared,
    WriterSession,
    as_text,
    connect,
    ready,
)

_SIDE_CONNECTIONS = 16
"""Beside the writer's, one for each thread that may read at once, so that none waits for another;
two or three in the ordinary. A database has a hundred or so for everyone."""


class PostgresStore:
    """Implements `store.base.Store`; made by `open_postgres`. Good for one term as leader."""

    def __init__(self, url: str, *, migrate: bool = True) -> None:
        self._url = url
        self._place = place_of(url)
        self._queries = {
            name: Prepared(text.encode(), names)
            for name, query in sql.queries("postgres").items()
            for text, names in [sql.numbered(query.text)]
        }
        self._idle: deque[psycopg.Connection] = deque()
        self._free = threading.BoundedSemaphore(_SIDE_CONNECTIONS)
        self._closed = threading.Event()
        self._leads = threading.Event()
        self._writing = threading.Lock()
        self._writer = WriterSession(url, self._place, self._queries)
        try:
            self._schema = prepare(self._writer.connection, self._place, migrate=migrate)
        except BaseException:
            self._writer.close()
            raise

    def leadership(self, identity: Identity) -> PostgresLeadership:
        """This server's part in the choice of a leader; the lock will be this store's."""
        return PostgresLeadership(self, identity)

    def lead(self) -> None:
        """Wait for the lock; see `Leadership.acquire`."""
        with self._writing:
            self._require_open()
            self._writer.lock(LEADER_LOCK, self._schema)
            self._leads.set()

    def seize(self) -> psycopg.Connection:
        """The writer's own connection, with the leader's lock taken at once, for work that no
        server does. StoreBroken while a server leads."""
        with self._writing:
            self._require_open()
            if not self._writer.try_lock(LEADER_LOCK, self._schema):
                raise self._place.broken("a server leads there: stop all its servers first")
            self._writer.never_stale()
            self._leads.set()
            return self._writer.connection

    def interrupt(self) -> None:
        """See `Leadership.interrupt`."""
        self._writer.interrupt()

    @property
    def lock(self) -> Params:
        """The leader's lock in the words of `pg_locks`, whose numbers have no sign."""
        return {"lock": LEADER_LOCK, "place": self._schema % 2**32}

    def write(self, batch: Sequence[Statement]) -> None:
        """See `Store.write`. StoreBroken as well for a server that does not lead, or not any
        more: after the first StoreBroken this store never writes again."""
        with self._writing:
            self._require_open()
            if not self._leads.is_set():
                raise StoreBroken("this server does not lead: only the leader writes")
            try:
                self._writer.run(batch)
            except StoreBroken:
                self._leads.clear()
                raise

    def write_aside(self, batch: Sequence[Statement]) -> None:
        """As `write`, but for any server and thread, and in no order: for rows that no decision
        of a leader depends on, as the announcement of a server or the bytes of a new pack."""
        first = batch[0].query if batch else ""
        with (
            self._borrowed() as connection,
            self._translated(first),
            connection.transaction(),
        ):
            for name, params in batch:
                query = self._query(name)
                psycopg.RawCursor(connection).execute(query.text, _values(query, params))

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        """See `Store.read`."""
        prepared = self._query(query)
        with self._borrowed() as connection, self._translated(query):
            cursor = psycopg.RawCursor(connection, row_factory=dict_row)
            values = _values(prepared, params or {})
            return list(cursor.execute(prepared.text, values).fetchall())

    @contextmanager
    def moment(self) -> Iterator[tuple[psycopg.Connection, Place]]:
        """A connection of its own that sees everything as it is when it first looks, whatever is
        written meanwhile, and which database that is."""
        self._require_open()
        with closing(connect(self._url, self._place)) as connection:
            with self._translated("moment"):
                connection.execute("SET statement_timeout = 0")
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection, self._place

    def close(self) -> None:
        """See `Store.close`. Call it after the writer's; it ends a wait for the lock."""
        self._closed.set()
        self._writer.interrupt()
        with self._writing:
            self._leads.clear()
            self._writer.close()
        self._drop_idle()

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise StoreBroken("the store is closed")

    def _query(self, name: str) -> Prepared:
        try:
            return self._queries[name]
        except KeyError:
            raise StatementRefused(f"there is no query named {name}") from None

    @contextmanager
    def _translated(self, query: str) -> Iterator[None]:
        """Turns what the driver raises into what `Store` promises."""
        try:
            yield
        except psycopg.Error as error:
            raise meaning_of(self._place, error, query) from error
        except KeyError as error:
            raise StatementRefused(f"query {query}: no parameter {error.args[0]}") from None
        except (TypeError, UnicodeError):  # whose text quotes the value
            raise StatementRefused(f"query {query}: a parameter cannot be sent") from None

    @contextmanager
    def _borrowed(self) -> Iterator[psycopg.Connection]:
        """One of the few connections beside the writer's, to give back at the end."""
        self._require_open()
        with self._free:
            connection = self._taken()
            try:
                yield connection
            finally:
                if connection.closed:
                    connection.close()
                else:
                    self._idle.append(connection)
                if self._closed.is_set():  # closed while this one was in use
                    self._drop_idle()

    def _taken(self) -> psycopg.Connection:
        """An idle connection that is still good, or a new one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connected()
            if not connection.closed and not _has_news(connection):
                return connection
            connection.close()

    def _connected(self) -> psycopg.Connection:
        connection = connect(self._url, self._place, kind=Impatient)
        connection.read_only = False  # of `transaction()`; what stands alone may only read
        for kind in (int, float, str, bool):
            connection.adapters.register_dumper(kind, _Untyped)
        return connection

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


class _Untyped(Dumper):
    """Values as text of no declared type: the column decides, as in the writer's session."""

    oid = 0

    def dump(self, obj: object) -> bytes | None:
        return as_text(obj)


def _values(query: Prepared, params: Params) -> list[object]:
    return [params[name] for name in query.names]


def _has_news(connection: psycopg.Connection) -> bool:
    """Whether a connection that nobody uses has something to say: that it was cut, as all are
    when the database restarts."""
    return bool(ready({connection.fileno(): READ}, 0))
