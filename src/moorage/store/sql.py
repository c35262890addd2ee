"""Reads the `.sql` files: queries by name, the schema, the migrations.

A query begins with a line `-- name: some_query` and a comment that says what it is for, and ends
with a semicolon; parameters are written `:name`. `queries/*.sql` serve every database;
`queries/<dialect>/*.sql` add the few that cannot be said in both, or replace one of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import NamedTuple

_PACKAGE = "moorage.store"
_NAME = re.compile(r"^-- name: *(.*)$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_MIGRATION = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_ONLY_POSTGRES = re.compile(r"/\* postgres: (.*?) \*/", re.DOTALL)
_SQLITE_WORDS = (
    ("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"),
    ("BIGINT", "INTEGER"),
    ("DOUBLE PRECISION", "REAL"),
    ("BYTEA", "BLOB"),
    ("/* STRICT */", "STRICT"),
)


class Query(NamedTuple):
    """One statement; `purpose` is its comment."""

    name: str
    purpose: str
    text: str
    parameters: frozenset[str]


class Migration(NamedTuple):
    """One step of the schema; versions count from 1 without a gap."""

    version: int
    name: str
    text: str


def parse(text: str, place: str) -> list[Query]:
    """The queries of one file. ValueError, with the place, for anything that is not one."""
    head, *parts = _NAME.split(text)
    if head.strip():
        raise ValueError(f"{place}: text before the first '-- name:' line")
    return [_query(name.strip(), body, place) for name, body in _pairs(parts)]


def _pairs(parts: list[str]) -> Iterable[tuple[str, str]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _query(name: str, body: str, place: str) -> Query:
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{place}: {name!r} is no name for a query")
    lines = body.strip().splitlines()
    comment = [line[2:].strip() for line in lines if line.startswith("--")]
    text = "\n".join(line for line in lines if not line.startswith("--")).strip()
    if not comment:
        raise ValueError(f"{place}: query {name} does not say what it is for")
    if not text.endswith(";") or text.count(";") != 1:
        raise ValueError(f"{place}: query {name} is not one statement that ends with ';'")
    return Query(name, " ".join(comment), text, frozenset(_PARAMETER.findall(text)))


def queries(dialect: str) -> Mapping[str, Query]:
    """All queries by name for `sqlite` or another dialect. ValueError for a name used twice."""
    root = files(_PACKAGE) / "queries"
    shared = collect(_sql_files(root))
    own = root / dialect
    special = collect(_sql_files(own)) if own.is_dir() else {}
    return MappingProxyType(shared | special)


def collect(sources: Iterable[Traversable]) -> dict[str, Query]:
    """The queries of several files by name. ValueError for a name used twice."""
    found: dict[str, Query] = {}
    for source in sources:
        for query in parse(source.read_text("utf-8"), source.name):
            if query.name in found:
                raise ValueError(f"{source.name}: a query named {query.name} exists already")
            found[query.name] = query
    return found


def _sql_files(directory: Traversable) -> list[Traversable]:
    return sorted(
        (entry for entry in directory.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )


def schema() -> str:
    """The text of `schema.sql`."""
    return (files(_PACKAGE) / "schema.sql").read_text("utf-8")


def migrations() -> tuple[Migration, ...]:
    """All steps in order. ValueError for a gap or a file that is not named `0001_words.sql`."""
    steps = []
    for position, entry in enumerate(_sql_files(files(_PACKAGE) / "migrations"), start=1):
        match = _MIGRATION.fullmatch(entry.name)
        if match is None or int(match[1]) != position:
            raise ValueError(f"migrations/{entry.name} should be number {position:04}")
        steps.append(Migration(position, entry.name, entry.read_text("utf-8")))
    return tuple(steps)


def for_sqlite(text: str) -> str:
    """Schema or migration text in the words of SQLite's STRICT tables."""
    for shared, own in _SQLITE_WORDS:
        text = text.replace(shared, own)
    return text


def for_postgres(text: str) -> str:
    """Schema or migration text with the statements that only PostgreSQL has."""
    return _ONLY_POSTGRES.sub(r"\1", text)


def numbered(text: str) -> tuple[str, tuple[str, ...]]:
    """A query with `$1` instead of `:name`, and the names in the order of their numbers."""
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PARAMETER.sub(place, text), tuple(names)
