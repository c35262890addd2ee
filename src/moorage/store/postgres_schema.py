"""Brings a PostgreSQL database to the schema of this version, or says why that cannot be."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import errors

from moorage.store import sql
from moorage.store.postgres_errors import Place, meaning_of

LEADER_LOCK = 0x6D6F6F72
SCHEMA_LOCK = LEADER_LOCK + 1
"""First numbers of our advisory locks; the second says which schema of the database is meant."""
_OLDEST = 14
_LAST_MOMENT = "3s"
"""How long it may take the database to see that a server has ended."""
_TABLES = """
    SELECT count(*) FROM pg_class AS c
    WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind IN ('r', 'p')
        AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
"""Tables that are there already, without those of extensions."""
_log = logging.getLogger(__name__)


def prepare(connection: psycopg.Connection, place: Place, *, migrate: bool = True) -> int:
    """Check the database, make or migrate the schema, all or none; without `migrate` only where
    there is one. Returns the number that stands for the schema (in PostgreSQL's sense) in our
    locks."""
    try:
        _require_fit(connection, place)
        schema = int(_one(connection, "SELECT hashtext(current_schema())"))
        version = _version(connection, place)
        _require_known(version, place)
        if not migrate and not version:
            raise place.broken("there is no store of moorage in it: give the address of another")
        if migrate and version < len(sql.migrations()):
            with connection.transaction():
                connection.execute(
                    "SELECT pg_advisory_xact_lock(%s::int, %s::int)", (SCHEMA_LOCK, schema)
                )
                _migrate(connection, place, schema)
    except psycopg.Error as error:
        raise meaning_of(place, error) from error
    return schema


def _require_fit(connection: psycopg.Connection, place: Place) -> None:
    version = connection.info.server_version // 10_000
    if version < _OLDEST:
        raise place.broken(f"PostgreSQL {version} is too old: use {_OLDEST} or newer")
    if _one(connection, "SELECT pg_is_in_recovery()"):
        raise place.broken(
            "it is a replica and cannot be written: give the address of the primary server"
        )
    if _one(connection, "SHOW server_encoding") != "UTF8":
        raise place.broken("its encoding is not UTF8: make it with createdb --encoding=UTF8")
    if _one(connection, "SELECT current_schema()") is None:
        raise place.broken("the schema that search_path names does not exist: create it")
    if _one(connection, "SHOW fsync") != "on":
        _log.warning("%s: fsync is off, so a power cut can lose what was acknowledged", place.text)


def _version(connection: psycopg.Connection, place: Place) -> int:
    if not _one(connection, _TABLES):
        return 0
    try:
        found = _one(connection, "SELECT value FROM meta WHERE key = 'schema_version'")
        return int(found or "")
    except (errors.UndefinedTable, errors.UndefinedColumn, ValueError):
        raise place.broken(
            "it holds something else than moorage's tables: make an empty database with createdb"
        ) from None


def _migrate(connection: psycopg.Connection, place: Place, schema: int) -> None:
    version = _version(connection, place)
    known = sql.migrations()
    _require_known(version, place)
    if 0 < version < len(known) and not _nobody_leads(connection, schema):
        raise place.broken(
            f"a server of an older version leads (schema {version}, this one makes "
            f"{len(known)}): stop the older servers first"
        )
    text, names = sql.numbered(sql.queries("postgres")["set_meta"].text)
    with psycopg.RawCursor(connection) as cursor:
        for step in known[version:]:
            cursor.execute(sql.for_postgres(step.text).encode())
            row = {"key": "schema_version", "value": str(step.version)}
            cursor.execute(text.encode(), [row[name] for name in names])


def _nobody_leads(connection: psycopg.Connection, schema: int) -> bool:
    """And nobody will until this transaction ends. A server that just ended leads for a moment
    longer: until its session has."""
    try:
        connection.execute(f"SET LOCAL lock_timeout = '{_LAST_MOMENT}'".encode())
        connection.execute("SELECT pg_advisory_xact_lock(%s::int, %s::int)", (LEADER_LOCK, schema))
        connection.execute("SET LOCAL lock_timeout = 0")
    except errors.LockNotAvailable:
        return False
    return True


def _require_known(version: int, place: Place) -> None:
    known = len(sql.migrations())
    if version > known:
        raise place.broken(
            f"it was written by a newer moorage (schema {version}, this one knows {known}): "
            "install that version, or use another database"
        )


def _one(connection: psycopg.Connection, text: str, *params: object) -> Any:
    """The single value that a question is answered with; None without a row."""
    row = connection.execute(text.encode(), params).fetchone()
    return None if row is None else row[0]
