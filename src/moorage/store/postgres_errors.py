"""What an error of PostgreSQL means: a statement that is impossible, or a database that is
unusable, with the remedy. Texts never hold a password or the value of a parameter."""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from moorage.errors import InvalidInput, Problem
from moorage.store.base import StatementRefused, StoreBroken

_GENERAL = "see the database's own log"
_REMEDIES = {
    "25006": "it is read-only, as a replica is: give the address of the primary server",
    "28": "the user or the password is not accepted: set PGPASSWORD, ~/.pgpass or the user in "
    "the address, and look at pg_hba.conf there",
    "3D": "there is no such database: make it with createdb",
    "3F": "the schema that search_path names does not exist: create it",
    "40": "another program works on the same rows: end it",
    "42501": "its user may not do this there: make it the owner of the database "
    "(ALTER DATABASE ... OWNER TO ...)",
    "53100": "its disk is full: free some space there",
    "53200": "it is out of memory: give it more",
    "53300": "it has no connection left: raise max_connections, or end other clients",
    "55P03": "another program has locked a table for too long: end it",
    "57P01": "it ended our session, because it stops or because another server took over",
    "57P02": "it crashed and restarts",
    "57P03": "it is starting up or shutting down: try again in a moment",
    "58": "its disk fails: look at it (dmesg)",
    "XX001": "its files are damaged: restore a backup",
    "XX002": "an index is damaged: REINDEX DATABASE there",
}
"""By SQLSTATE, or the class that it begins with."""
_IMPOSSIBLE = ("22", "23", "42804", "42P18")


class Place(NamedTuple):
    """Which database, in words that may be shown: never the password."""

    text: str
    password: str
    """To be taken out of the texts of others."""

    def broken(self, reason: str) -> StoreBroken:
        """An error about this database."""
        if self.password:
            reason = reason.replace(self.password, "***")
        return StoreBroken(f"{self.text}: {reason}")


def place_of(url: str) -> Place:
    """InvalidInput where it is no address of a PostgreSQL database."""
    fix = "write postgresql://USER@HOST:PORT/DATABASE"
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidInput(Problem("the database's address is none of PostgreSQL", fix))
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:  # whose text repeats parts of the address, perhaps of the password
        raise InvalidInput(Problem("the database's address cannot be understood", fix)) from None
    if not str(parts.get("port") or "0").replace(",", "").isdigit():
        raise InvalidInput(Problem("the port in the database's address is no number", fix))
    host = parts.get("host") or parts.get("hostaddr") or parts.get("service") or "local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    name = parts.get("dbname") or parts.get("user") or ""
    return Place(
        f"PostgreSQL at {host}{port}, database {name or 'of the user'}",
        str(parts.get("password") or ""),
    )


def meaning(
    place: Place, sqlstate: str | None, text: str, query: str = ""
) -> StatementRefused | StoreBroken:
    """The error to raise for one that the database or libpq reported."""
    state = sqlstate or ""
    if query and state.startswith(_IMPOSSIBLE):
        # Messages about data quote them, those about constraints name only the constraint.
        reason = text if state.startswith("23") else f"a value does not fit (SQLSTATE {state})"
        return StatementRefused(f"query {query}: {reason}")
    known = [_REMEDIES[key] for key in (state, state[:2]) if key in _REMEDIES]
    remedy = (known or [_GENERAL])[0] if state else _without_state(text)
    return place.broken(f"{_one_line(text)}; {remedy}")


def meaning_of(
    place: Place, error: psycopg.Error, query: str = ""
) -> StatementRefused | StoreBroken:
    """The same for an exception of psycopg."""
    text = error.diag.message_primary or str(error)
    state = error.sqlstate
    if (
        query
        and state is None
        and isinstance(error, (psycopg.DataError, psycopg.ProgrammingError))
    ):
        return StatementRefused(f"query {query}: a parameter is not one that a database has")
    return meaning(place, state, text, query)


def _without_state(text: str) -> str:
    """libpq reports failures to connect in words alone."""
    for word, key in (
        ("password", "28"),
        ("authentication", "28"),
        ("pg_hba", "28"),
        ("does not exist", "3D"),
        ("too many", "53300"),
        ("starting up", "57P03"),
        ("shutting down", "57P03"),
        ("read-only", "25006"),
    ):
        if word in text:
            return _REMEDIES[key]
    return "start it, or correct the address"


def _one_line(text: str) -> str:
    first, _, _ = text.partition("\n\tIs the server running")  # libpq's question, not ours
    return " ".join(first.split()).removeprefix("connection failed: ").rstrip(".")
