"""What is kept, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract import rows
from moorage.ids import NodeId, RunId
from moorage.protocol.api import Event
from moorage.store.base import Params, Row, Statement, Store
from moorage.store.history import History
from moorage.store.retention import JOBS_AT_ONCE, Limits, Retention
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer

NOW = 10_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_sqlite(tmp_path / "moorage.db")
    yield store
    store.close()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    writer = Writer(store)
    yield writer
    writer.close()


class Counted:
    """A store that counts reads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads = 0
        self.write = store.write
        self.close = store.close

    def read(self, query: str, params: Params | None = None) -> list[Row]:
        self.reads += 1
        return self.store.read(query, params)


def ended(number: int, ended_at: float, **changes: Any) -> Statement:
    times = {"submitted_at": ended_at - 10, "ended_at": ended_at}
    return rows.run(number, **{"state": "succeeded", **times, **changes})


def going(store: Store, writer: Writer, **limits: Any) -> list[int]:
    retention = Retention(store, writer, Limits(**limits))
    return [run for some in retention.runs(NOW) for run in some]


def test_runs_go_by_age_and_only_when_they_ended(store: Store, writer: Writer) -> None:
    store.write(
        [
            ended(1, 100),
            rows.run(2, state="running", submitted_at=100),
            rows.run(3, state="scheduled", submitted_at=100),
            ended(4, 9000, submitted_at=100),
            ended(5, 200, state="failed"),
            ended(6, 9500),
            rows.run(7, state="failed", submitted_at=150),
        ]
    )
    assert going(store, writer, run_age=5000) == [1, 5, 7]
    assert going(store, writer) == []


def test_runs_go_by_number_oldest_first(store: Store, writer: Writer) -> None:
    store.write([ended(number, 1000 + number) for number in range(1, 1201)])
    store.write([rows.run(2000)])
    assert going(store, writer, runs=1200) == []
    assert going(store, writer, runs=100) == list(range(1, 1101))


def test_a_walk_ends_where_runs_are_too_young(store: Store, writer: Writer) -> None:
    store.write([ended(number, number * 1.0) for number in range(1, 3001)])
    counted = Counted(store)
    assert going(counted, writer, run_age=NOW - 700) == list(range(1, 700))
    assert counted.reads == 2


def test_output_goes_with_its_run_by_node(store: Store, writer: Writer) -> None:
    store.write([rows.node(1), rows.node(2), ended(1, 100), ended(2, 100)])
    store.write([rows.job(1, 1), rows.job(2, 2), rows.attempt(1), rows.attempt(2)])
    store.write([rows.attempt(2, 2, node_id=2)])
    [step] = Retention(store, writer, Limits()).going([RunId(1), RunId(2)])
    assert step.runs == [1, 2]
    assert step.output == {1: ["1.1.0", "2.1.0"], 2: ["2.2.0"]}


def test_a_run_of_very_many_jobs_loses_them_in_steps(store: Store, writer: Writer) -> None:
    many = 5 * JOBS_AT_ONCE
    store.write([rows.node(1), ended(1, 100), ended(2, 100)])
    for number in range(many):
        store.write(
            [rows.job(number + 1, 1, idx=number, state="succeeded"), rows.attempt(number + 1)]
        )
    steps = list(Retention(store, writer, Limits()).going([RunId(1), RunId(2)]))
    assert [step.runs for step in steps] == [[1], [2]]
    assert len(steps[0].output[NodeId(1)]) == many
    assert len(store.read("jobs_of_run", {"run_id": 1})) == JOBS_AT_ONCE
    assert store.read("max_ids")[0]["job"] == many


def test_events_go_from_the_oldest_and_their_end_is_known(store: Store, writer: Writer) -> None:
    store.write([rows.event(at=float(number)) for number in range(1, 3001)])
    retention = Retention(store, writer, Limits(event_age=NOW - 500, events=2200))
    assert retention.expired_events(NOW) == 800
    assert [retention.trim_events(NOW) for _ in range(2)] == [800, 0]
    by_age = Retention(store, writer, Limits(event_age=NOW - 2500.5))
    assert by_age.expired_events(NOW) == 1700
    assert [by_age.trim_events(NOW) for _ in range(3)] == [1000, 700, 0]
    assert store.read("events_trimmed") == [{"seq": 2500}]
    assert Retention(store, writer, Limits()).trim_events(NOW) == 0
    assert Retention(store, writer, Limits(event_age=1.0)).trim_events(NOW) == 500
    assert store.read("max_seq") == [{"seq": 3000}]


def test_numbers_that_a_restore_left_out_count_as_no_events(store: Store, writer: Writer) -> None:
    store.write([rows.event(at=NOW) for _ in range(5)])
    store.write([Statement("restore_event_numbers", {"seq": 2_000_000})])
    store.write([rows.event(at=NOW) for _ in range(5)])
    assert Retention(store, writer, Limits(events=1000)).trim_events(NOW) == 0
    assert Retention(store, writer, Limits(events=7)).expired_events(NOW) == 3
    assert Retention(store, writer, Limits(events=7)).trim_events(NOW) == 3


def test_who_asks_for_removed_events_is_told(store: Store, writer: Writer) -> None:
    store.write([rows.run(1), rows.run(2)])
    store.write(
        [rows.event("run.submitted", run_id=1), *(rows.event("x", run_id=1) for _ in range(9))]
    )
    store.write([rows.event("run.submitted", run_id=2)])
    history = History(store)
    assert Retention(store, writer, Limits(events=5)).trim_events(NOW) == 6
    told = Event(6, 100.0, "feed.trimmed", data={"after": 0})
    assert [event.seq for event in history.events().events] == [6, 7, 8, 9, 10, 11]
    assert history.events().events[0] == told
    assert history.events(limit=1).events == [told]
    assert [event.seq for event in history.events(since=5).events][:2] == [6, 7]
    assert [event.seq for event in history.events(since=6).events][:2] == [7, 8]
    assert history.events(run=1).events[0] == msgspec.structs.replace(told, run=1)
    assert [event.seq for event in history.events(run=2).events] == [11]
    Retention(store, writer, Limits(event_age=1.0)).trim_events(NOW)
    assert [event.kind for event in history.events(since=3).events] == ["feed.trimmed"]
    assert history.events(since=11).events == []


def test_requests_go_by_age(store: Store, writer: Writer) -> None:
    for number in range(700):
        request = {"user": "a", "id": str(number), "runs": "[]", "at": 100.0 + number}
        store.write([Statement("insert_request", request)])
    retention = Retention(store, writer, Limits(request_age=NOW - 750))
    assert retention.expired_requests(NOW) == 650
    assert [retention.forget_requests(NOW) for _ in range(3)] == [500, 150, 0]
    assert Retention(store, writer, Limits()).forget_requests(NOW) == 0
    assert store.read("request", {"user": "a", "id": "649"}) == []
    assert store.read("request", {"user": "a", "id": "650"}) != []


def firings(store: Store, *states: str) -> None:
    """A schedule, run 7, whose jobs have these states and ended at 100, 200..."""
    store.write([rows.node(1), rows.run(7, state="scheduled")])
    for idx, state in enumerate(states):
        ended_at = None if state in ("queued", "running") else 100.0 * (idx + 1)
        job = rows.job(idx + 1, 7, idx=idx, state=state, ended_at=ended_at, attempt=1)
        store.write([job, rows.attempt(idx + 1)])


def indexes(store: Store) -> list[int]:
    return [row["idx"] for row in store.read("jobs_of_run", {"run_id": 7})]


def test_old_jobs_of_a_schedule_go_with_their_output(store: Store, writer: Writer) -> None:
    firings(store, *["succeeded", "failed"] * 4, "running")
    retention = Retention(store, writer, Limits(schedule_jobs=3))
    assert retention.expired_jobs(RunId(7), NOW) == 6
    step = retention.jobs(RunId(7), NOW)
    assert step is not None
    assert (step.run, step.before, step.jobs) == (7, 6, 6)
    assert step.output == {1: [f"{job}.1.0" for job in range(1, 7)]}
    store.write([Statement("delete_jobs_before", {"run_id": 7, "idx": step.before})])
    assert indexes(store) == [6, 7, 8], "two that ended, and the one that runs"
    assert retention.jobs(RunId(7), NOW) is None
    [run] = store.read("live_runs")
    assert run["jobs"] == 9, "the next one gets the next index"


def test_the_last_job_of_a_schedule_stays_however_old(store: Store, writer: Writer) -> None:
    firings(store, *["succeeded"] * 5)
    by_age = Retention(store, writer, Limits(run_age=NOW - 350.0))
    step = by_age.jobs(RunId(7), NOW)
    assert step is not None
    assert (step.before, step.jobs) == (3, 3)
    step = Retention(store, writer, Limits(run_age=1.0)).jobs(RunId(7), NOW)
    assert step is not None
    assert step.before == 4
    assert Retention(store, writer, Limits()).jobs(RunId(7), NOW) is None


def test_very_many_jobs_of_a_schedule_go_in_steps(store: Store, writer: Writer) -> None:
    firings(store, *["succeeded"] * (2 * JOBS_AT_ONCE + 10))
    retention = Retention(store, writer, Limits(schedule_jobs=5))
    gone = []
    while step := retention.jobs(RunId(7), NOW):
        gone.append(step.jobs)
        store.write([Statement("delete_jobs_before", {"run_id": 7, "idx": step.before})])
    assert gone == [JOBS_AT_ONCE, JOBS_AT_ONCE, 5]
    assert len(indexes(store)) == 5
