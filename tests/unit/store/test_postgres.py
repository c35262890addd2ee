"""What is PostgreSQL's own: addresses, versions, privileges, damage, and what users are told."""

from __future__ import annotations

import os
import resource
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from contract import rows
from moorage.errors import InvalidInput, Unavailable
from moorage.store import postgres_schema, postgres_session, sql
from moorage.store.base import StoreBroken
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres
from moorage.store.postgres_store import PostgresStore
from postgres import Postgres

SECRET = "hunter2"


def leading(url: str) -> PostgresStore:
    store = open_postgres(url)
    store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
    return store


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    with closing(leading(database)) as store:
        yield store


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def password_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["password"])


def refusal(url: str) -> str:
    with pytest.raises(StoreBroken) as caught:
        open_postgres(url)
    text = str(caught.value)
    assert password_of(url) not in text
    assert text.startswith("PostgreSQL at 127.0.0.1:")
    assert "\n" not in text
    return text


def test_a_database_that_does_not_answer(database: str, postgres_server: Postgres) -> None:
    text = refusal(database.replace(f":{postgres_server.port}/", ":1/"))
    assert "Connection refused" in text
    assert text.endswith("start it, or correct the address")


def test_a_wrong_password_is_not_repeated(database: str) -> None:
    url = database.replace(password_of(database), SECRET)
    assert "PGPASSWORD, ~/.pgpass" in refusal(url)


def test_a_database_that_does_not_exist(database: str) -> None:
    assert refusal(database + "x").endswith("make it with createdb")


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@host/db",
        f"postgresql://u:{SECRET}@host:port/db",
        f"postgresql://u:{SECRET}%zz@host/db",
        f"postgresql://host/db?password={SECRET}&nonsense=1",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput, match="write postgresql://") as caught:
        open_postgres(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def test_an_old_version_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_schema, "_OLDEST", 99)
    assert "is too old: use 99 or newer" in refusal(database)


def test_someone_elses_database_is_refused_and_kept(
    database: str, admin: psycopg.Connection
) -> None:
    admin.execute("CREATE TABLE meta (a text)")
    assert "something else" in refusal(database)
    admin.execute("DROP TABLE meta")
    admin.execute("CREATE TABLE invoices (a text)")
    assert "something else" in refusal(database)


def test_a_newer_database_is_refused(database: str, admin: psycopg.Connection) -> None:
    open_postgres(database).close()
    admin.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    assert "newer moorage (schema 999" in refusal(database)


def test_another_encoding_is_refused(postgres_server: Postgres, admin: psycopg.Connection) -> None:
    admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        assert "createdb --encoding=UTF8" in refusal(postgres_server.url("latin"))
    finally:
        postgres_server.drop_database(postgres_server.url("latin"))


def test_a_user_without_rights_is_told_what_to_do(
    database: str, admin: psycopg.Connection
) -> None:
    admin.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'".encode())
    guest = database.replace("//moorage:", "//guest:").replace(password_of(database), SECRET)
    try:
        assert "make it the owner" in refusal(guest)
    finally:
        admin.execute("DROP ROLE guest")


def test_a_schema_of_its_own_and_one_that_is_missing(
    database: str, admin: psycopg.Connection
) -> None:
    there = f"{database}?options=-csearch_path%3Dmine"
    assert "search_path names does not exist" in refusal(there)
    admin.execute("CREATE SCHEMA mine")
    admin.execute("CREATE TABLE invoices (a text)")
    with closing(leading(there)) as store:
        store.write([rows.run(1)])
    assert admin.execute("SELECT count(*) FROM mine.runs").fetchone() == (1,)


def test_a_replica_is_refused(own_postgres: Postgres) -> None:
    url = own_postgres.new_database()
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    assert "give the address of the primary" in refusal(url)


def test_a_migration_that_fails_changes_nothing(
    database: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_postgres(database).close()
    known = sql.migrations()
    text = "CREATE TABLE extra (a TEXT);\nINSERT INTO nowhere VALUES (1);\n"
    step = sql.Migration(len(known) + 1, "9999_bad.sql", text)
    with monkeypatch.context() as patch:
        patch.setattr(sql, "migrations", lambda: (*known, step))
        assert "nowhere" in refusal(database)
    assert admin.execute("SELECT to_regclass('extra')").fetchone() == (None,)
    with closing(open_postgres(database)) as store:
        assert store.read("meta", {"key": "schema_version"}) == [{"value": str(len(known))}]


def test_the_schema_is_not_changed_below_a_server_that_leads(
    store: PostgresStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sql.migrations()
    step = sql.Migration(len(known) + 1, "9999_more.sql", "CREATE TABLE extra (a TEXT);\n")
    monkeypatch.setattr(sql, "migrations", lambda: (*known, step))
    monkeypatch.setattr(postgres_schema, "_LAST_MOMENT", "100ms")
    assert "stop the older servers first" in refusal(database)
    monkeypatch.setattr(postgres_schema, "_LAST_MOMENT", "60s")
    ending = threading.Timer(0.2, store.close)
    ending.start()
    open_postgres(database).close()  # it is waited for
    ending.join()


def test_two_servers_may_make_the_schema_at_once(database: str) -> None:
    failures: list[Exception] = []

    def open_one() -> None:
        try:
            open_postgres(database).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


SHAPE = """
    SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, is_identity
    FROM information_schema.columns WHERE table_schema = current_schema()
    UNION ALL
    SELECT 'index', tablename, indexname, replace(indexdef, current_schema() || '.', ''),
        '', '', ''
    FROM pg_indexes WHERE schemaname = current_schema()
    UNION ALL
    SELECT 'constraint', CAST(conrelid AS regclass)::text, conname, pg_get_constraintdef(oid),
        '', '', ''
    FROM pg_constraint WHERE connamespace = CAST(current_schema() AS regnamespace)
    UNION ALL
    SELECT 'storage', CAST(attrelid AS regclass)::text, attname, attstorage::text, '', '', ''
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND attnum > 0
        AND NOT attisdropped
    ORDER BY 1, 2, 3
"""


def test_the_migrations_add_up_to_the_schema(database: str, admin: psycopg.Connection) -> None:
    open_postgres(database).close()
    migrated = admin.execute(SHAPE).fetchall()
    admin.execute("CREATE SCHEMA described")
    admin.execute("SET search_path = described")
    admin.execute(sql.for_postgres(sql.schema()).encode())
    assert admin.execute(SHAPE).fetchall() == migrated
    assert any(row[1] == "pack_parts" and row[3] == "e" for row in migrated)


def test_every_commit_is_synced_whatever_the_database_prefers(
    database: str, admin: psycopg.Connection
) -> None:
    name = database.rsplit("/", 1)[1]
    for setting in ("synchronous_commit = off", "default_transaction_read_only = on"):
        admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    with closing(leading(database)) as store:
        store.write([rows.run(1)])
        assert store._writer._value(b"SHOW synchronous_commit") == b"on"


def test_a_batch_larger_than_every_buffer(store: PostgresStore) -> None:
    store.write([rows.event(data="x" * 2000) for _ in range(20_000)])
    assert store.read("max_seq") == [{"seq": 20_000}]
    many = [rows.event(kind=None) for _ in range(20_000)]  # all of which would fail
    with pytest.raises(Exception, match="insert_event"):
        store.write(many)
    store.write([rows.event()])


def test_a_nul_from_a_job_does_not_stop_the_server(store: PostgresStore) -> None:
    store.write([rows.run(1, message="a\0b")])
    assert store.read("run_by_id", {"id": 1})[0]["message"] == "a\ufffdb"


def test_a_table_that_another_program_locks(
    database: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "_PATIENCE_FOR_LOCKS", b"SET lock_timeout = '100ms'")
    with closing(leading(database)) as store:
        with admin.transaction():
            admin.execute("LOCK TABLE events")
            with pytest.raises(StoreBroken, match="locked a table for too long: end it"):
                store.write([rows.event()])
        with pytest.raises(StoreBroken):  # it broke: only a new one may write
            store.write([rows.event()])
    with closing(leading(database)) as again:
        again.write([rows.event()])


def test_a_pooler_is_noticed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        postgres_session.WriterSession, "_value", lambda self, text: b"1"
    )  # what a session that is not ours would answer
    with closing(open_postgres(database)) as store, pytest.raises(StoreBroken, match="pooler"):
        store.lead()


def test_no_driver_is_said_with_the_command_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from moorage.store.postgres import open_postgres\n"
        "open_postgres('postgresql://host/db')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].endswith("pip install 'moorage[postgres]'")
    assert Unavailable.__name__ in done.stderr


@pytest.mark.root
def test_a_disk_that_fills_up_breaks_the_store_and_loses_nothing(
    postgres_server: Postgres, admin: psycopg.Connection
) -> None:
    small = postgres_server.directory / "small"
    small.mkdir()
    owner: Any = postgres_server.data.stat()
    options = f"size=20m,uid={owner.st_uid},gid={owner.st_gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small)], check=True)
    url = postgres_server.url("smalldisk")
    try:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{small}'".encode())
        admin.execute("CREATE DATABASE smalldisk TABLESPACE small")
        with closing(leading(url)) as store:
            written = 0
            with pytest.raises(StoreBroken, match="its disk is full: free some space there"):
                while written < 1000:
                    noise = secrets.token_hex(100_000)  # or it would be compressed
                    store.write([rows.event(data=noise) for _ in range(3)])
                    written += 3
            # PostgreSQL may have to write what it drops from memory, in order to read.
            more = options.replace("size=20m", "remount,size=40m")
            subprocess.run(["mount", "-o", more, str(small)], check=True)
            assert len(store.read("events_since", {"since": 0, "limit": 1000})) == written
    finally:
        postgres_server.drop_database(url)
        admin.execute("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()


def test_a_server_with_many_clients_has_high_descriptors(database: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("no more than 1024 descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with closing(leading(database)) as store:
            store.write([rows.run(1)])
            for _ in range(2):
                assert [row["id"] for row in store.read("live_runs")] == [1]
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_frozen_database_counts_as_lost(
    own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open and its machine answers for it: only silence tells."""
    url = own_postgres.new_database()
    with closing(leading(url)) as store, closing(open_postgres(url)) as standby:
        store.write([rows.run(1)])
        store.read("live_runs")  # on a connection that is there already, and frozen with the rest
        with own_postgres.frozen():
            monkeypatch.setattr(postgres_session, "PATIENCE", 0.4)
            with pytest.raises(StoreBroken, match="not answered for 0 s; it may be frozen"):
                store.write([rows.run(2)])
            with pytest.raises(StoreBroken, match="not answered for 0 s; it may be frozen"):
                store.read("live_runs")
            with pytest.raises(StoreBroken, match="not answered for 0 s; it may be frozen"):
                standby.lead()
            with pytest.raises(StoreBroken):
                store.write([rows.run(3)])
            store.close()
