"""A database that cannot be used is refused in words, with the remedy, and never changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from system.cli_harness import Command, Result
from system.keeper_harness import end_all
from system.servers import Server

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose server was killed: a database of some pages, with a WAL."""
    home = tmp_path_factory.mktemp("sound") / "home"
    home.mkdir(mode=0o700)
    server = Server(home)
    server.start()
    for number in range(60):
        server.submit(f"r{number}", name=f"run-{number}", env={"TEXT": "x" * 2000})
    server.kill()
    (home / "server.json").unlink()
    assert (home / "server" / "moorage.db-wal").stat().st_size > 100_000
    return home


@pytest.fixture
def home(sound: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(sound, tmp_path / "home")
    yield tmp_path / "home"
    end_all(tmp_path / "home")


def checkpoint(database: Path) -> None:
    """Everything into the one file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for end in ("-wal", "-shm"):
        database.with_name(database.name + end).unlink(missing_ok=True)


def overwrite(database: Path, offset: int, data: bytes) -> None:
    checkpoint(database)
    with database.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def header(database: Path) -> None:
    overwrite(database, 0, b"\0" * 100)


def first_pages(database: Path) -> None:
    overwrite(database, 100, os.urandom(8000))


def middle_page(database: Path) -> None:
    checkpoint(database)
    middle = database.stat().st_size // 4096 // 2 * 4096
    overwrite(database, middle, os.urandom(4096 * 8))


def truncated(database: Path) -> None:
    checkpoint(database)
    os.truncate(database, database.stat().st_size // 2)


def something_else(database: Path) -> None:
    checkpoint(database)
    database.write_bytes(b"#!/bin/sh\necho a script of somebody\n" * 300)


def of_another_program(database: Path) -> None:
    checkpoint(database)
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE photographs (id)")
        connection.commit()


def newer(database: Path) -> None:
    checkpoint(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE meta SET value = '9999' WHERE key = 'schema_version'")
        connection.commit()


def contents(home: Path) -> dict[str, str]:
    """Digests of the files that hold the truth: not SQLite's index of the WAL, nor an empty WAL,
    which whoever reads makes."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (home / "server").glob("moorage.db*")
        if not path.name.endswith(("-shm", ".lock")) and path.stat().st_size
    }


def refused(home: Path, *arguments: str, code: int = 5) -> str:
    """Run a command that needs a server; what it says when there cannot be one."""
    before = contents(home)
    result: Result = Command(home)(*arguments)
    assert result.code == code, (result.code, result.err)
    assert "Traceback" not in result.err, result.err
    assert not result.out, result.out
    assert contents(home) == before, "the database was changed"
    assert not (home / "server.json").exists()
    return result.err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (header, "is damaged or not a database"),
        (first_pages, "is damaged or not a database"),
        (middle_page, "is damaged or not a database"),
        (truncated, "is damaged or not a database"),
        (something_else, "is damaged or not a database"),
        (of_another_program, "use another MOORAGE_HOME"),
        (newer, "newer moorage"),
    ],
)
def test_a_damaged_database_is_refused_and_left_alone(
    home: Path, damage: Damage, said: str
) -> None:
    damage(home / "server" / "moorage.db")
    words = refused(home, "server", "start")
    assert said in words
    assert str(home / "server" / "moorage.db") in words
    if said.startswith("is damaged"):
        assert "restore a backup" in words


def test_run_says_why_there_is_no_server(home: Path) -> None:
    header(home / "server" / "moorage.db")
    words = refused(home, "run", "--", "true")
    assert "restore a backup" in words


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut"])
def test_a_damaged_log_of_the_database_loses_at_most_what_was_in_it(
    home: Path, damage: str
) -> None:
    """SQLite's own promise: frames whose checksum is wrong never happened, the file stays sound.
    So a server starts, with a prefix of what was accepted: nothing invented, nothing torn."""
    wal = home / "server" / "moorage.db-wal"
    if damage == "missing":
        wal.unlink()
    elif damage == "garbage":
        wal.write_bytes(os.urandom(wal.stat().st_size))
    else:
        os.truncate(wal, wal.stat().st_size * 2 // 3 // 7 * 7)
    (home / "server" / "moorage.db-shm").unlink(missing_ok=True)
    server = Server(home)
    server.start()
    try:
        page = server.call("GET", "/v1/runs?limit=100").json
        numbers = sorted(run["id"] for run in page["runs"])
        assert numbers == list(range(1, len(numbers) + 1))
        assert server.call("POST", "/v1/runs", {"request_id": "new", "runs": []}).status < 500
    finally:
        server.kill()


HOLDER = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
)


def test_a_database_that_another_program_holds_is_refused_and_works_afterwards(
    home: Path,
) -> None:
    database = home / "server" / "moorage.db"
    checkpoint(database)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        words = Command(home)("server", "start")
        assert words.code == 5
        waiting, refused = words.err.splitlines()
        assert f"is locked by process {holder.pid} (python" in waiting
        assert waiting.endswith("waiting up to 10 s for it")
        assert f"is locked by process {holder.pid} (python" in refused
        assert "): end it" in refused
        holder.send_signal(signal.SIGKILL)
    server = Server(home)
    server.start()
    assert server.call("GET", "/v1/runs").json["total"] == 60
    server.kill()


def test_a_second_server_is_refused_with_the_number_of_the_first(home: Path) -> None:
    server = Server(home)
    server.start()
    try:
        (home / "server.json").unlink()  # as if the first could not be found
        words = Command(home)("server", "start")
        assert words.code == 5
        assert server.process is not None
        assert f"in use by process {server.process.pid}" in words.err
    finally:
        server.kill()


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    """The home on a file system that cannot be written."""
    bind = ["mount", "--bind", str(home), str(home)]
    remount = ["mount", "-o", "remount,bind,ro", str(home)]
    for command in (bind, remount):
        subprocess.run(command, check=True)
    yield home
    # A server that was refused may be ending still.
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("arguments", [("server", "start"), ("run", "--", "true")])
def test_a_directory_that_cannot_be_written_is_said(
    read_only: Path, arguments: tuple[str, ...]
) -> None:
    words = refused(read_only, *arguments, code=1)
    assert "Read-only file system" in words
    assert str(read_only) in words
    assert len(words.splitlines()) == 1


@pytest.mark.root
def test_a_database_that_cannot_be_written_is_said(home: Path) -> None:
    """The file alone: immutable, which root may not write either."""
    database = home / "server" / "moorage.db"
    checkpoint(database)
    bind = ["mount", "--bind", str(database), str(database)]
    subprocess.run(bind, check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(database)], check=True)
    try:
        words = refused(home, "server", "start")
        assert str(database) in words
        assert "Read-only file system" in words or "cannot be written" in words
    finally:
        subprocess.run(["umount", "--lazy", str(database)], check=True)
