"""A database that keeps its readers waiting holds up nobody who does not read it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from moorage.engine.loop import VIEWS
from moorage.protocol.agent import Ack, Held, Outcome, Start
from postgres import Postgres
from system.fleet import Member
from system.servers import Reply, SocketAgent

READERS = VIEWS + 2
"""Requests at once that read for a user: more than there are threads for them."""
ENDED = Outcome("exited", exit_code=0)
SOON = 10.0
"""Seconds; a reader waits three times as long for a database that says nothing."""


@pytest.fixture
def leader(postgres_server: Postgres, tmp_path: Path) -> Iterator[Member]:
    """A server without a node."""
    database = postgres_server.new_database()
    member = Member(tmp_path, ["--no-node"], database=database)
    member.start()
    try:
        member.await_saying("leading, epoch")
        yield member
    finally:
        member.kill()
        member.ended()
        postgres_server.drop_database(database)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(READERS) as pool:
        yield pool


def ask(threads: ThreadPoolExecutor, leader: Member, path: str) -> list[Future[Reply]]:
    """As many readers as make every thread for them wait."""
    return [threads.submit(leader.call, "GET", path) for _ in range(READERS)]


def answered(asked: list[Future[Reply]]) -> bool:
    """Whether all come to their answers, once the database answers."""
    return [reading.result(60).status for reading in asked] == [200] * READERS


@contextmanager
def locked(leader: Member, table: str) -> Iterator[None]:
    """Nobody can read the table."""
    with psycopg.connect(leader.database) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """These processes do nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def reading_sessions(leader: Member) -> list[int]:
    """Processes of the database behind what the server reads on."""
    question = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'moorage'"
        " AND datname = current_database() AND pid <> (SELECT session FROM servers)"
    )
    with psycopg.connect(leader.database) as connection:
        return [pid for (pid,) in connection.execute(question.encode()).fetchall()]


def await_waiting(leader: Member, sessions: int) -> None:
    """Come back when so many sessions of the server wait for a lock."""
    question = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'moorage'"
        " AND datname = current_database() AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(leader.database, autocommit=True) as connection:
        while connection.execute(question.encode()).fetchall()[0][0] < sessions:
            pass


def goes_on(leader: Member, agent: SocketAgent, key: str) -> None:
    """Health is told, and a job starts and ends."""
    assert leader.call("GET", "/v1/health", token="").status == 200
    for state in (Held(key, "running"), Held(key, "done", outcome=ENDED)):
        agent.report(state)
        while not isinstance(agent.receive(SOON), Ack):
            pass
    assert leader.call("GET", "/v1/health", token="").status == 200


def test_while_readers_wait_for_a_lock_others_are_served(
    leader: Member, threads: ThreadPoolExecutor
) -> None:
    with SocketAgent(leader) as agent:
        agent.greet()
        first = leader.submit("first")
        with locked(leader, "meta"):
            asked = ask(threads, leader, f"/v1/events?run={first}")
            await_waiting(leader, VIEWS)
            number = leader.submit("second")
            assert number == leader.submit("second"), "the request is known"
            while agent.expect(Start).launch.job != number:
                pass
            goes_on(leader, agent, f"{number}.1.0")
            assert not any(reading.done() for reading in asked)
        assert answered(asked)
        shown = leader.call("GET", f"/v1/runs/{number}").json
        assert shown["summary"]["state"] == "succeeded"


def test_while_sessions_of_readers_are_frozen_others_are_served(
    leader: Member, threads: ThreadPoolExecutor
) -> None:
    with SocketAgent(leader) as agent:
        agent.greet()
        number = leader.submit("first")
        agent.expect(Start)
        with locked(leader, "meta"):
            asked = ask(threads, leader, f"/v1/events?run={number}")
            await_waiting(leader, VIEWS)
        assert answered(asked)
        with frozen(reading_sessions(leader)):
            asked = ask(threads, leader, f"/v1/runs/{number}")
            goes_on(leader, agent, f"{number}.1.0")
            assert not all(reading.done() for reading in asked)
        assert answered(asked)
