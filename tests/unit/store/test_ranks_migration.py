"""A store of before there were ranks opens, and what ran then goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from moorage.core.job import Prefilled, Running, Starting
from moorage.engine.boot import recall
from moorage.ids import JobId
from moorage.store import sql
from moorage.store.base import Store
from moorage.store.postgres import open_postgres
from moorage.store.sqlite import open_sqlite
from postgres import Postgres

BEFORE = 7
"""The last step without ranks."""
SPEC = '{"type":"task","commands":["true"]}'
RESOURCES = '{"cpus":4,"arch":"x86","memory":1000,"disk":1000}'
ROWS = f"""
INSERT INTO nodes (id, name, boot_id, state, version, resources, isolation, pythons)
VALUES (1, 'box', 'b', 'up', '0.1', '{RESOURCES}', '{{}}', '[]');
INSERT INTO runs (id, name, "user", state, spec, submitted_at)
VALUES (1, 'one', 'ann', 'running', '{SPEC}', 1.0), (2, 'two', 'ann', 'starting', '{SPEC}', 1.0),
    (3, 'three', 'ann', 'queued', '{SPEC}', 1.0), (4, 'four', 'ann', 'succeeded', '{SPEC}', 1.0);
INSERT INTO jobs (id, run_id, idx, state, attempt, node_id, queued_at)
VALUES (1, 1, 0, 'running', 2, 1, 1.0), (2, 2, 0, 'starting', 1, 1, 1.0),
    (3, 3, 0, 'queued', 0, NULL, 1.0), (4, 4, 0, 'succeeded', 1, 1, 1.0);
INSERT INTO attempts (job_id, attempt, node_id, state, assigned_at)
VALUES (1, 1, 1, 'done', 1.0), (1, 2, 1, 'running', 2.0), (2, 1, 1, 'assigned', 2.0),
    (3, 1, 1, 'prefilled', 2.0), (4, 1, 1, 'done', 1.0);
"""


def goes_on(store: Store) -> None:
    jobs = recall(store).jobs
    states = [jobs[JobId(number)].state for number in (1, 2, 3)]
    assert [type(state) for state in states] == [Running, Starting, Prefilled]
    assert jobs[JobId(1)].key == "1.2.0"
    rows = store.read("attempts_of_run", {"run_id": 1})
    assert [(row["attempt"], row["rank"], row["state"]) for row in rows] == [
        (1, 0, "done"),
        (2, 0, "running"),
    ]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The schema is that of before, until this is called."""
    known = sql.migrations()
    monkeypatch.setattr(sql, "migrations", lambda: known[:BEFORE])
    return lambda: monkeypatch.setattr(sql, "migrations", lambda: known)


def test_on_sqlite(tmp_path: Path, before: Callable[[], None]) -> None:
    path = tmp_path / "moorage.db"
    with closing(open_sqlite(path)) as store:
        store._writer.executescript(ROWS)
    before()
    with closing(open_sqlite(path)) as store:
        goes_on(store)


def test_on_postgres(postgres_server: Postgres, before: Callable[[], None]) -> None:
    url = postgres_server.new_database()
    open_postgres(url).close()
    with psycopg.connect(url) as connection:
        connection.execute(ROWS.encode())
    before()
    with closing(open_postgres(url)) as store:
        goes_on(store)
    postgres_server.drop_database(url)
