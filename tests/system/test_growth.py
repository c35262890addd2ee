"""A server that is used for long: what is old goes, what is damaged is found, and a backup made
under load becomes a server again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from moorage.cli.client import Client
from moorage.specs.mounts import HostPath
from moorage.specs.task import Task
from moorage.store.sqlite import open_sqlite
from postgres import Postgres
from system.cli_harness import Command
from system.crash.notice import until

TASK = """\
type: task
files: [{data}:/tmp/growth-in]
commands: [echo hello]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Command]:
    with command(tmp_path / "home") as moorage:
        yield moorage


@contextmanager
def command(home: Path, database: str = "") -> Iterator[Command]:
    moorage = Command(home, {"MOORAGE_DATABASE": database} if database else {})
    try:
        yield moorage
    finally:
        moorage("server", "stop")


@contextmanager
def load(home: Path) -> Iterator[list[int]]:
    """Runs are submitted and run all the time; the numbers of those acknowledged."""
    acknowledged: list[int] = []
    stop = threading.Event()

    def submit() -> None:
        with Client(home=home) as client:
            while not stop.is_set():
                for run in client.submit(*(Task(commands=["true"]) for _ in range(5))):
                    acknowledged.append(run.id)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        thread.join()


def test_a_backup_under_load_becomes_a_server_again(home: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 100_000)
    (tmp_path / "task.yml").write_text(TASK.format(data=data))
    assert home("apply", "-y", "-f", str(tmp_path / "task.yml")).code == 0
    with load(home.home) as acknowledged:
        for number in range(2):
            before = list(acknowledged)
            made = home("server", "backup", str(tmp_path / f"{number}.tar"))
            assert made.code == 0, made.err
    assert (tmp_path / "1.tar").stat().st_mode & 0o777 == 0o600
    with command(tmp_path / "new") as restored:
        told = restored("server", "restore", str(tmp_path / "1.tar"), "--json")
        assert told.code == 0, told.err
        reply = json.loads(told.out)
        assert reply["runs"] > len(before)
        assert reply["next_run"] > max(acknowledged)
        offline = restored("server", "check", "--deep")
        assert (offline.code, "no problems" in offline.out) == (0, True), offline.out
        assert restored("server", "start").code == 0
        online = restored("server", "check", "--deep")
        assert (online.code, "no problems" in online.out) == (0, True), online.out
        with Client(home=restored.home) as client:
            there = {run.id for run in client.runs()}
            assert there >= set(before)
        assert restored("run", "--", "echo", "again").out == "again\n"
        again = restored("server", "restore", str(tmp_path / "1.tar"))
        assert (again.code, "moorage server stop" in again.err) == (2, True)


def test_a_server_on_postgres_is_checked_backed_up_and_restored(
    tmp_path: Path, postgres_server: Postgres, database: str
) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 100_000)
    (tmp_path / "task.yml").write_text(TASK.format(data=data))
    backup = str(tmp_path / "b.tar")
    with command(tmp_path / "one", database) as one:
        assert one("apply", "-y", "-f", str(tmp_path / "task.yml")).code == 0
        assert one("server", "check", "--deep").out.startswith("no problems in 1 runs")
        with load(one.home) as acknowledged:
            made = one("server", "backup", backup)
        assert made.code == 0, made.err
        other = Command(tmp_path / "beside", {"MOORAGE_DATABASE": database})
        refused = other("server", "check")
        assert (refused.code, "a server leads there" in refused.err) == (1, True)
    offline = one("server", "check", "--deep")
    assert (offline.code, "no problems" in offline.out) == (0, True), offline
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE jobs SET state = 'running', ended_at = NULL WHERE id = 1")
    assert "repairable" in one("server", "check").out
    repaired = one("server", "check", "--repair")
    assert repaired.code == 0, repaired
    assert list((one.home / "server").glob("moorage.db.before-repair-*"))
    full = one("server", "restore", backup)
    assert (full.code, "is not empty" in full.err, "createdb" in full.err) == (2, True, True)
    empty = postgres_server.new_database()
    try:
        with command(tmp_path / "two", empty) as two:
            told = two("server", "restore", backup, "--json")
            assert told.code == 0, told.err
            assert json.loads(told.out)["next_run"] > max(acknowledged)
            del two.variables["MOORAGE_DATABASE"]
            memory = (two.home / "server" / "database").read_text()
            assert memory == empty + "\n", "the next start uses it"
            assert two("run", "--", "echo", "again").out == "again\n"
            assert two("server", "check", "--deep").out.startswith("no problems")
    finally:
        postgres_server.drop_database(empty)
    with command(tmp_path / "three") as three:
        assert three("server", "restore", backup).code == 0
        assert three("server", "check", "--deep").out.startswith("no problems")


def test_a_node_goes_on_under_a_restored_server(home: Command, tmp_path: Path) -> None:
    """Its agent and its jobs live on while the server is lost and comes back as of a backup."""
    shared = tmp_path / "shared"
    shared.mkdir()
    os.mkfifo(shared / "go")
    assert home("server", "start").code == 0

    def submit(name: str, command: str) -> None:
        with Client(home=home.home) as client:
            commands = [f"echo {name} >> /shared/began", command]
            client.submit(
                Task(commands=commands, name=name, mounts=[HostPath(str(shared), "/shared")])
            )

    submit("before", "true")
    assert home("wait", "before").code == 0
    submit("goes-on", "cat /shared/go")
    submit("lost", "sleep infinity")
    _await_running(home, "goes-on", "lost")
    assert home("server", "backup", str(tmp_path / "b.tar")).code == 0
    assert home("stop", "lost").code == 0
    submit("after", "true")
    submit("unknown", "sleep infinity")
    assert home("wait", "lost", "after").code
    _await_running(home, "unknown")
    assert home("server", "stop").code == 0
    directory = home.home / "server"
    for path in (*directory.glob("moorage.db*"), directory / "packs"):
        path.rename(tmp_path / path.name)
    told = home("server", "restore", str(tmp_path / "b.tar"))
    assert told.code == 0, told.err
    assert home("server", "start").code == 0
    assert "succeeded" in home("show", "before").out
    assert home("logs", "before").code == 0
    lost = home("wait", "lost")
    assert lost.code, "it was stopped, and the node said so, or knows nothing of it any more"
    assert "node" in home("show", "lost").out
    assert home("show", "goes-on", "--json").out.count('"state":"running"') >= 1
    for gone in ("after", "unknown"):
        assert home("show", gone).code == 3, "it was submitted after the backup"
    (shared / "go").write_text("done\n")
    assert home("wait", "goes-on").code == 0
    assert home("logs", "goes-on").out == "done\n"
    again = home("run", "--", "echo", "new")
    assert (again.code, again.out) == (0, "new\n")
    names = (shared / "began").read_text().split()
    assert sorted(names) == ["after", "before", "goes-on", "lost", "unknown"], "each began once"
    attempts = home.home / "agent" / "attempts"
    stays = "what the server does not know is stopped and removed"
    assert until(attempts, lambda: not list(attempts.glob("5.*"))), stays
    assert home("server", "check", "--deep").code == 0


def _await_running(home: Command, *names: str) -> None:
    with Client(home=home.home) as client:
        waiting = {client.run(name).summary.id for name in names}
        for event in client.events(since=0, follow=True):
            if event.kind == "job.running":
                waiting.discard(event.run or 0)
            if not waiting:
                return


def test_what_is_too_much_goes_and_readers_are_told(home: Command) -> None:
    home.home.mkdir(mode=0o700)
    (home.home / "config.yml").write_text("run_limit: 2\nevent_limit: 5\noutput_limit: 40KB\n")
    for number in range(4):
        assert home("run", "--", "seq", str(5000 + number)).code == 0
    dry = home("server", "collect", "--dry-run")
    assert "to remove: 2 finished runs, with their output\n" in dry.out
    assert home("ps", "-a").out.count("succeeded") == 4
    reply = json.loads(home("server", "collect", "--json").out)
    assert reply["runs"] == 2
    assert reply["events"] >= 15
    assert reply["outputs"] == 1, "the newest fits, two went with their runs"
    assert home("ps", "-a").out.count("succeeded") == 2
    assert home("logs", "1").code == 3
    gone = home("logs", "3")
    assert (gone.code, gone.out) == (0, "")
    assert "of this output are gone" in gone.err
    assert home("logs", "4").out.endswith("5003\n")
    [first, *_] = home("events", "--run", "4", "--json").out.splitlines()
    assert json.loads(first)["kind"] == "feed.trimmed"
    assert home("server", "collect").out == "nothing removed\n"
    assert home("run", "--", "true").code == 0
    assert "5 " in home("ps", "-a").out, "no number comes twice"


def test_a_backup_overwrites_nothing(home: Command, tmp_path: Path) -> None:
    (tmp_path / "there.tar").write_text("mine")
    there = home("server", "backup", str(tmp_path / "there.tar"))
    assert (there.code, "nothing is overwritten" in there.err) == (2, True)
    assert (tmp_path / "there.tar").read_text() == "mine"
    nowhere = home("server", "backup", str(tmp_path / "none" / "b.tar"))
    assert (nowhere.code, "its directory does not exist" in nowhere.err) == (2, True)


def _unindex(home: Path) -> None:
    store = open_sqlite(home / "server" / "moorage.db")
    store._writer.execute("PRAGMA writable_schema = ON")
    sql = "CREATE INDEX runs_by_name ON runs (name, id) WHERE id > 5"
    store._writer.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'runs_by_name'", (sql,))
    store.close()


def _lose_attempt(home: Path) -> None:
    store = open_sqlite(home / "server" / "moorage.db")
    store._writer.execute("UPDATE jobs SET state = 'running', ended_at = NULL")
    store.close()


@pytest.mark.parametrize("damage", [_unindex, _lose_attempt])
def test_damage_is_told_and_repaired(home: Command, damage: Callable[[Path], None]) -> None:
    assert home("run", "--", "true").code == 0
    refused = home("server", "check", "--repair")
    assert (refused.code, "moorage server stop" in refused.err) == (2, True)
    assert home("server", "stop").code == 0
    damage(home.home)
    found = home("server", "check")
    assert found.code == 1
    assert "repairable" in found.out
    assert "moorage server check --repair" in found.err
    repaired = home("server", "check", "--repair")
    assert repaired.code == 0, repaired.out
    assert list((home.home / "server").glob("moorage.db.before-repair-*"))
    assert home("run", "--", "true").code == 0
    assert home("server", "check").code == 0


def test_a_damaged_file_is_told_with_the_remedy(home: Command) -> None:
    assert home("run", "--", "true").code == 0
    assert home("server", "stop").code == 0
    path = home.home / "server" / "moorage.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(content)
    found = home("server", "check")
    assert found.code == 1
    assert "restore a backup with 'moorage server restore FILE' in a new home" in found.out
    assert path.read_bytes() == content


def test_where_nothing_ever_ran_there_is_nothing_to_check(home: Command) -> None:
    found = home("server", "check")
    assert (found.code, "there is no database" in found.err) == (1, True)
    assert not home.home.exists()
