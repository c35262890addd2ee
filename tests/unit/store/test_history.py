"""Rows become what the API says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from contract import rows
from moorage.errors import InvalidInput, NotFound
from moorage.ids import JobId
from moorage.protocol.agent import Outcome, Phase, Usage
from moorage.protocol.api import AttemptView, Event, JobView, RunSummary
from moorage.specs.task import Task
from moorage.store.base import Store
from moorage.store.history import History, JobTries, Try
from moorage.store.sqlite import open_sqlite


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_sqlite(tmp_path / "moorage.db")
    yield store
    store.close()


@pytest.fixture
def history(store: Store) -> History:
    return History(store)


def text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def test_all_about_a_run(store: Store, history: History) -> None:
    spec = Task(name="train", commands=["make", "true"], tags={"team": "a"})
    phases = [Phase("claim", 101.0, 101.5), Phase("fetch", 101.5, None, "2 files")]
    outcome = Outcome("exited", exit_code=3, message="command 1 failed")
    store.write(
        [
            rows.node(1),
            rows.run(
                5,
                name="train",
                state="failed",
                reason="exit-code",
                message="command 1 failed",
                exit_code=3,
                spec=text(spec),
                source="type: task",
                dialect="dstack",
                tags=text(spec.tags),
                stopping=1,
                node="node-1",
                attempt=2,
                ended_at=150.0,
            ),
            rows.job(8, 5, state="failed", exit_code=3, stopping=1, attempt=2),
            rows.attempt(8),
            rows.progress(
                8,
                "done",
                ended_at=150.0,
                phases=text(phases),
                outcome=text(outcome),
                usage=text(Usage(1.5, 4096)),
            ),
            rows.attempt(8, 2),
        ]
    )
    view = history.run("5")
    assert view.summary == RunSummary(
        id=5,
        name="train",
        user="ada",
        state="failed",
        submitted_at=105.0,
        reason="exit-code",
        message="command 1 failed",
        exit_code=3,
        node="node-1",
        attempt=2,
        stopping=True,
        ended_at=150.0,
        tags={"team": "a"},
    )
    assert (view.spec, view.source, view.dialect) == (spec, "type: task", "dstack")
    [job] = view.jobs
    assert job == JobView(
        id=8,
        index=0,
        state="failed",
        exit_code=3,
        stopping=True,
        queued_at=100.0,
        attempts=[
            AttemptView(
                1, "node-1", "done", 101.0, 102.0, 150.0, phases, outcome, Usage(1.5, 4096)
            ),
            AttemptView(2, "node-1", "staging", 101.0),
        ],
    )


def test_a_reference_is_a_number_or_the_newest_of_a_name(store: Store, history: History) -> None:
    store.write([rows.run(1, name="a"), rows.run(2, name="a"), rows.run(3, name="b")])
    assert history.summary("1").id == 1
    assert history.summary("a").id == history.run("a").summary.id == 2
    for ref in ("4", "c", "", "-1", "²", "9" * 30):
        with pytest.raises(NotFound, match="no run"):
            history.run(ref)


def test_pages_lead_through_all_runs(store: Store, history: History) -> None:
    states = ("succeeded", "running", "queued")
    store.write([rows.run(n, state=states[n % 3]) for n in range(1, 31)])
    for active, expected in ((False, 30), (True, 20)):
        seen: list[int] = []
        cursor = None
        while True:
            page = history.runs(active=active, limit=7, cursor=cursor)
            assert page.total == expected
            seen += [run.id for run in page.runs]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(seen) == expected
        assert seen == sorted(seen, reverse=True)


def test_the_last_page_has_no_cursor(store: Store, history: History) -> None:
    assert history.runs().cursor is None
    store.write([rows.run(n) for n in range(1, 5)])
    assert history.runs(limit=4).cursor is None
    assert history.runs(limit=3).cursor is not None
    assert len(history.runs(limit=0).runs) == 1


def test_totals_count_so_far_and_no_further(
    store: Store, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.store.history.COUNTED", 3)
    store.write([rows.run(n, name="same", state="failed") for n in range(1, 6)])
    for filters in ({}, {"state": "failed"}, {"name": "same"}):
        assert history.runs(limit=1, **filters).total == 3
    assert history.runs(active=True).total == 0
    assert history.runs(active=True, state="failed").total == 0


def test_where_a_job_was_tried(store: Store, history: History) -> None:
    store.write(
        [
            rows.node(1),
            rows.run(1),
            rows.job(4, 1, state="failed"),
            rows.job(5, 1, idx=1),
            rows.attempt(4),
            rows.progress(4, "done"),
            rows.attempt(4, 2),
        ]
    )
    assert history.tries(1, 0) == JobTries(
        JobId(4), True, {1: Try("node-1", True), 2: Try("node-1", False)}
    )
    assert history.tries(1, None) == JobTries(JobId(5), False, {})
    assert history.tries(1, 2) is None


@pytest.mark.parametrize("cursor", ["", "7", "r", "rx", "r-1", "r" + "f" * 40, "r1\n"])
def test_a_made_up_cursor_is_refused(history: History, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        history.runs(cursor=cursor)


def test_events(store: Store, history: History) -> None:
    store.write(
        [
            rows.node(1),
            rows.run(1),
            rows.event("run.submitted", run_id=1, data='{"jobs":1}'),
            rows.event("node.up", node_id=1),
            rows.event("job.queued", run_id=1, job_id=4, at=101.0),
        ]
    )
    assert history.events().events == [
        Event(1, 100.0, "run.submitted", run=1, run_name="run-1", data={"jobs": 1}),
        Event(2, 100.0, "node.up", node="node-1"),
        Event(3, 101.0, "job.queued", run=1, run_name="run-1", job=4),
    ]
    assert [event.seq for event in history.events(since=1, run=1).events] == [3]
    assert [event.seq for event in history.events(limit=1).events] == [1]
    assert history.events(since=2**70).events == []
    assert [event.seq for event in history.newest_events(2).events] == [2, 3]
    assert [event.seq for event in history.newest_events(1, 1).events] == [3]
    assert history.events(run=2**70).events == []
