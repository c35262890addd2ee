"""No query of a request or of the boot reads a table that grows with the past."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from contract import rows
from filled import fill
from moorage.store import sql
from moorage.store.base import Statement
from moorage.store.leader import Identity
from moorage.store.postgres import open_postgres
from moorage.store.sqlite import open_sqlite
from postgres import Postgres

FINISHED, WAITING, PAGE = 3000, 200, 20
BEYOND = 2**63 - 1
MIDDLE = FINISHED // 2
NIGHTLY = "nightly"
"""A name that many runs had, of which few failed."""
GROWING = ("runs", "jobs", "attempts", "events", "requests")
PARAMETERS: dict[str, dict[str, Any]] = {
    "run_by_id": {"id": MIDDLE},
    "run_by_name": {"name": f"old-{MIDDLE}"},
    "request": {"user": "ada", "id": "x"},
    "runs_page": {"before": MIDDLE, "limit": PAGE},
    "active_runs_page": {"before": BEYOND, "limit": PAGE},
    "state_runs_page": {"state": "queued", "before": BEYOND, "limit": PAGE},
    "named_runs_page": {"name": NIGHTLY, "before": BEYOND, "limit": PAGE},
    "named_state_runs_page": {"name": NIGHTLY, "state": "failed", "before": BEYOND, "limit": PAGE},
    "count_runs": {"most": PAGE},
    "count_active_runs": {"most": PAGE},
    "count_state_runs": {"state": "failed", "most": PAGE},
    "count_named_runs": {"name": NIGHTLY, "most": PAGE},
    "count_named_state_runs": {"name": NIGHTLY, "state": "failed", "most": PAGE},
    "jobs_of_run": {"run_id": MIDDLE},
    "attempts_of_run": {"run_id": MIDDLE},
    "job_at": {"run_id": MIDDLE, "idx": 0},
    "last_job": {"run_id": MIDDLE},
    "attempts_of_job": {"job_id": MIDDLE, "rank": 0},
    "events_since": {"since": 7 * MIDDLE, "limit": PAGE},
    "run_events_since": {"run": MIDDLE, "since": 0, "limit": PAGE},
    "newest_events": {"limit": PAGE},
    "newest_run_events": {"run": MIDDLE, "limit": PAGE},
    "events_trimmed": {},
    "max_seq": {},
    "max_ids": {},
    "live_runs": {},
    "live_jobs": {},
    "live_attempts": {},
    "earlier_attempts": {},
}
"""What requests ask, and the boot."""
BOOT = ("live_runs", "live_jobs", "live_attempts", "earlier_attempts")
BOUNDED = ("count_runs", "attempts_of_run")
"""Scanned as far as a limit goes; sorted, but only the rows of one run."""


def nightly() -> Iterator[Statement]:
    first = FINISHED + WAITING + 1
    for number in range(first, first + FINISHED):
        state = "failed" if number % 300 == 0 else "succeeded"
        yield rows.run(number, name=NIGHTLY, state=state, ended_at=1.0)


@pytest.fixture(scope="module")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("plans") / "moorage.db"
    store = open_sqlite(path)
    fill(store, finished=FINISHED, waiting=WAITING)
    store.write(list(nightly()))
    store.close()
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", PARAMETERS)
def test_sqlite_searches_and_does_not_scan(filled_sqlite: sqlite3.Connection, name: str) -> None:
    text = sql.queries("sqlite")[name].text
    steps = filled_sqlite.execute("EXPLAIN QUERY PLAN " + text, PARAMETERS[name]).fetchall()
    plan = [step[3] for step in steps]
    for step in plan:
        if name in BOUNDED or "INDEX runs_live" in step or (name in BOOT and "_live" in step):
            continue  # bounded by what is live
        words = step.split()
        assert not (words[0] == "SCAN" and words[1] in {*GROWING, "e", "a", "r", "j"}), plan
        assert "TEMP B-TREE" not in step or name in BOOT, plan


@pytest.fixture(scope="module")
def filled_postgres(postgres_server: Postgres) -> Iterator[str]:
    url = postgres_server.new_database()
    store = open_postgres(url)
    store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
    fill(store, finished=FINISHED, waiting=WAITING)
    store.write(list(nightly()))
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    yield url
    postgres_server.drop_database(url)


@pytest.mark.parametrize("name", PARAMETERS)
def test_postgres_touches_few_rows(filled_postgres: str, name: str) -> None:
    query = sql.queries("postgres")[name]
    text = query.text
    for parameter in query.parameters:
        text = text.replace(f":{parameter}", f"%({parameter})s")
    explained = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {text}"
    with psycopg.ClientCursor(psycopg.connect(filled_postgres)) as cursor, cursor.connection:
        told = cursor.execute(explained.encode(), PARAMETERS[name]).fetchone()
    assert told is not None
    most = 4 * WAITING if name in BOOT else 3 * PAGE
    assert _touched(told[0][0]["Plan"]) <= most, told[0]


def _touched(node: dict[str, Any]) -> float:
    """Rows that the scans of growing tables read, at whatever place of the plan."""
    own = 0.0
    if node.get("Relation Name") in GROWING:
        removed = node.get("Rows Removed by Filter", 0)
        own = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return own + sum(map(_touched, node.get("Plans", [])))
