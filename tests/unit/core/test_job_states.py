from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.core.diagram import states_page
from moorage.core.job import (
    TRANSITIONS,
    Event,
    Final,
    IllegalTransition,
    JobState,
    JobStateName,
    Queued,
    check,
)
from moorage.core.reasons import RULES
from moorage.core.run import Run
from moorage.protocol.agent import OutcomeKind
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task

NAMES = get_args(JobStateName)


@given(st.sampled_from(NAMES), st.sampled_from(Event), st.sampled_from(NAMES))
def test_only_what_the_table_says_is_allowed(before, event, after):
    if TRANSITIONS.get((before, event)) == after:
        check(before, event, after)
    else:
        with pytest.raises(IllegalTransition, match=f"{before} --"):
            check(before, event, after)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_every_walk_stays_in_the_table_and_ends_for_good(events):
    state = "queued"
    for event in events:
        following = TRANSITIONS.get((state, event))
        if following is None:
            continue
        assert state not in {s.name for s in get_args(Final)}
        state = following


def test_every_state_has_a_class_and_every_outcome_a_rule():
    assert {state.name for state in get_args(JobState)} == set(NAMES)
    assert set(RULES) == set(get_args(OutcomeKind))


def test_a_forbidden_move_changes_nothing(desk):
    desk.submit()
    job = desk.job()
    with pytest.raises(IllegalTransition, match="queued --spawn--> queued"):
        desk.cluster.move(job, Event.SPAWN, Queued(2))
    assert job.state == Queued(1)
    assert job.id in desk.cluster.queue


@pytest.mark.parametrize(
    ("jobs", "state"),
    [
        ("queued succeeded", "queued"),
        ("queued starting", "starting"),
        ("queued starting running failed", "running"),
        ("finishing succeeded queued", "finishing"),
        ("succeeded succeeded", "succeeded"),
        ("succeeded cancelled", "cancelled"),
        ("succeeded cancelled failed", "failed"),
    ],
)
def test_a_run_is_what_its_jobs_are(jobs, state):
    run = Run(1, "a", "ann", Task(), 0.0, counts=Counter(jobs.split()))
    assert run.state == state


def test_a_scheduled_run_is_never_done_by_itself():
    run = Run(1, "a", "ann", Task(schedule=Schedule(["* * * * *"])), 0.0)
    run.count(None, "queued")
    assert run.state == "queued"
    run.count("queued", "failed")
    assert run.state == "scheduled"
    run.stopping = 1
    assert run.state == "cancelled"


def test_the_page_of_states_is_fresh():
    page = Path(__file__).parents[3] / "docs" / "reference" / "states.md"
    assert page.read_text() == states_page(), "run scripts/gen_states.py"
