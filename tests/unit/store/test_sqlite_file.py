"""SQLite files shrink, are copied and proven beside their use."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from contract import rows
from moorage.store.base import Statement, StoreBroken
from moorage.store.sqlite import examine_sqlite, open_sqlite
from moorage.store.sqlite_file import SqliteFile, is_index_damage


def fill(path: Path, runs: int = 2000) -> None:
    store = open_sqlite(path)
    store.write([rows.run(number, message="x" * 900) for number in range(1, runs + 1)])
    store.close()


def told(file: SqliteFile) -> list[str]:
    """What is wrong, also where SQLite cannot even look."""
    try:
        return file.damage()
    except StoreBroken as error:
        return [str(error)]


def test_a_new_file_gives_space_back_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "moorage.db"
    fill(path)
    store = open_sqlite(path)
    before = path.stat().st_size
    store.write([Statement("delete_run", {"id": number}) for number in range(1, 1901)])
    assert store.file.free() > before / 2
    steps = 0
    while store.file.shrink():
        store.write([rows.event()])  # the writer goes on in between
        steps += 1
    store.file.checkpoint()
    assert steps > 3
    assert path.stat().st_size < before / 3
    assert path.with_name("moorage.db-wal").stat().st_size == 0
    assert store.file.damage() == []
    store.close()


def test_a_file_of_before_is_converted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "moorage.db"
    fill(path, 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA auto_vacuum = NONE")
        old.execute("VACUUM")
    assert not SqliteFile(path).can_shrink()
    open_sqlite(path).close()
    assert SqliteFile(path).can_shrink()


def test_a_copy_is_consistent_while_the_writer_goes_on(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "moorage.db")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.write([rows.run(number), rows.job(number, number), rows.event(run_id=number)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            copy = tmp_path / f"copy{number}.db"
            store.file.snapshot(copy)
            with closing(sqlite3.connect(copy)) as found:
                [(runs, jobs, events)] = found.execute(
                    "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM jobs), "
                    "(SELECT count(*) FROM events)"
                )
            assert runs == jobs == events
            assert SqliteFile(copy).damage() == []
    finally:
        stop.set()
        writer.join()
        store.close()


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "moorage.db"
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("DELETE FROM sqlite_master WHERE name = 'runs_by_name'")
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("INSERT INTO run_blobs VALUES (77777, 'd', 'tree')")
    lines = SqliteFile(path).damage()
    assert any("run_blobs" in line and "refers to no row of runs" in line for line in lines)
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreBroken):
        open_sqlite(path)
    store = examine_sqlite(path)
    assert told(store.file)
    store.close()


def test_index_damage_is_mended_by_reindexing(tmp_path: Path) -> None:
    path = tmp_path / "moorage.db"
    fill(path, 50)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        sql = "CREATE INDEX runs_by_name ON runs (name, id) WHERE id > 25"
        raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'runs_by_name'", (sql,))
    lines = SqliteFile(path).damage()
    assert lines
    assert all(map(is_index_damage, lines))
    SqliteFile(path).reindex()
    assert SqliteFile(path).damage() == []
