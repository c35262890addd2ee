"""One leads, the others wait; whatever happens to the leader, one other leads then, and the first
writes nothing any more."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from contract import leader_programs, rows
from moorage.errors import MoorageError
from moorage.store import postgres_session
from moorage.store.base import Statement, StoreBroken
from moorage.store.leader import Identity, Interrupted
from moorage.store.postgres import open_postgres
from moorage.store.postgres_leader import PostgresLeadership
from moorage.store.postgres_store import PostgresStore
from postgres import Postgres

PATIENCE = 60.0
LEASE = 10.0


def identity(name: str) -> Identity:
    return Identity(name, f"http://{name}:7321", "1.0")


class Candidate:
    """A store that queues for the lock in a thread of its own."""

    def __init__(self, url: str, name: str) -> None:
        self.now = 0.0
        self.store: PostgresStore = open_postgres(url)
        self.leadership = PostgresLeadership(self.store, identity(name), lambda: self.now)
        self._threads = ThreadPoolExecutor(1)

    def queue(self) -> Future[None]:
        return self._threads.submit(self.leadership.acquire)

    def lead(self) -> None:
        self.queue().result(PATIENCE)

    def close(self) -> None:
        self.store.close()
        self._threads.shutdown()


Make = Callable[[str], Candidate]


@pytest.fixture
def make(database: str) -> Iterator[Make]:
    with candidates(database) as make:
        yield make


@contextmanager
def candidates(url: str) -> Iterator[Make]:
    made: list[Candidate] = []

    def one(name: str) -> Candidate:
        made.append(Candidate(url, name))
        return made[-1]

    try:
        yield one
    finally:
        for candidate in made:
            candidate.close()


def execute(url: str, text: str, *params: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode(), params)
        return cursor.fetchall() if cursor.description else []


def await_waiting(url: str, count: int = 1) -> None:
    """Until so many sessions wait for an advisory lock: PostgreSQL offers no event for that."""
    text = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    done = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while execute(url, text) != [(count,)]:
        assert time.monotonic() < deadline, "nobody waits"
        done.wait(0.01)


def test_only_one_leads_and_the_others_read(make: Make, database: str) -> None:
    first, second = make("first"), make("second")
    first.lead()
    first.store.write([rows.run(1)])
    waiting = second.queue()
    await_waiting(database)
    assert not waiting.done()
    assert [row["id"] for row in second.store.read("live_runs")] == [1]
    first.close()
    waiting.result(PATIENCE)
    second.store.write([rows.run(2)])
    with pytest.raises(StoreBroken, match="closed"):
        first.store.write([rows.run(3)])


def test_who_does_not_lead_cannot_write(make: Make) -> None:
    with pytest.raises(StoreBroken, match="does not lead"):
        make("one").store.write([rows.run(1)])


def test_a_wait_can_be_interrupted(make: Make, database: str) -> None:
    first, second, third = make("first"), make("second"), make("third")
    first.lead()
    waiting = second.queue()
    await_waiting(database)
    second.leadership.interrupt()
    with pytest.raises(Interrupted):
        waiting.result(PATIENCE)
    await_waiting(database, 0)
    third.leadership.interrupt()  # before it waits at all
    with pytest.raises(Interrupted):
        third.lead()


def test_waiting_keeps_nothing_from_being_cleaned_up(
    make: Make, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that runs for days makes VACUUM keep every version of every row since."""
    monkeypatch.setattr(postgres_session, "_ONE_WAIT", b"SET lock_timeout = '100ms'")
    first, second = make("first"), make("second")
    first.lead()
    first.store.write([first.leadership.begin(1)])
    waiting = second.queue()
    await_waiting(database)
    [(oldest,)] = execute(database, _HORIZON)
    deadline = time.monotonic() + PATIENCE
    while execute(database, _HORIZON) in ([(oldest,)], [(None,)]):
        first.store.write([first.leadership.beat()])
        assert time.monotonic() < deadline, "the wait sees the database as when it began"
    first.close()
    waiting.result(PATIENCE)
    second.store.write([rows.run(1)])


_HORIZON = """SELECT max(backend_xmin::text::bigint) FROM pg_stat_activity
WHERE datname = current_database() AND position('pg_advisory_lock' IN query) > 0
    AND pid <> pg_backend_pid()
"""


def test_a_wait_ends_though_the_database_is_frozen(own_postgres: Postgres) -> None:
    url = own_postgres.new_database()
    with candidates(url) as make:
        first, second = make("first"), make("second")
        first.lead()
        waiting = second.queue()
        await_waiting(url)
        with own_postgres.frozen():
            second.leadership.interrupt()
            with pytest.raises(Interrupted):
                waiting.result(PATIENCE)
            second.close()


def test_work_without_a_server_may_take_long(make: Make, database: str) -> None:
    first, second = make("first"), make("second")
    first.store.seize()
    waiting = second.queue()
    await_waiting(database)
    for _ in range(3):
        second.now += LEASE
        assert not second.leadership.evict_if_stale(LEASE)
    first.store.write([rows.run(1)])
    first.close()
    waiting.result(PATIENCE)


def test_closing_ends_the_wait(make: Make, database: str) -> None:
    first, second = make("first"), make("second")
    first.lead()
    waiting = second.queue()
    await_waiting(database)
    second.close()
    with pytest.raises(MoorageError):
        waiting.result(PATIENCE)
    second.leadership.interrupt()


def test_a_session_that_is_ended_loses_lock_and_writing_together(
    make: Make, database: str
) -> None:
    first, second = make("first"), make("second")
    first.lead()
    first.store.write([first.leadership.begin(1)])
    waiting = second.queue()
    await_waiting(database)
    execute(database, "SELECT pg_terminate_backend(CAST(session AS integer)) FROM servers")
    waiting.result(PATIENCE)
    for _ in range(2):
        with pytest.raises(StoreBroken):
            first.store.write([rows.run(1)])
    second.store.write([rows.run(2)])
    assert [row["id"] for row in second.store.read("live_runs")] == [2]
    again = make("first")  # a new session, and in line again
    queued = again.queue()
    await_waiting(database)
    second.close()
    queued.result(PATIENCE)


def test_a_connection_that_is_cut_loses_both(make: Make, database: str) -> None:
    first, second = make("first"), make("second")
    first.lead()
    waiting = second.queue()
    await_waiting(database)
    descriptor = os.dup(first.store._writer.connection.fileno())
    with socket.socket(fileno=descriptor) as link:
        link.shutdown(socket.SHUT_RDWR)
    waiting.result(PATIENCE)
    with pytest.raises(StoreBroken):
        first.store.write([rows.run(1)])


def test_servers_are_known_with_the_latest_leader_first(make: Make) -> None:
    first, second = make("first"), make("second")
    for candidate in (first, second):
        candidate.leadership.announce()
    second.lead()
    raised = Statement("set_meta", {"key": "epoch", "value": "4"})
    second.store.write([raised, second.leadership.begin(4)])
    second.store.write([second.leadership.beat()])
    second.leadership.announce()
    leader, other = first.leadership.servers()
    assert (leader.id, leader.url, leader.epoch, leader.there) == (
        "second", "http://second:7321", 4, True
    )  # fmt: skip
    assert (other.id, other.epoch, other.there) == ("first", 0, True)
    first.leadership.withdraw()
    assert [server.id for server in second.leadership.servers()] == ["second"]


def test_servers_that_are_long_silent_are_forgotten(make: Make, database: str) -> None:
    first = make("first")
    for name in ("first", "old"):
        row = (
            "INSERT INTO servers (id, url, version, started_at, seen_at) VALUES (%s, '', '', 0, 0)"
        )
        execute(database, row, name)
    execute(database, "UPDATE servers SET epoch = 3 WHERE id = 'first'")
    assert not first.leadership.servers()[0].there
    first.leadership.announce()
    assert [(one.id, one.there) for one in first.leadership.servers()] == [("first", True)]


def test_a_leader_that_beats_is_left_alone(make: Make) -> None:
    first, second = make("first"), make("second")
    assert not second.leadership.evict_if_stale(LEASE)  # nobody leads
    first.lead()
    first.store.write([first.leadership.begin(1)])
    for _ in range(5):
        second.now += LEASE * 0.9
        assert not second.leadership.evict_if_stale(LEASE)
        first.store.write([first.leadership.beat()])
    first.store.write([rows.run(1)])


@pytest.mark.parametrize("told", [3 * LEASE, LEASE / 4])
def test_a_leader_is_judged_by_its_own_lease(make: Make, told: float) -> None:
    """A standby that is set to be quicker does not evict one that beats as seldom as it may."""
    first, second = make("first"), make("second")
    first.leadership = PostgresLeadership(first.store, identity("first")._replace(lease=told))
    first.lead()
    first.store.write([first.leadership.begin(1)])
    assert not second.leadership.evict_if_stale(LEASE)
    second.now += told * 0.9
    assert not second.leadership.evict_if_stale(LEASE)
    second.now += told * 0.1
    assert second.leadership.evict_if_stale(LEASE)


def test_a_leader_that_never_began_is_ended_too(make: Make, database: str) -> None:
    first, second = make("first"), make("second")
    first.lead()
    waiting = second.queue()
    await_waiting(database)
    assert not second.leadership.evict_if_stale(LEASE)
    second.now += LEASE
    assert second.leadership.evict_if_stale(LEASE)
    waiting.result(PATIENCE)
    with pytest.raises(StoreBroken):
        first.store.write([rows.run(1)])


class Leader:
    """A process that leads and writes as fast as it can."""

    def __init__(self, url: str, first: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(leader_programs.__file__)), str(first)],
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "MOORAGE_TEST_DATABASE": url,
            },
        )
        self.output = b""

    def read_until(self, lines: int) -> None:
        assert self.process.stdout is not None
        while self.output.count(b"\n") < lines:
            assert select.select([self.process.stdout], [], [], PATIENCE)[0], "it is stuck"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "it ended by itself"
            self.output += data

    def rest(self) -> list[str]:
        """Everything it said, when it has ended."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait(PATIENCE)
        return self.output.decode().splitlines()

    def kill(self) -> list[str]:
        with suppress(ProcessLookupError):
            self.process.kill()
        return self.rest()


def numbers(lines: list[str]) -> set[int]:
    return {int(line) for line in lines if line.isdigit()}


def written(store: PostgresStore) -> dict[int, int]:
    """How many rows there are of each batch, in the order of their commits."""
    found = store.read("events_since", {"since": 0, "limit": 10_000_000})
    return Counter(row["run_id"] for row in found)


def test_a_frozen_leader_is_ended_and_commits_nothing_more(make: Make, database: str) -> None:
    second = make("second")
    frozen = Leader(database, 0)
    try:
        frozen.read_until(50)
        waiting = second.queue()
        await_waiting(database)
        frozen.process.send_signal(signal.SIGSTOP)
        assert not second.leadership.evict_if_stale(LEASE)
        assert not waiting.done()
        second.now += LEASE
        assert second.leadership.evict_if_stale(LEASE)
        waiting.result(PATIENCE)
        before = written(second.store)
        second.store.write([second.leadership.begin(2), rows.run(1)])
        frozen.process.send_signal(signal.SIGCONT)
        *_, last = lines = frozen.rest()
        assert last.startswith("broken PostgreSQL at 127.0.0.1")
        assert numbers(lines) <= set(before)
        assert written(second.store) == before
        assert set(before.values()) == {leader_programs.BATCH}
    finally:
        frozen.kill() if frozen.process.poll() is None else None


def test_a_killed_leader_is_followed_at_once(make: Make, database: str) -> None:
    second = make("second")
    killed = Leader(database, 0)
    killed.read_until(30)
    waiting = second.queue()
    await_waiting(database)
    acknowledged = numbers(killed.kill())
    waiting.result(PATIENCE)
    found = written(second.store)
    assert acknowledged <= set(found)
    assert set(found.values()) == {leader_programs.BATCH}
    assert list(found) == list(range(1, len(found) + 1))


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_the_database_restarts_and_all_come_back(own_postgres: Postgres, how: str) -> None:
    """What was acknowledged is there, in order; nothing is half; one leads again."""
    url = own_postgres.new_database()
    leader = Leader(url, 0)
    with candidates(url) as make:
        second = make("second")
        leader.read_until(60)
        waiting = second.queue()
        await_waiting(url)
        assert second.store.read("max_seq") != [{"seq": 0}]
        if how == "kill":
            own_postgres.kill()
        else:
            own_postgres.stop(how)
        with pytest.raises(StoreBroken):
            waiting.result(PATIENCE)
        *_, last = lines = leader.rest()
        assert last.startswith("broken")
        with pytest.raises(StoreBroken):
            second.store.read("max_seq")
        own_postgres.start()
        assert second.store.read("max_seq") != [{"seq": 0}]  # readers come back by themselves
        third = make("third")
        third.lead()
        found = written(third.store)
        assert numbers(lines) <= set(found)
        assert set(found.values()) == {leader_programs.BATCH}
        assert list(found) == list(range(1, len(found) + 1))
        third.store.write([rows.run(1)])
