"""What has been kept for long enough: finished runs and events, oldest first, in small steps.

Runs go through the engine, as those that a user deletes, so that their output on nodes goes too;
this module only finds them. Events have no owner and are trimmed here. A step is small enough
that no commit of others waits noticeably for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from moorage.ids import NodeId, RunId
from moorage.protocol.api import FINAL_STATES
from moorage.store.base import Row, Statement, Store
from moorage.store.writer import Writer

RUNS_AT_ONCE = 40
JOBS_AT_ONCE = 200
"""A schedule's run may have had a hundred thousand jobs: they go before it, so many in a step."""
EVENTS_AT_ONCE = 1000
REQUESTS_AT_ONCE = 500
_PAGE = 500
_ALL = 2**31 - 1
_NEVER = -1.0e18
"""A time before everything: 0 in a limit means for ever."""


class Limits(NamedTuple):
    """Seconds and numbers; 0: no limit."""

    run_age: float = 0.0
    runs: int = 0
    event_age: float = 0.0
    events: int = 0
    request_age: float = 0.0
    schedule_jobs: int = 0


class Old(NamedTuple):
    """One step: the ended jobs of a schedule before an index, and the keys of their attempts."""

    run: RunId
    before: int
    jobs: int
    output: dict[NodeId, list[str]]


class Going(NamedTuple):
    """One step: runs that may go, and the keys of their attempts by node."""

    runs: list[RunId]
    output: dict[NodeId, list[str]]


class Retention:
    """Finds and trims. Every method may block on the disk; one thread at a time."""

    def __init__(self, store: Store, writer: Writer, limits: Limits) -> None:
        self._store = store
        self._writer = writer
        self._limits = limits

    def runs(self, now: float) -> Iterator[list[RunId]]:
        """Numbers of the finished runs beyond the limits, oldest first, a few at once.

        Numbers follow the time of submission, so the walk ends where runs are too young to have
        ended before the limit: it needs no index, and costs little where nothing is to go.
        """
        before = now - self._limits.run_age if self._limits.run_age else _NEVER
        surplus = self._surplus()
        after, going = 0, list[RunId]()
        while rows := self._store.read("runs_in_order", {"after": after, "limit": _PAGE}):
            for row in rows:
                if row["state"] in FINAL_STATES and (surplus > 0 or _ended(row) < before):
                    surplus -= 1
                    going.append(RunId(row["id"]))
            while len(going) >= RUNS_AT_ONCE:
                yield going[:RUNS_AT_ONCE]
                del going[:RUNS_AT_ONCE]
            after = rows[-1]["id"]
            if surplus <= 0 and rows[-1]["submitted_at"] >= before:
                break
        if going:
            yield going

    def going(self, runs: list[RunId]) -> Iterator[Going]:
        """These runs with their attempts; one with very many jobs loses those first."""
        step = Going([], {})
        attempts = 0
        for run in runs:
            rows = self._store.read("attempts_to_drop", {"run_id": run})
            if attempts and attempts + len(rows) > JOBS_AT_ONCE:
                yield step
                step, attempts = Going([], {}), 0
            attempts += len(rows)
            step.runs.append(run)
            _add_output(step.output, rows)
            if len(rows) > JOBS_AT_ONCE:
                self._thin_out(run, len(rows))
        yield step

    def jobs(self, schedule: RunId, now: float) -> Old | None:
        """One step of the ended jobs of a live schedule that are beyond the limits, oldest first;
        None at the end. The newest job always stays."""
        before = self._first_kept(schedule, now, JOBS_AT_ONCE)
        if not before:
            return None
        step = Old(schedule, before, self._jobs_before(schedule, before), {})
        rows = self._store.read("attempts_before", {"run_id": schedule, "idx": before})
        _add_output(step.output, rows)
        return step

    def expired_jobs(self, schedule: RunId, now: float) -> int:
        """How many jobs of a schedule are beyond the limits."""
        return self._jobs_before(schedule, self._first_kept(schedule, now, _ALL))

    def _first_kept(self, schedule: RunId, now: float, limit: int) -> int:
        age = self._limits.run_age
        params = {
            "run_id": schedule,
            "before": now - age if age else _NEVER,
            "keep": self._limits.schedule_jobs,
            "limit": limit,
        }
        idx: int | None = self._store.read("expired_job", params)[0]["idx"]
        return 0 if idx is None else idx + 1

    def _jobs_before(self, run: RunId, idx: int) -> int:
        total: int = self._store.read("count_jobs_before", {"run_id": run, "idx": idx})[0]["total"]
        return total

    def trim_events(self, now: float) -> int:
        """Delete one step of events beyond the limits; how many, 0 at the end."""
        found = self._expired("expired_events", now, limit=EVENTS_AT_ONCE)
        if found is None:
            return 0
        count = self._count(found)
        # In one transaction: a reader either finds the events, or that they were trimmed.
        batch = [
            Statement("raise_mark", {"key": "events_trimmed", "value": str(found)}),
            Statement("trim_events", {"seq": found}),
        ]
        self._writer.submit(batch).result()
        return count

    def expired_events(self, now: float) -> int:
        """How many events are beyond the limits."""
        found = self._expired("last_expired_event", now)
        return 0 if found is None else self._count(found)

    def forget_requests(self, now: float) -> int:
        """Forget one step of old requests; how many, 0 at the end."""
        if not self._limits.request_age:
            return 0
        old = {"before": now - self._limits.request_age, "limit": REQUESTS_AT_ONCE}
        rows = self._store.read("expired_requests", old)
        if rows:
            self._writer.submit([Statement("delete_request", row) for row in rows]).result()
        return len(rows)

    def expired_requests(self, now: float) -> int:
        """How many requests are beyond the limit."""
        if not self._limits.request_age:
            return 0
        old = {"before": now - self._limits.request_age}
        total: int = self._store.read("count_expired_requests", old)[0]["total"]
        return total

    def _surplus(self) -> int:
        if not self._limits.runs:
            return 0
        total: int = self._store.read("count_ended_runs")[0]["total"]
        return max(0, total - self._limits.runs)

    def _thin_out(self, run: RunId, jobs: int) -> None:
        for idx in range(JOBS_AT_ONCE, jobs, JOBS_AT_ONCE):
            batch = [
                Statement("note_jobs", {"id": run}),
                Statement("delete_jobs_before", {"run_id": run, "idx": idx}),
            ]
            self._writer.submit(batch).result()

    def _expired(self, query: str, now: float, **more: int) -> int | None:
        age = self._limits.event_age
        params = {"before": now - age if age else _NEVER, "surplus": self._surplus_event()}
        seq: int | None = self._store.read(query, params | more)[0]["seq"]
        return seq

    def _surplus_event(self) -> int:
        """The newest that is one too many; 0: none is. A restore leaves out a million numbers, so
        where numbers say that there are too many, events are counted."""
        keep = self._limits.events
        ends = self._store.read("event_ends")[0]
        if not keep or ends["newest"] - ends["oldest"] < keep:
            return 0
        seq: int = self._store.read("surplus_event", {"keep": keep})[0]["seq"]
        return seq

    def _count(self, seq: int) -> int:
        total: int = self._store.read("count_events", {"seq": seq})[0]["total"]
        return total


def _add_output(output: dict[NodeId, list[str]], rows: list[Row]) -> None:
    for row in rows:
        key = f"{row['job_id']}.{row['attempt']}.{row['rank']}"
        output.setdefault(NodeId(row["node_id"]), []).append(key)


def _ended(row: Row) -> float:
    ended: float | None = row["ended_at"]
    return row["submitted_at"] if ended is None else ended  # a damaged row goes by its beginning
