"""Stores move whole or not at all, and the proof is worth something."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from contract import rows
from contract.blob_suite import manifest, name, noise, pack
from moorage.errors import InvalidInput, Unavailable
from moorage.store.base import Statement, Store, StoreBroken
from moorage.store.blobs import Blobs
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity
from moorage.store.packfiles import PackFiles, no_space
from moorage.store.postgres import open_postgres
from moorage.store.postgres_store import PostgresStore
from moorage.store.sqlite import SqliteStore, open_sqlite
from moorage.store.transfer import Moved, is_empty, transfer
from moorage.store.transfer_postgres import PostgresEnd
from moorage.store.transfer_sqlite import SqliteEnd
from moorage.store.writer import Writer

CONTENT = [b"small", noise(3_000_000), b""]
QUERIES = (
    *("stores", "storages"),
    *("live_runs", "nodes", "tokens", "packs", "referenced", "dropped_logs"),
)


def quiet(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total, what


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A server's directory with something in most tables."""
    directory = tmp_path / "server"
    with closing(open_sqlite(directory / "moorage.db")) as store:
        fill(store, Blobs(directory, store, writer := Writer(store)), writer)
        writer.close()
    return directory


def fill(store: Store, blobs: Blobs, writer: Writer, events: int = 3000) -> None:
    blobs.add_pack(pack(*CONTENT, manifest(*CONTENT)))
    blobs.append_part(name(b"large" * 9), 0, 45, b"large" * 9)
    token = {"hash": "h", "created_at": 1.5, "kind": "user", "subject": "ada", "server": "s"}
    batch = [
        rows.node(3),
        rows.run(1, message="ünï — 漢字 \t\\N \\. \n\"'"),
        rows.run(2, message="with\0nul", exit_code=-7),
        rows.job(1, 1),
        rows.job(2, 2, node_id=3, failed_at=1e300),
        rows.attempt(2, node_id=3),
        Statement("insert_token", token),
        rows.object_store("lab"),
        rows.storage("results", "lab", unflushed='["2.1.0"]', made_by=1),
        Statement("set_meta", {"key": "epoch", "value": "41"}),
        Statement("insert_run_blob", {"run_id": 1, "digest": name(b"small"), "kind": "blob"}),
        *(rows.event(at=n / 7, run_id=1, kind=f"k{n}") for n in range(events)),
    ]
    writer.submit(batch).result()


def contents(store: Store) -> dict[str, object]:
    found: dict[str, object] = {query: store.read(query) for query in QUERIES}
    for run in (1, 2):
        found[f"run {run}"] = store.read("run_by_id", {"id": run})
        found[f"jobs {run}"] = store.read("jobs_of_run", {"run_id": run})
        found[f"attempts {run}"] = store.read("attempts_of_run", {"run_id": run})
    found["events"] = store.read("events_since", {"since": 0, "limit": 10**6})
    found["epoch"] = store.read("meta", {"key": "epoch"})
    return found


def without_nul(found: dict[str, object]) -> dict[str, object]:
    """What PostgreSQL cannot keep."""
    return {key: repr(value).replace("\\x00", "\ufffd") for key, value in found.items()}


def leading(url: str) -> PostgresStore:
    store = open_postgres(url)
    store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
    return store


def move(source: SqliteEnd | PostgresEnd, target: SqliteEnd | PostgresEnd) -> Moved:
    with closing(source), closing(target):
        return transfer(source, target, quiet)


def rows_that_the_planner_expects(database: str) -> int:
    """In the table of events; -1 where it was never looked at."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE relname = 'events'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_everything_goes_there_and_back(full: Path, database: str, tmp_path: Path) -> None:
    with closing(open_sqlite(full / "moorage.db")) as store:
        before = contents(store)
    moved = move(SqliteEnd(full), PostgresEnd(database))
    assert (moved.rows["events"], moved.rows["runs"], moved.packs) == (3000, 2, 2)
    assert rows_that_the_planner_expects(database) == 3000
    with closing(leading(database)) as shared, closing(Writer(shared)) as writer:
        assert without_nul(contents(shared)) == without_nul(before)
        blobs = Blobs(tmp_path, shared, writer, packs=DatabasePacks(shared, writer))
        assert [blobs.read(name(raw)) for raw in CONTENT] == CONTENT
        assert blobs.read(name(b"large" * 9)) == b"large" * 9
        shared.write([rows.event(kind="after")])
        assert shared.read("max_seq") == [{"seq": 3001}]
    back = tmp_path / "back"
    move(PostgresEnd(database), SqliteEnd(back))
    with closing(open_sqlite(back / "moorage.db")) as store, closing(Writer(store)) as writer:
        found = contents(store)
        assert found["events"][:-1] == before["events"]  # type: ignore[index]
        assert found["jobs 2"] == before["jobs 2"]
        blobs = Blobs(back, store, writer)
        assert [blobs.read(name(raw)) for raw in CONTENT] == CONTENT
        store.write([rows.event()])
        assert store.read("max_seq") == [{"seq": 3002}]


def test_numbers_of_events_that_are_gone_are_not_given_again(
    tmp_path: Path, database: str
) -> None:
    with closing(open_sqlite(tmp_path / "moorage.db")) as store:
        store.write([rows.event() for _ in range(5)])
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "moorage.db")) as trimmed:
        trimmed.execute("DELETE FROM events")
        trimmed.commit()
    move(SqliteEnd(tmp_path), PostgresEnd(database))
    with closing(leading(database)) as shared:
        shared.write([rows.event()])
        assert shared.read("max_seq") == [{"seq": 6}]


def test_an_empty_store_moves_too(tmp_path: Path, database: str) -> None:
    moved = move(SqliteEnd(tmp_path), PostgresEnd(database))
    assert (moved.packs, moved.rows["runs"]) == (0, 0)
    with closing(leading(database)) as shared:
        shared.write([rows.event()])
        assert shared.read("max_seq") == [{"seq": 1}]


def test_a_target_that_is_not_empty_is_refused(full: Path, database: str, tmp_path: Path) -> None:
    with closing(leading(database)) as shared:
        shared.write([rows.run(9)])
    with pytest.raises(InvalidInput, match=r"not empty \(1 runs\); make an empty one"):
        move(SqliteEnd(full), PostgresEnd(database))
    with closing(leading(database)) as shared:
        assert [row["id"] for row in shared.read("live_runs")] == [9]


def test_a_store_in_use_is_refused(full: Path, database: str) -> None:
    with (
        closing(open_sqlite(full / "moorage.db")),
        pytest.raises(StoreBroken, match="stop that server first"),
    ):
        SqliteEnd(full)
    with (
        closing(leading(database)),
        pytest.raises(StoreBroken, match="stop all its servers first"),
    ):
        PostgresEnd(database)


def test_what_does_not_arrive_as_it_was_is_noticed(
    full: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PostgresEnd.rows

    def damaged(self: PostgresEnd, table: str, columns: list[str]) -> Iterator[tuple[object, ...]]:
        for row in whole(self, table, columns):
            yield (*row[:-1], "{ }") if row[-1] == "{}" else row

    with monkeypatch.context() as patch:
        patch.setattr(PostgresEnd, "rows", damaged)
        with pytest.raises(Unavailable, match="did not arrive as it was"):
            move(SqliteEnd(full), PostgresEnd(database))
    with closing(PostgresEnd(database)) as end:
        assert is_empty(end)


def test_a_pack_that_is_missing_is_named(full: Path, database: str) -> None:
    packs = PackFiles(full / "packs")
    lost = packs.listing()[0][0]
    packs.remove(lost)
    with pytest.raises(Unavailable, match=f"{lost} are missing"):
        move(SqliteEnd(full), PostgresEnd(database))
    with closing(PostgresEnd(database)) as end:
        assert is_empty(end)


def test_a_full_disk_is_told_and_leaves_nothing(
    full: Path, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(SqliteEnd(full), PostgresEnd(database))
    whole = PackFiles.write
    written: list[str] = []

    def second_fails(self: PackFiles, pack: str, pieces: Iterator[bytes]) -> None:
        if written:
            with no_space(tmp_path):
                raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, pack, pieces)
        written.append(pack)

    back = tmp_path / "back"
    with monkeypatch.context() as patch:
        patch.setattr(PackFiles, "write", second_fails)
        with pytest.raises(Unavailable, match=r"disk is full: .* free space there"):
            move(PostgresEnd(database), SqliteEnd(back))
    assert PackFiles(back / "packs").listing()[0] == []
    with closing(SqliteEnd(back)) as end:
        assert is_empty(end)
    assert move(PostgresEnd(database), SqliteEnd(back)).packs == 2


@pytest.mark.parametrize("to", ["postgres", "sqlite"])
def test_kill_9_leaves_the_target_empty_or_whole(
    tmp_path: Path, postgres_server: object, database: str, to: str
) -> None:
    """Killed at random moments; a try that is left alone then moves everything."""
    seed = int(os.environ.get("MOORAGE_TEST_SEED", "0")) or random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    home = tmp_path / "home"
    source: SqliteStore | PostgresStore
    if to == "postgres":
        source = open_sqlite(home / "server" / "moorage.db")
        packs: PackFiles | DatabasePacks = PackFiles(home / "server" / "packs")
        writer = Writer(source)
    else:
        source = leading(database)
        writer = Writer(source)
        packs = DatabasePacks(source, writer)
    fill(source, Blobs(home / "server", source, writer, packs=packs), writer, 20_000)
    writer.close()
    source.close()
    home.chmod(0o700)
    url = "sqlite" if to == "sqlite" else database
    command = [sys.executable, "-m", "moorage.server.moving", "--home", str(home)]
    command += ["--to=sqlite", f"--from={without_password(database)}"] if to == "sqlite" else []
    environment = {
        **os.environ,
        "MOORAGE_DATABASE": database if to == "postgres" else "",
        "PGPASSWORD": password_of(database),
    }
    whole = False
    for attempt in range(8):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ended = os.pidfd_open(process.pid)
        # The last is left alone.
        patience = 120.0 if attempt == 7 else chance.uniform(0.1, 2.0)
        select.select([ended], [], [], patience)
        process.send_signal(signal.SIGKILL)
        output = process.stdout.read()
        process.stdout.close()
        code = process.wait()
        os.close(ended)
        await_nobody(database)
        end = SqliteEnd(home / "server") if url == "sqlite" else PostgresEnd(database)
        with closing(end):
            whole = not is_empty(end)
            assert not whole or end.count("events") == 20_000
        if whole:
            assert code in (0, -signal.SIGKILL)
            break
        assert "moved" not in output
    assert whole


def await_nobody(database: str) -> None:
    """Until it has seen that all who were connected are gone; PostgreSQL offers no event."""
    text = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    pause, deadline = threading.Event(), time.monotonic() + 60.0
    with psycopg.connect(database, autocommit=True) as connection:
        while connection.execute(text).fetchone() != (0,):
            assert time.monotonic() < deadline, "somebody stays"
            pause.wait(0.01)


def password_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["password"])


def without_password(url: str) -> str:
    return url.replace(f":{password_of(url)}@", "@")
