"""A backup made while the server writes becomes a store again, in which no number comes twice."""

from __future__ import annotations

import io
import random
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from backports import zstd
from blake3 import blake3

from contract import rows
from moorage.engine.boot import recall
from moorage.errors import InvalidInput, Unavailable
from moorage.ids import JobId
from moorage.protocol import packs
from moorage.server.snapshots import snapshot_of
from moorage.store.backup import Backup
from moorage.store.base import Statement
from moorage.store.blobs import Blobs
from moorage.store.check import check_tables
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres
from moorage.store.restore import ATTEMPTS, Damaged, Restored, restore, restore_into
from moorage.store.sqlite import SqliteStore, open_sqlite
from moorage.store.transfer_postgres import PostgresEnd
from moorage.store.writer import Writer

NODE = {
    "resources": '{"cpus":4,"arch":"x86","memory":1,"disk":1}',
    "isolation": "{}",
}
DAY = 86_400.0


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = open_sqlite(directory / "moorage.db")
        self.writer = Writer(self.store)
        self.blobs = Blobs(directory, self.store, self.writer)

    def upload(self, *contents: bytes) -> None:
        for data in contents:
            framed = zstd.compress(data)
            head = packs.header(_name(data), len(framed), len(data))
            self.blobs.add_pack(head + framed)

    def backup(self, file: Path, now: float | None = None) -> int:
        backup = Backup(self.store.file.snapshot, self.blobs, self.directory, "test")
        file.write_bytes(b"".join(backup.chunks(time.time() if now is None else now)))
        return backup.size

    def close(self) -> None:
        self.writer.close()
        self.store.close()


def _name(data: bytes) -> str:
    return blake3(data).hexdigest()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "old")
    yield world
    world.close()


def opened(directory: Path) -> SqliteStore:
    return open_sqlite(directory / "moorage.db")


def test_a_backup_under_load_is_one_moment(world: World, tmp_path: Path) -> None:
    stop = threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        while not stop.is_set():
            number = len(acknowledged) + 1
            world.writer.submit([rows.run(number), rows.job(number, number)]).result()
            acknowledged.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        world.upload(b"one" * 500, b"two" * 70_000)
        before = list(acknowledged)
        world.backup(tmp_path / "b.tar")
    finally:
        stop.set()
        writer.join()
    assert list((world.directory).glob("unfinished-*")) == []
    restore(tmp_path / "b.tar", tmp_path / "new", time.time())
    store = opened(tmp_path / "new")
    runs = {row["id"] for row in store.read("live_runs")}
    assert runs >= set(before)
    assert runs == {row["run_id"] for row in store.read("live_jobs")}
    assert list(check_tables(store, time.time())) == []
    writer_ = Writer(store)
    blobs = Blobs(tmp_path / "new", store, writer_)
    assert blobs.check(deep=True) == []
    assert blobs.read(_name(b"two" * 70_000)) == b"two" * 70_000
    writer_.close()
    store.close()
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left == {"moorage.db", "moorage.db.lock", "packs", "partial"}


def test_no_number_comes_twice_after_a_restore(world: World, tmp_path: Path) -> None:
    world.store.write(
        [
            Statement("set_meta", {"key": "epoch", "value": "7"}),
            rows.node(1, **NODE),
            *(rows.run(number) for number in (1, 2, 3)),
            rows.job(1, 1, attempt=2),
            rows.job(2, 2, state="starting", attempt=1, node_id=1),
            rows.attempt(2, state="assigned"),
            rows.job(3, 3),
            rows.attempt(3, state="prefilled"),
            *(rows.event() for _ in range(5)),
        ]
    )
    world.backup(tmp_path / "b.tar", now=1000.0)
    restored = restore(tmp_path / "b.tar", tmp_path / "new", 1000.0 + DAY)
    assert restored.runs == 3
    store = opened(tmp_path / "new")
    [ids] = store.read("max_ids")
    assert ids["run"] > DAY * 500
    assert ids["job"] > DAY * 500
    assert restored.first_run == ids["run"] + 1
    assert int(store.read("meta", {"key": "epoch"})[0]["value"]) > 7 + DAY
    [*_, event] = store.read("events_since", {"since": 0, "limit": 99})
    assert (event["kind"], event["seq"] > DAY * 500) == ("server.restored", True)
    cluster = recall(store)
    first, second, third = (cluster.jobs[JobId(number)] for number in (1, 2, 3))
    assert first.key == third.key.replace("3.", "1.") == f"1.{ATTEMPTS}.0"
    assert second.key == "2.1.0", "it may well run: its node says so"
    assert second.state.report is not None, "but it is not started once more"
    assert cluster.next_attempt(second) == ATTEMPTS
    assert {row["not_before"] for row in store.read("live_jobs")} == {1060.0 + DAY, None}
    assert list(check_tables(store, 2000.0)) == []
    store.close()


def test_a_second_restore_goes_beyond_the_first(world: World, tmp_path: Path) -> None:
    world.store.write([rows.run(1), rows.job(1, 1)])
    world.backup(tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "new", time.time())
    again = World(tmp_path / "new")
    again.backup(tmp_path / "c.tar")
    again.close()
    restore(tmp_path / "c.tar", tmp_path / "newer", time.time())
    store = opened(tmp_path / "newer")
    assert recall(store).jobs[JobId(1)].key == f"1.{2 * ATTEMPTS}.0"
    store.close()


def test_nothing_is_overwritten(world: World, tmp_path: Path) -> None:
    world.backup(tmp_path / "b.tar")
    with pytest.raises(InvalidInput, match="there is a store already; nothing is overwritten"):
        restore(tmp_path / "b.tar", world.directory, 1.0)


def test_content_waits_for_its_collection_while_a_backup_reads(
    world: World, tmp_path: Path
) -> None:
    world.upload(b"old" * 100)
    backup = Backup(world.store.file.snapshot, world.blobs, world.directory, "test")
    chunks = backup.chunks(1.0)
    next(chunks)
    reply = world.blobs.collect(time.time() + 9 * DAY, DAY)
    assert (reply.blobs, reply.skipped) == (0, ["content: a backup or a check reads it now"])
    chunks.close()
    assert world.blobs.collect(time.time() + 9 * DAY, DAY).blobs == 1


def test_a_store_with_a_lost_pack_is_not_backed_up_as_if_it_were_whole(
    world: World, tmp_path: Path
) -> None:
    world.upload(b"one" * 100)
    [pack] = (world.directory / "packs").glob("*/*.pack")
    pack.unlink()
    with pytest.raises(Unavailable, match="moorage server check"):
        world.backup(tmp_path / "b.tar")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _without_manifest(data: bytes) -> bytes:
    return _rewritten(data, lambda name, content: None if name == "manifest.json" else content)


def _flipped(data: bytes) -> bytes:
    def flip(name: str, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if name.startswith("packs/") else content

    return _rewritten(data, flip)


def _flipped_database(data: bytes) -> bytes:
    def flip(name: str, content: bytes) -> bytes:
        if not name.startswith("moorage.db"):
            return content
        raw = bytearray(zstd.decompress(content))
        raw[-1] ^= 1
        return zstd.compress(bytes(raw))

    return _rewritten(data, flip)


def _replaced(data: bytes) -> bytes:
    return b"no tar at all" * len(data)


def _escaping(data: bytes) -> bytes:
    return _rewritten(data, lambda name, content: content, extra="../../evil")


def _rewritten(
    data: bytes, change: Callable[[str, bytes], bytes | None], extra: str | None = None
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        if extra:
            new.addfile(tarfile.TarInfo(extra))
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = change(member.name, file.read())
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _without_manifest,
        _flipped,
        _flipped_database,
        _escaping,
        lambda _: b"no tar at all" * 99,
    ],
)
def test_a_damaged_file_restores_nothing(
    world: World, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    world.upload(b"one" * 100)
    file = tmp_path / "b.tar"
    world.backup(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Damaged, match=r"b\.tar"):
        restore(file, tmp_path / "new", 1.0)
    assert Damaged.exit_code == 2  # bad input: nothing is changed
    assert list((tmp_path / "new").iterdir()) == []
    assert not (tmp_path / "evil").exists()


class Shared(World):
    """The same on PostgreSQL."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        directory.mkdir()
        self.shared = open_postgres(url)
        self.shared.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
        self.store = self.shared  # type: ignore[assignment]
        self.writer = Writer(self.shared)
        packs = DatabasePacks(self.shared, self.writer)
        self.blobs = Blobs(directory, self.shared, self.writer, packs=packs)

    def backup(self, file: Path, now: float | None = None) -> int:
        make = snapshot_of(self.shared)
        backup = Backup(make, self.blobs, self.directory, "test")
        file.write_bytes(b"".join(backup.chunks(time.time() if now is None else now)))
        return backup.size


@pytest.fixture
def shared(tmp_path: Path, database: str) -> Iterator[Shared]:
    shared = Shared(tmp_path / "shared", database)
    yield shared
    shared.close()


def test_postgres_is_backed_up_under_load_as_of_one_moment(shared: Shared, tmp_path: Path) -> None:
    stop = threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        while not stop.is_set():
            number = len(acknowledged) + 1
            batch = [rows.run(number), rows.job(number, number), rows.event()]
            shared.writer.submit(batch).result()
            acknowledged.append(number)

    shared.upload(b"one" * 500, random.randbytes(3_000_000))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        before = list(acknowledged)
        shared.backup(tmp_path / "b.tar")
    finally:
        stop.set()
        writer.join()
    assert [path.name for path in shared.directory.iterdir()] == ["partial"]
    assert shared.blobs.check(deep=True) == []
    restore(tmp_path / "b.tar", tmp_path / "new", time.time())
    store = opened(tmp_path / "new")
    runs = {row["id"] for row in store.read("live_runs")}
    assert runs >= set(before)
    assert runs == {row["run_id"] for row in store.read("live_jobs")}
    assert list(check_tables(store, time.time())) == []
    writer_ = Writer(store)
    assert Blobs(tmp_path / "new", store, writer_).check(deep=True) == []
    writer_.close()
    store.close()


def test_a_backup_becomes_a_postgres(world: World, tmp_path: Path, database: str) -> None:
    world.upload(b"one" * 500, random.randbytes(3_000_000))
    events = [rows.event() for _ in range(5)]
    world.store.write([rows.node(1, **NODE), rows.run(1), rows.job(1, 1), *events])
    world.backup(tmp_path / "b.tar", now=1000.0)

    def again() -> Restored:
        with closing(PostgresEnd(database)) as target:
            return restore_into(target, tmp_path / "b.tar", tmp_path / "work", 1000.0 + DAY)

    restored = again()
    assert restored.runs == 1
    assert list((tmp_path / "work").iterdir()) == []
    shared = Shared(tmp_path / "shared", database)
    [*_, event] = shared.store.read("events_since", {"since": 0, "limit": 99})
    assert (event["kind"], event["seq"] > DAY * 500) == ("server.restored", True)
    shared.store.write([rows.event()])
    assert shared.store.read("max_seq")[0]["seq"] == event["seq"] + 1
    assert shared.store.read("max_ids")[0]["run"] + 1 == restored.first_run
    assert recall(shared.store).jobs[JobId(1)].key == f"1.{ATTEMPTS}.0"
    assert list(check_tables(shared.store, 2000.0)) == []
    assert shared.blobs.check(deep=True) == []
    shared.close()
    with pytest.raises(InvalidInput, match=r"is not empty \(.*1 runs, .*createdb"):
        again()


def test_damaged_content_in_a_database_is_found_and_repaired(
    shared: Shared, database: str
) -> None:
    shared.upload(b"one" * 500, b"two" * 70_000)
    assert shared.blobs.check(deep=True) == []
    with psycopg.connect(database) as connection:
        [first, second] = connection.execute("SELECT id FROM packs ORDER BY added_at").fetchall()
        connection.execute("DELETE FROM pack_parts WHERE pack = %s", first)
        connection.execute(
            "UPDATE pack_parts SET data = set_byte(data, 50, get_byte(data, 50) # 1) "
            "WHERE pack = %s",
            second,
        )
    [missing] = shared.blobs.check(deep=False)
    assert "is missing (1 blobs)" in missing.finding.problem or missing.finding.repairable
    found = shared.blobs.check(deep=True)
    assert len(found) == 2
    shared.store.write([statement for one in found for statement in one.repair])
    assert shared.blobs.check(deep=True) == []


@pytest.mark.parametrize("of", ["world", "shared"])
def test_a_backup_that_nobody_waits_for_leaves_nothing(
    of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world: World = request.getfixturevalue(of)
    world.upload(b"one" * 500)
    world.store.write([rows.run(number) for number in range(1, 3000)])

    class Left(Exception):
        pass

    def tell(what: str, done: int, total: int) -> None:
        raise Left

    make = snapshot_of(world.store)
    backup = Backup(make, world.blobs, world.directory, "test")
    with pytest.raises(Left):
        next(backup.chunks(1.0, tell))
    assert not list(world.directory.glob("unfinished-*"))
    assert world.blobs.collect(time.time() + 9 * DAY, DAY).blobs == 1


def test_a_long_check_of_a_file_ends_when_nobody_waits(world: World) -> None:
    for first in range(0, 40_000, 5000):
        world.store.write([rows.event() for _ in range(first, first + 5000)])

    def tell(what: str, done: int, total: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        world.store.file.damage(tell)
    assert world.store.file.damage() == []
