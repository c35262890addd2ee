"""Sessions of PostgreSQL: how they are opened, and how batches go through the writer's.

A batch is one pipeline: BEGIN, the statements, COMMIT, and one round trip. Values go as text of no
declared type, so that each query is prepared once, whatever it is given; this costs a quarter of
what the driver's own cursors take (`docs/adr/0008-postgresql.md`).
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from moorage.store.base import Params, Statement, StatementRefused, StoreBroken
from moorage.store.leader import Interrupted
from moorage.store.postgres_errors import Place, meaning, meaning_of

_TRANSPORT = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "moorage",
}
"""A database machine that vanishes is noticed within about ten seconds."""
_ALWAYS = "SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
_SIDE = _ALWAYS + "SET default_transaction_read_only = on; SET plan_cache_mode = force_custom_plan"
_WRITER = (
    _ALWAYS + "SET default_transaction_read_only = off; "
    "SET statement_timeout = 0; SET lock_timeout = 0; "
    # A dead leader's machine must not keep the lock: the database looks whether we are there.
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 10000; SET client_connection_check_interval = 2000"
)
_WEAK = frozenset({b"off", b"local", b"remote_write"})
_PATIENCE_FOR_LOCKS = b"SET lock_timeout = '10s'"
_ONE_WAIT = b"SET lock_timeout = '60s'"
"""How long one statement waits for the leader's lock before it is sent again: as long as it runs,
VACUUM must keep every row that it could see, of all tables."""
_LOCK_TIMEOUT = b"55P03"
_DONE = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})
_FLUSH_EVERY = 512
PATIENCE = 30.0
"""Seconds without a byte of an answer after which a database counts as lost: one that is frozen
keeps its connections, and nothing else would end the wait. Waits for locks end before."""

READ, WRITE = select.POLLIN, select.POLLOUT
_EVENTS = {Wait.R: READ, Wait.W: WRITE, Wait.RW: READ | WRITE}

T = TypeVar("T")
Values = list[bytes | None]


class Prepared(NamedTuple):
    """A query as PostgreSQL takes it."""

    text: bytes
    names: tuple[str, ...]


class Impatient(psycopg.Connection[TupleRow]):
    """A connection whose statements fail where the database says nothing for PATIENCE seconds."""

    def wait(self, gen: PQGen[T], *_: Any, **__: Any) -> T:
        """Called by psycopg wherever it waits, once it is connected."""
        try:
            wanted = next(gen)
            while found := ready({self.fileno(): _EVENTS[wanted]}, PATIENCE):
                wanted = gen.send(_readiness(found[self.fileno()]))
        except StopIteration as end:
            return cast(T, end.value)
        self.close()
        raise psycopg.OperationalError(_silence())


def connect(
    url: str,
    place: Place,
    settings: str = _SIDE,
    kind: type[psycopg.Connection[TupleRow]] = psycopg.Connection,
) -> psycopg.Connection[TupleRow]:
    """A session in which each statement is its own transaction; StoreBroken without one."""
    try:
        known = psycopg.conninfo.conninfo_to_dict(url)
        extra = {key: value for key, value in _TRANSPORT.items() if key not in known}
        connection = kind.connect(url, autocommit=True, **extra)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise meaning_of(place, error) from None
    try:
        connection.execute(settings.encode())
    except psycopg.Error as error:
        connection.close()
        raise meaning_of(place, error) from error
    return connection


class WriterSession:
    """The one session that writes. Everything but `interrupt` belongs to one thread at a time."""

    def __init__(self, url: str, place: Place, queries: Mapping[str, Prepared]) -> None:
        self._place = place
        self._queries = queries
        self._prepared: dict[str, bytes] = {}
        self._made = 0
        self._gate = Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.connection = connect(url, place, _WRITER)
        except BaseException:
            os.close(self._wake)
            raise
        self._link = self.connection.pgconn
        if self._value(b"SHOW synchronous_commit") in _WEAK:
            self._command(b"SET synchronous_commit = on")

    def close(self) -> None:
        """End the session, and with it a lock that it holds. May be called twice."""
        self.connection.close()
        with self._gate:
            if self._wake >= 0:
                os.close(self._wake)
            self._wake = -1

    def interrupt(self) -> None:
        """End a wait for a lock, now or to come."""
        with self._gate:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def lock(self, key: int, place: int) -> None:
        """Wait for an advisory lock of two numbers, as long as it takes; see
        `Leadership.acquire`. It is held to the end of the session."""
        self._require_own_session()
        self._command(_ONE_WAIT)
        try:
            while not self._granted(key, place):
                pass
        except psycopg.Error as error:
            raise meaning_of(self._place, error) from error
        self._command(_PATIENCE_FOR_LOCKS)

    def _granted(self, key: int, place: int) -> bool:
        """Wait for the lock for as long as one statement may."""
        self._link.send_query_params(
            b"SELECT pg_advisory_lock($1::int, $2::int)", [b"%d" % key, b"%d" % place]
        )
        self._await_reply()
        result = self._link.get_result()
        waited = result is not None and _state(result) == _LOCK_TIMEOUT
        if not waited and (result is None or result.status != pq.ExecStatus.TUPLES_OK):
            raise self._failed(result)
        while self._link.get_result() is not None:
            pass
        return not waited

    def try_lock(self, key: int, place: int) -> bool:
        """Take the same lock if it is free, or about to be: a session that just ended holds it
        for a moment longer. Whether it was."""
        self._require_own_session()
        self._command(b"SET lock_timeout = '3s'")
        result = self._answer(b"SELECT pg_advisory_lock(%d, %d)" % (key, place))
        if _state(result) == _LOCK_TIMEOUT:
            return False
        if result.status not in _DONE:
            raise self._failed(result)
        self._command(_PATIENCE_FOR_LOCKS)
        return True

    def never_stale(self) -> None:
        """Nobody is to end this session for giving no signs of life: see the query `pulse`."""
        self._command(b"SET application_name = 'moorage offline'")

    def _require_own_session(self) -> None:
        if self._value(b"SELECT pg_backend_pid()") != b"%d" % self._link.backend_pid:
            raise self._place.broken(
                "a connection pooler stands between, and the leader's lock needs a session of its "
                "own: give the address of the database itself"
            )

    def _await_reply(self) -> None:
        while self._link.is_busy():
            if self._wake in ready({self._link.socket: READ, self._wake: READ}):
                # Not cancelled: a frozen database would not answer that either. The database sees
                # within two seconds that the session has gone.
                self.connection.close()
                raise Interrupted("the wait for the leader's lock was interrupted")
            self._link.consume_input()

    def run(self, batch: Sequence[Statement]) -> None:
        """All in order in one transaction, durable on return; see `Store.write`."""
        encoded = [(name, *self._encoded(name, params)) for name, params in batch]
        before = dict(self._prepared)
        try:
            self._link.nonblocking = 1
            self._link.enter_pipeline_mode()
            failure = self._replies(self._send(encoded))
            self._link.exit_pipeline_mode()
            self._link.nonblocking = 0
            if failure is not None:
                self._prepared = before  # which of the new ones came to be is not known
                self._command(b"ROLLBACK")
        except BaseException as error:
            self.connection.close()  # in the middle of a pipeline nothing else can be said
            if isinstance(error, psycopg.Error):
                raise meaning_of(self._place, error) from error
            raise
        if failure is not None:
            raise failure

    def _encoded(self, name: str, params: Params) -> tuple[Values, list[int] | None]:
        query = self._queries.get(name)
        if query is None:
            raise StatementRefused(f"there is no query named {name}")
        try:
            values = [as_text(params[parameter]) for parameter in query.names]
        except KeyError as error:
            raise StatementRefused(f"query {name}: no parameter {error.args[0]}") from None
        except (TypeError, UnicodeError):  # whose text quotes the value
            raise StatementRefused(f"query {name}: a parameter cannot be stored") from None
        binary = [int(type(params[parameter]) is bytes) for parameter in query.names]
        return values, binary if any(binary) else None

    def _send(self, encoded: Iterable[tuple[str, Values, list[int] | None]]) -> list[str]:
        """Queue the whole pipeline; the names of what a reply is to come for."""
        link = self._link
        link.send_query_params(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", None)
        sent = ["BEGIN"]
        for name, values, formats in encoded:
            prepared = self._prepared.get(name)
            if prepared is None:
                self._made += 1
                prepared = self._prepared[name] = b"q%d" % self._made
                link.send_prepare(prepared, self._queries[name].text)
                sent.append(name)
            link.send_query_prepared(prepared, values, formats)
            sent.append(name)
            if len(sent) % _FLUSH_EVERY == 0:
                link.flush()
                link.consume_input()
        link.send_query_params(b"COMMIT", None)
        link.pipeline_sync()
        return [*sent, "COMMIT"]

    def _replies(self, sent: Sequence[str]) -> StatementRefused | StoreBroken | None:
        """Read a reply for each and the end of the pipeline; the first error."""
        found: StatementRefused | StoreBroken | None = None
        for name in sent:
            result = self._next()
            if found is None and result.status not in _DONE:
                found = self._failed(result, name)
        while self._next().status != pq.ExecStatus.PIPELINE_SYNC:
            pass
        return found

    def _next(self) -> pq.abc.PGresult:
        for _ in range(2):  # replies are divided by one None each
            while (more := self._link.flush()) or self._link.is_busy():
                wanted = READ | WRITE if more else READ
                if not ready({self._link.socket: wanted}, PATIENCE):
                    raise self._place.broken(_silence())
                self._link.consume_input()
            result = self._link.get_result()
            if result is not None:
                return result
        raise self._place.broken("the connection was lost; what was being written may be lost")

    def _failed(
        self, result: pq.abc.PGresult | None, query: str = ""
    ) -> StatementRefused | StoreBroken:
        if result is None:
            return self._place.broken("the connection was lost")
        state = _state(result)
        text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        words = text.decode("utf-8", "replace")
        return meaning(self._place, state.decode() if state else None, words, query)

    def _value(self, text: bytes) -> bytes | None:
        return self._command(text).get_value(0, 0)

    def _command(self, text: bytes) -> pq.abc.PGresult:
        result = self._answer(text)
        if result.status not in _DONE:
            raise self._failed(result)
        return result

    def _answer(self, text: bytes) -> pq.abc.PGresult:
        """One statement by itself, whatever comes of it."""
        try:
            self._link.send_query(text)
            result = self._next()
            while self._link.get_result() is not None:
                pass
        except psycopg.Error as error:
            raise meaning_of(self._place, error) from error
        return result


def ready(wanted: Mapping[int, int], seconds: float | None = None) -> dict[int, int]:
    """Which of these descriptors are ready, and for what (bits of `poll`), after at most so many
    seconds. `select` refuses numbers above 1023, which a server with many clients comes to."""
    waiting = select.poll()
    for descriptor, events in wanted.items():
        waiting.register(descriptor, events)
    return dict(waiting.poll(None if seconds is None else seconds * 1000))


def _readiness(found: int) -> Ready:
    """In psycopg's words. What failed is ready for all: the attempt says why."""
    if found & ~(READ | WRITE):
        return Ready.RW
    return Ready(Ready.R * bool(found & READ) | Ready.W * bool(found & WRITE))


def _silence() -> str:
    return f"it has not answered for {PATIENCE:.0f} s; it may be frozen, or its disk"


def _state(result: pq.abc.PGresult) -> bytes | None:
    return result.error_field(pq.DiagnosticField.SQLSTATE)


def as_text(value: object) -> bytes | None:
    """A parameter as PostgreSQL reads it. NUL, which its texts cannot hold, becomes U+FFFD: a
    message from a job must not be what stops the server."""
    kind = type(value)
    if kind is str:
        return value.replace("\0", "\ufffd").encode()  # type: ignore[attr-defined,no-any-return]
    if value is None:
        return None
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(float(value)).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode()
    raise TypeError(kind.__name__)
