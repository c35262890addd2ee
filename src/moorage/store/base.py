"""The one interface to the database. All SQL is in `queries/*.sql`, in the subset that SQLite and
PostgreSQL share; Python names a query and gives its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from moorage.errors import MoorageError, Unavailable

Params = Mapping[str, Any]
Row = Mapping[str, Any]


class Statement(NamedTuple):
    """One named write query with its parameters (str, int, float, bytes or None)."""

    query: str
    params: Params


class StoreBroken(Unavailable):
    """The database cannot be used: locked, damaged, read-only, full, closed. Nothing that was not
    acknowledged before is durable; the text says what to do."""


class StatementRefused(MoorageError):
    """One statement is impossible (a constraint, a missing parameter); the database is well."""

    code = "refused"


class Store(Protocol):
    """A database.

    `write` is called from one thread only (the writer's); `read` from any. Neither retries: a
    locked or broken database raises `StoreBroken`, and the caller stops acknowledging. A statement
    that cannot be carried out raises `StatementRefused`.
    """

    def write(self, batch: Sequence[Statement]) -> None:
        """Run all in order in one transaction, durable on return; on an error, none happened."""

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        """The rows of a named read query, as of the latest commit."""

    def close(self) -> None:
        """Release files and locks. May be called twice."""
