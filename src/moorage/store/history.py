"""What the tables tell about runs and events, as the API says it. Reads only.

What only the living cluster knows (why a job waits, what a node has left) is added by the engine.
"""

from __future__ import annotations

import re
from typing import NamedTuple, cast, get_args

from moorage.decoding import json_decoder
from moorage.errors import InvalidInput, NotFound
from moorage.ids import JobId
from moorage.protocol.agent import Outcome, Phase, Usage
from moorage.protocol.api import (
    COUNTED,
    FINAL_STATES,
    AttemptView,
    Event,
    EventPage,
    JobView,
    RunPage,
    RunRequest,
    RunState,
    RunSummary,
    RunView,
)
from moorage.specs.gang import ranks
from moorage.specs.show import without_password
from moorage.specs.task import Task
from moorage.store.base import Row, Store

LARGEST_PAGE = 1000
LIVE_STATES = frozenset(get_args(RunState)) - FINAL_STATES
_LARGEST_NUMBER = 2**63 - 1
_CURSOR = re.compile(r"r[0-9a-f]{1,15}")

_spec = json_decoder(Task)
_tags = json_decoder(dict[str, str])
_phases = json_decoder(list[Phase])
_outcome = json_decoder(Outcome)
_usage = json_decoder(Usage)
_data = json_decoder(dict[str, object])


class Try(NamedTuple):
    """One attempt: the name of its node, and whether nothing of it is left there."""

    node: str
    over: bool


class JobTries(NamedTuple):
    """A job with its attempts by number; `over`: there will be no other."""

    id: JobId
    over: bool
    tries: dict[int, Try]


class History:
    """Views of what is stored. Any thread may call any method."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(
        self,
        *,
        active: bool = False,
        state: str | None = None,
        name: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs that pass all filters given, newest first; `total` counts those of all pages, up
        to COUNTED.

        `active` leaves out what has ended. InvalidInput for a cursor that no page gave.
        """
        limit = max(1, min(limit, LARGEST_PAGE))
        before = _position(cursor)
        if active and state in FINAL_STATES:
            return RunPage([], 0)
        if name is not None and (active or state in LIVE_STATES):
            return self._live_of(name, state, before)
        kind, filters = _kind(active, state, name)
        # One more than asked for tells whether another page follows.
        wanted = {**filters, "before": before, "limit": limit + 1}
        rows = self._store.read(f"{kind}runs_page", wanted)
        total = self._store.read(f"count_{kind}runs", {**filters, "most": COUNTED})[0]["total"]
        following = _cursor(rows[limit - 1]["id"]) if len(rows) > limit else None
        return RunPage([_summary(row) for row in rows[:limit]], cast(int, total), following)

    def _live_of(self, name: str, state: str | None, before: int) -> RunPage:
        """Live runs never share a name, and a name in use is taken: only its newest can be live,
        however many had it."""
        found = [
            _summary(row)
            for row in self._store.read("run_by_name", {"name": name})
            if row["state"] not in FINAL_STATES and state in (None, row["state"])
        ]
        return RunPage([run for run in found if run.id < before], len(found))

    def summary(self, ref: str) -> RunSummary:
        """The run of that number, or the newest of that name; NotFound."""
        return _summary(self._row(ref))

    def run(self, ref: str) -> RunView:
        """All about the run of that number, or the newest of that name; NotFound."""
        row = self._row(ref)
        run = {"run_id": row["id"]}
        attempts: dict[int, list[AttemptView]] = {}
        for attempt in self._store.read("attempts_of_run", run):
            attempts.setdefault(attempt["job_id"], []).append(_attempt(attempt))
        jobs = [
            _job(job, attempts.get(job["id"], [])) for job in self._store.read("jobs_of_run", run)
        ]
        spec = without_password(_spec(row["spec"]))
        return RunView(_summary(row), spec, jobs, row["source"], row["dialect"])

    def request(self, ref: str) -> RunRequest:
        """The run as it was submitted, to be submitted again; with its password, if it has one, so
        for no reply. NotFound."""
        row = self._row(ref)
        return RunRequest(_spec(row["spec"]), row["source"], row["dialect"])

    def ranks(self, ref: str) -> int:
        """On how many nodes the jobs of a run run; NotFound."""
        return ranks(_spec(self._row(ref)["spec"]))

    def tries(self, run: int, index: int | None, rank: int = 0) -> JobTries | None:
        """Where a rank of the job at a position of a run (None: its newest) was tried; None
        without such a job."""
        if index is None:
            jobs = self._store.read("last_job", {"run_id": run})
        else:
            jobs = self._store.read("job_at", {"run_id": run, "idx": index})
        if not jobs:
            return None
        job = jobs[0]
        tries = {
            row["attempt"]: Try(row["node"], row["state"] == "done")
            for row in self._store.read("attempts_of_job", {"job_id": job["id"], "rank": rank})
        }
        return JobTries(JobId(job["id"]), job["state"] in FINAL_STATES, tries)

    def events(self, *, since: int = 0, run: int | None = None, limit: int = 100) -> EventPage:
        """What happened after event number `since`, to one run or to all, oldest first."""
        limit = max(1, min(limit, LARGEST_PAGE))
        since = min(since, _LARGEST_NUMBER)
        if run is None:
            rows = self._store.read("events_since", {"since": since, "limit": limit})
        else:
            wanted = {"since": since, "run": min(run, _LARGEST_NUMBER), "limit": limit}
            rows = self._store.read("run_events_since", wanted)
        found = [_event(row) for row in rows]
        # Numbers follow each other: a page that begins with the next one lacks none.
        if run is None and found and found[0].seq == since + 1:
            return EventPage(found)
        return EventPage([*self._removed(since, run, found), *found][:limit])

    def newest_events(self, limit: int, run: int | None = None) -> EventPage:
        """The last events of one run or of all, oldest first."""
        wanted = {"limit": max(1, min(limit, LARGEST_PAGE))}
        if run is None:
            rows = self._store.read("newest_events", wanted)
        else:
            run = min(run, _LARGEST_NUMBER)
            rows = self._store.read("newest_run_events", {**wanted, "run": run})
        return EventPage([_event(row) for row in reversed(rows)])

    def _removed(self, since: int, run: int | None, found: list[Event]) -> list[Event]:
        """What stands for the events after `since` that retention removed, if it removed any."""
        trimmed: int = self._store.read("events_trimmed")[0]["seq"]
        if since >= trimmed:
            return []
        if run is not None and self._store.read("first_event_of_run", {"run": run})[0]["seq"]:
            return []  # from its submission on, all is there
        at = found[0].at if found else 0.0
        return [Event(trimmed, at, "feed.trimmed", run=run, data={"after": since})]

    def _row(self, ref: str) -> Row:
        rows: list[Row] = []
        if ref.isascii() and ref.isdigit() and len(ref) < 19:  # fits a BIGINT
            rows = self._store.read("run_by_id", {"id": int(ref)})
        if not rows:
            rows = self._store.read("run_by_name", {"name": ref})
        if not rows:
            raise NotFound(f"there is no run {ref!r}; 'moorage ps -a' lists all")
        return rows[0]


def _cursor(run: int) -> str:
    return f"r{run:x}"


def _kind(active: bool, state: str | None, name: str | None) -> tuple[str, dict[str, str]]:
    """Which family of queries answers from an index of its own, and with which parameters."""
    if name is not None and state is not None:
        return "named_state_", {"name": name, "state": state}
    if name is not None:
        return "named_", {"name": name}
    if state is not None:
        return "state_", {"state": state}
    return ("active_" if active else ""), {}


def _position(cursor: str | None) -> int:
    if cursor is None:
        return _LARGEST_NUMBER
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidInput("the cursor is not one that an earlier page gave")
    return int(cursor[1:], 16)


def _summary(row: Row) -> RunSummary:
    return RunSummary(
        id=row["id"],
        name=row["name"],
        user=row["user"],
        state=cast(RunState, row["state"]),
        submitted_at=row["submitted_at"],
        reason=row["reason"],
        message=row["message"],
        exit_code=row["exit_code"],
        node=row["node"],
        attempt=row["attempt"],
        priority=row["priority"],
        stopping=bool(row["stopping"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        next_at=row["next_at"],
        tags=_tags(row["tags"]),
    )


def _job(row: Row, attempts: list[AttemptView]) -> JobView:
    return JobView(
        id=row["id"],
        index=row["idx"],
        state=cast(RunState, row["state"]),
        reason=row["reason"],
        message=row["message"],
        exit_code=row["exit_code"],
        stopping=bool(row["stopping"]),
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        attempts=attempts,
    )


def _attempt(row: Row) -> AttemptView:
    return AttemptView(
        attempt=row["attempt"],
        node=row["node"],
        state=row["state"],
        assigned_at=row["assigned_at"],
        rank=row["rank"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        phases=_phases(row["phases"]),
        outcome=_outcome(row["outcome"]) if row["outcome"] is not None else None,
        usage=_usage(row["usage"]) if row["usage"] is not None else None,
    )


def _event(row: Row) -> Event:
    return Event(
        seq=row["seq"],
        at=row["at"],
        kind=row["kind"],
        run=row["run_id"],
        run_name=row["run_name"],
        job=row["job_id"],
        node=row["node"],
        data=_data(row["data"]),
    )
