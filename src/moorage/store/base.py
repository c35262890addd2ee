"""The one interface to the database. All SQL is in `queries/*.sql`, in the subset that SQLite and
PostgreSQL share; Python names a query and gives its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Params = Mapping[str, Any]
Row = Mapping[str, Any]


class Statement(NamedTuple):
    """One named write query with its parameters (str, int, float, bytes or None)."""

    query: str
    params: Params


class Store(Protocol):
    """A database.

    `write` is called from one thread only (the writer's); `read` from any. Neither retries: a
    locked or broken database raises `StoreBroken`, and the caller stops acknowledging.
    """

    def write(self, batch: Sequence[Statement]) -> None:
        """Run all in order in one transaction, durable on return; on an error, none happened."""

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        """The rows of a named read query, as of the latest commit."""

    def close(self) -> None:
        """Release files and locks. May be called twice."""
