"""What is SQLite's own: files, locks, versions, damage, plans."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import rows
from moorage.store import sql
from moorage.store.base import Statement, StatementRefused, StoreBroken
from moorage.store.sqlite import examine_sqlite, open_sqlite
from moorage.store.sqlite_errors import meaning


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server" / "moorage.db"


def test_files_are_private_from_the_start(path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_sqlite(path)
        store.write([rows.run(1)])
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    store.close()
    assert set(modes.values()) == {0o600}
    assert {"moorage.db", "moorage.db-wal", "moorage.db.lock"} <= set(modes)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_commit_is_synced(path: Path) -> None:
    store = open_sqlite(path)
    settings = {
        name: store._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    store.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_second_server_is_told_who_has_the_database(path: Path) -> None:
    script = (
        "import sys, moorage.store.sqlite as s, pathlib; s.open_sqlite(pathlib.Path(sys.argv[1]))"
    )
    store = open_sqlite(path)
    second = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    with pytest.raises(StoreBroken, match=f"in use by process {os.getpid()}: stop"):
        open_sqlite(path)
    store.close()
    assert f"in use by process {os.getpid()}" in second.stderr
    open_sqlite(path).close()


def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    content = b"These are my notes, not a database.\n" * 100
    path.write_bytes(content)
    for _ in range(2):  # the lock was let go of
        with pytest.raises(StoreBroken, match=r"damaged or not a database .*restore a backup"):
            open_sqlite(path)
    assert path.read_bytes() == content


def test_examining_what_is_no_database_says_so_with_its_place(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"junk\n")
    with pytest.raises(StoreBroken, match=rf"{path} is damaged or not a database .*: restore a"):
        examine_sqlite(path)


def test_a_damaged_database_is_refused_and_kept(path: Path) -> None:
    store = open_sqlite(path)
    store.write([rows.run(n, message="x" * 500) for n in range(200)])
    store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreBroken, match="restore a backup"):
        open_sqlite(path)
    assert path.read_bytes() == content


def test_someone_elses_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE meta (key, value)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreBroken, match="not moorage's"):
        open_sqlite(path)
    assert path.read_bytes() == before, "not even its journal's mode"


def test_a_newer_database_is_refused(path: Path) -> None:
    open_sqlite(path).close()
    changed = sqlite3.connect(path)
    changed.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    changed.commit()
    changed.close()
    before = path.read_bytes()
    with pytest.raises(StoreBroken, match=r"newer moorage \(schema 999"):
        open_sqlite(path)
    assert path.read_bytes() == before


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sqlite(path).close()
    known = sql.migrations()
    text = "CREATE TABLE extra (a TEXT);\nINSERT INTO nowhere VALUES (1);\n"
    step = sql.Migration(len(known) + 1, "9999_bad.sql", text)
    with monkeypatch.context() as patch:
        patch.setattr(sql, "migrations", lambda: (*known, step))
        with pytest.raises(StoreBroken, match="nowhere"):
            open_sqlite(path)
    store = open_sqlite(path)
    assert store.read("meta", {"key": "schema_version"}) == [{"value": str(len(known))}]
    assert store._writer.execute("PRAGMA table_info(extra)").fetchall() == []
    store.close()


def test_a_migration_may_not_leave_rows_without_their_owner(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sqlite(path).close()
    known = sql.migrations()
    text = "INSERT INTO run_blobs (run_id, digest, kind) VALUES (5, 'd', 'tree');\n"
    step = sql.Migration(len(known) + 1, "9999_bad.sql", text)
    monkeypatch.setattr(sql, "migrations", lambda: (*known, step))
    with pytest.raises(StoreBroken, match="rows that do not exist"):
        open_sqlite(path)


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection, to get real errors from."""
    connection = sqlite3.connect(tmp_path / "raw.db", isolation_level=None, timeout=0)
    connection.execute("CREATE TABLE t (a TEXT NOT NULL)")
    yield connection
    connection.close()


def error_of(connection: sqlite3.Connection, text: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(text)
    return caught.value


def test_a_locked_database_is_said_to_be_locked(raw: sqlite3.Connection, tmp_path: Path) -> None:
    raw.execute("BEGIN IMMEDIATE")
    other = sqlite3.connect(tmp_path / "raw.db", isolation_level=None, timeout=0)
    found = meaning(error_of(other, "BEGIN IMMEDIATE"), tmp_path / "raw.db")
    other.close()
    assert isinstance(found, StoreBroken)
    assert "locked by another program" in str(found)


def test_a_read_only_database_is_said_to_be_so(raw: sqlite3.Connection, tmp_path: Path) -> None:
    other = sqlite3.connect(f"file:{tmp_path / 'raw.db'}?mode=ro", uri=True)
    found = meaning(error_of(other, "INSERT INTO t VALUES ('a')"), tmp_path / "raw.db")
    other.close()
    assert "cannot be written" in str(found)


def test_a_full_disk_is_said_to_be_full(raw: sqlite3.Connection, tmp_path: Path) -> None:
    raw.execute("PRAGMA max_page_count = 2")
    found = meaning(
        error_of(raw, "INSERT INTO t VALUES (hex(randomblob(9000)))"), tmp_path / "raw.db"
    )
    assert isinstance(found, StoreBroken)
    assert "disk is full" in str(found)


def test_a_constraint_is_the_statements_own_fault(raw: sqlite3.Connection, tmp_path: Path) -> None:
    found = meaning(error_of(raw, "INSERT INTO t VALUES (NULL)"), tmp_path, "insert_t")
    assert isinstance(found, StatementRefused)
    assert "insert_t" in str(found)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreBroken, match="cannot make"):
        open_sqlite(tmp_path / "file" / "moorage.db")


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("live_runs", "runs_live"),
        ("live_jobs", "jobs_live"),
        ("live_attempts", "attempts_live"),
        ("active_runs_page", "runs_live"),
        ("run_by_name", "runs_by_name"),
        ("run_events_since", "events_by_run"),
    ],
)
def test_frequent_questions_have_their_index(path: Path, query: str, index: str) -> None:
    store = open_sqlite(path)
    found = sql.queries("sqlite")[query]
    params = dict.fromkeys(found.parameters)
    plan = store._writer.execute("EXPLAIN QUERY PLAN " + found.text, params).fetchall()
    store.close()
    assert any(index in step[3] for step in plan), plan
    if query != "live_attempts":  # with ranks that are over; few, and once at each start
        assert not any("ORDER BY" in step[3] for step in plan), plan


@pytest.mark.root
def test_a_disk_that_fills_up_breaks_the_store_and_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        store = open_sqlite(small / "moorage.db")
        written = 0
        with pytest.raises(StoreBroken, match="disk is full"):
            while written < 10_000:
                store.write([rows.event(data="x" * 10_000) for _ in range(4)])
                written += 4
        assert store.read("max_seq") == [{"seq": written}]
        store.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_statements_that_share_a_query_are_brought_together_and_nothing_else_changes(
    path: Path,
) -> None:
    store = open_sqlite(path)
    batch = [
        rows.node(1),
        *[
            statement
            for number in (1, 2, 3)
            for statement in (
                rows.run(number),
                rows.event(f"told-{number}", run_id=number),
                rows.job(number, number),
                rows.attempt(number),
                rows.progress(number, "running"),
                rows.progress(number, "done"),
                rows.progress(number, "running"),
                rows.event(f"done-{number}", run_id=number),
            )
        ],
        Statement("delete_run", {"id": 2}),
        rows.run(2, name="anew"),
        rows.event("told-again", run_id=2),
    ]
    store.write(batch)
    told = [row["kind"] for row in store.read("events_since", {"since": 0, "limit": 100})]
    assert told == [s.params["kind"] for s in batch if s.query == "insert_event"]
    assert [row["name"] for row in store.read("live_runs")] == ["run-1", "anew", "run-3"]
    assert [row["id"] for row in store.read("live_jobs")] == [1, 3]
    assert store.read("live_attempts") == []
    store.close()
