"""The database: the real schema and the real named queries over SQLite in memory.

There are two of them. `Tables` of what is durable, and one that is ahead by what the leader has
decided and not yet committed; so that every decision can be compared with its rows at once.
Modelled: order, atomic batches, the leader's fence (`epoch`). Not modelled: SQLite's own failures.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from moorage.core.boot import restore
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Write
from moorage.store import sql

QUERIES = sql.queries("sqlite")
_EVENT = QUERIES["insert_event"].text
_TABLES = ("runs", "jobs", "attempts", "nodes", "dropped_logs", "requests", "run_blobs")
_FIRST = ("run.submitted", "job.queued")
_CHOSEN = "(SELECT value FROM json_each(?))"
_encode = msgspec.json.Encoder().encode


class Tables:
    """One database, empty or the copy of another. `close` it."""

    def __init__(self, copied: Tables | None = None) -> None:
        self.epoch = 0
        """Of the leader that may write."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA journal_mode = OFF")
        if copied is None:
            self.connection.executescript(sql.for_sqlite(sql.schema()))
        else:
            copied.connection.backup(self.connection)

    def close(self) -> None:
        self.connection.close()

    def apply(self, effects: Iterable[Effect], now: float, *, feed: bool = True) -> None:
        """What a batch writes, in its order; without `feed`, of events only those that numbers
        are remembered by."""
        execute = self.connection.execute
        execute("BEGIN")
        for effect in effects:
            if isinstance(effect, Write):
                execute(QUERIES[effect.query].text, effect.params)
            elif isinstance(effect, Emit) and (feed or effect.kind in _FIRST):
                data = _encode(effect.data or {}).decode()
                execute(
                    _EVENT,
                    {
                        "at": now,
                        "kind": effect.kind,
                        "run_id": effect.run,
                        "job_id": effect.job,
                        "node_id": effect.node,
                        "data": data,
                    },
                )
        execute("COMMIT")

    def rows(self, query: str, **params: Any) -> list[sqlite3.Row]:
        return self.connection.execute(QUERIES[query].text, params).fetchall()

    def cluster(self) -> Cluster:
        """What a server would begin with."""
        return restore(
            runs=self.rows("live_runs"),
            jobs=self.rows("live_jobs"),
            attempts=self.rows("live_attempts"),
            nodes=self.rows("nodes"),
            ids=self.rows("max_ids")[0],
            dropped_logs=self.rows("dropped_logs"),
            earlier_attempts=self.rows("earlier_attempts"),
        )

    def excerpt(self, runs: Iterable[int]) -> Cluster:
        """As `cluster`, of some runs alone, with the nodes that they are on."""
        chosen = _encode(list(runs)).decode()
        jobs = self._live("live_jobs", f"run_id IN {_CHOSEN}", chosen)
        ids = _encode([row["id"] for row in jobs]).decode()
        attempts = self._live("live_attempts", f"job_id IN {_CHOSEN}", ids)
        earlier = self._live("earlier_attempts", f"j.id IN {_CHOSEN}", ids)
        nodes = _encode([row["node_id"] for row in (*attempts, *earlier)]).decode()
        on = self.connection.execute(f"SELECT * FROM nodes WHERE id IN {_CHOSEN}", (nodes,))
        return restore(
            runs=self._live("live_runs", f"id IN {_CHOSEN}", chosen),
            jobs=jobs,
            attempts=attempts,
            nodes=on.fetchall(),
            ids={"run": 0, "job": 0, "node": 0},
            earlier_attempts=earlier,
        )

    def _live(self, query: str, only: str, chosen: str) -> list[sqlite3.Row]:
        """The rows of a boot query that belong to what is chosen."""
        head, order = QUERIES[query].text.rsplit("ORDER BY", 1)
        text = f"{head} AND {only} ORDER BY {order}"
        return self.connection.execute(text, (chosen,)).fetchall()

    def one(self, text: str, *params: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.connection.execute(text, params).fetchone()
        return row

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table but the feed, to compare."""
        return {
            table: sorted(map(tuple, self.connection.execute(f"SELECT * FROM {table}")), key=repr)
            for table in _TABLES
        }
