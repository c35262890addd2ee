"""The `.sql` files and their reader."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from moorage.store import sql
from moorage.store.sqlite import open_sqlite, statements

GOOD = "-- name: one\n-- Why.\nSELECT :a, :b_c, a::text, ':'\nFROM t;\n"


def test_a_file_is_taken_apart() -> None:
    [one, two] = sql.parse(GOOD + "\n-- name: two\n-- Because\n-- of it.\nDELETE FROM t;\n", "f")
    assert one == sql.Query(
        "one", "Why.", "SELECT :a, :b_c, a::text, ':'\nFROM t;", frozenset({"a", "b_c"})
    )
    assert (two.name, two.purpose, two.text) == ("two", "Because of it.", "DELETE FROM t;")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\n" + GOOD, "before the first"),
        ("-- name: Bad-Name\n-- Why.\nSELECT 1;\n", "no name"),
        ("-- name: mute\nSELECT 1;\n", "what it is for"),
        ("-- name: open\n-- Why.\nSELECT 1\n", "one statement"),
        ("-- name: both\n-- Why.\nSELECT 1; SELECT 2;\n", "one statement"),
    ],
)
def test_what_is_no_query_file_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"some.sql: .*{message}"):
        sql.parse(text, "some.sql")


def test_a_name_used_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(ValueError, match=r"b\.sql: .*one exists"):
        sql.collect([tmp_path / "a.sql", tmp_path / "b.sql"])


def test_shared_queries_keep_to_what_both_databases_know() -> None:
    of_sqlite = sql.queries("sqlite")
    shared = sql.queries("another")
    own = {name for name in of_sqlite if name not in shared}
    # What a file alone can do, the other database need not say.
    assert own - {"restore_event_numbers"} == {"blobs", "blobs_to_note"}
    assert {"blobs", "blobs_to_note"} < sql.queries("postgres").keys() - shared.keys()
    only_sqlite = re.compile(r"\b(json_|rowid|ifnull|OR REPLACE|OR IGNORE|strftime|glob)", re.I)
    for query in shared.values():
        assert not only_sqlite.search(query.text), query.name


def shape(connection: sqlite3.Connection) -> dict[str, Any]:
    """Tables with their columns, keys and indexes, whatever text made them."""
    found: dict[str, Any] = {}
    tables = "SELECT name, ncol, wr, strict FROM pragma_table_list WHERE schema = 'main'"
    for table in connection.execute(tables).fetchall():
        indexes = connection.execute(f"PRAGMA index_list({table[0]})").fetchall()
        found[table[0]] = (
            table,
            connection.execute(f"PRAGMA table_xinfo({table[0]})").fetchall(),
            sorted(connection.execute(f"PRAGMA foreign_key_list({table[0]})").fetchall()),
            {
                index[1:]: connection.execute(f"PRAGMA index_xinfo({index[1]})").fetchall()
                for index in indexes
            },
        )
    partial = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'"
    found["partial indexes"] = sorted(connection.execute(partial).fetchall())
    return found


def test_the_migrations_add_up_to_the_schema(tmp_path: Path) -> None:
    open_sqlite(tmp_path / "migrated.db").close()
    migrated = sqlite3.connect(tmp_path / "migrated.db")
    described = sqlite3.connect(":memory:")
    try:
        described.executescript(sql.for_sqlite(sql.schema()))
        assert shape(migrated) == shape(described)
        assert "runs" in shape(migrated)
    finally:
        migrated.close()
        described.close()


def test_every_table_is_strict_on_sqlite() -> None:
    text = sql.for_sqlite(sql.schema())
    assert text.count("CREATE TABLE") == text.count(") STRICT;")
    assert not re.search(r"^ .*(BIGINT|DOUBLE)", text, re.MULTILINE)


def test_migrations_count_from_one() -> None:
    versions = [step.version for step in sql.migrations()]
    assert versions == list(range(1, len(versions) + 1))


def test_a_script_is_divided_into_its_statements() -> None:
    script = (
        "-- a; b\nCREATE TABLE t (\n    a TEXT  -- one; two\n);\nINSERT INTO t VALUES (';');\n"
    )
    assert [part.split()[-1] for part in statements(script)] == [");", "(';');"]
