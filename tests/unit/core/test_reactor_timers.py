"""Schedules: times are UTC; 1970-01-01T00:16:40 is second 1000."""

from __future__ import annotations

import pytest
from cronsim import CronSimError

from moorage.core.cron import next_firing
from moorage.core.job import Stopping
from moorage.errors import InvalidInput
from moorage.specs.schedule import Schedule

HOURLY = Schedule(["0 * * * *"])


def test_the_earliest_of_several_expressions_counts():
    assert next_firing(["0 * * * *", "30 * * * *"], 0.0) == 1800.0
    assert next_firing(["0 * * * *"], 3600.0) == 7200.0
    for never in ("0 0 30 2 *", "every day"):
        with pytest.raises(CronSimError):
            next_firing([never], 0.0)


def test_a_time_that_never_comes_is_refused(desk):
    with pytest.raises(InvalidInput, match="no such time"):
        desk.submit(schedule=Schedule(["0 0 30 2 *"]))


def test_a_schedule_waits_fires_and_waits_again(desk, say):
    desk.hello()
    assert say.brief(desk.submit(schedule=HOURLY)) == [
        "insert_run 1 scheduled",
        "! run.submitted",
        "arm cron 1 3600",
        "insert_request r",
        "wake",
    ]
    assert desk.cluster.counts == {"scheduled": 1}
    desk.now = 3599.0
    assert say.brief(desk.ring("cron", 1)) == ["arm cron 1 3600"]
    desk.now = 3600.5
    assert say.brief(desk.ring("cron", 1)) == [
        "insert_job 1 queued",
        "update_run 1 queued",
        "! job.queued",
        "arm cron 1 7200",
        "wake",
    ]
    desk.schedule()
    effects = desk.report(say.done("1.1.0", 1, message="command 1 of 1 failed"))
    assert say.brief(effects)[3:6] == [
        "update_job 1 failed",
        "! job.ended",
        "update_run 1 scheduled",
    ]
    run = desk.cluster.runs[1]
    assert run.last.message == "command 1 of 1 failed"
    assert desk.cluster.counts == {"scheduled": 1}
    desk.now = 7200.0
    desk.ring("cron", 1)
    assert (desk.job(2).index, run.started_at, run.jobs) == (1, None, 2)


def test_two_jobs_of_a_schedule_never_overlap(desk, say):
    desk.submit(schedule=HOURLY)
    desk.now = 3600.0
    desk.ring("cron", 1)
    desk.now = 7200.0
    effects = desk.ring("cron", 1)
    assert say.brief(effects) == ["update_run 1 queued", "! run.skipped", "arm cron 1 10800"]
    assert effects[1].data == {"reason": "previous-job-live", "next_at": 10800.0}
    assert len(desk.cluster.jobs) == 1


def test_missed_firings_become_one(desk, say):
    desk.submit(schedule=HOURLY)
    desk.now = 36_000.0
    assert say.brief(desk.ring("cron", 1))[-2:] == ["arm cron 1 39600", "wake"]
    assert len(desk.cluster.jobs) == 1


def test_stopping_between_jobs_ends_the_run(desk, say):
    desk.submit(schedule=HOURLY)
    effects = desk.cancel()
    assert say.brief(effects) == ["! run.stopping", "update_run 1 cancelled", "! run.ended"]
    assert effects[1].params["message"] == "a user ended its schedule"
    assert desk.ring("cron", 1) == []
    assert not desk.cluster.counts


def test_stopping_during_a_job_ends_the_run_with_it(desk, say):
    desk.hello()
    desk.submit(schedule=HOURLY)
    desk.now = 3600.0
    desk.ring("cron", 1)
    desk.schedule()
    desk.report(say.running("1.1.0"))
    desk.cancel()
    assert desk.cluster.runs[1].stopping is Stopping.STOP
    assert desk.ring("cron", 1) == []
    effects = desk.report(say.done("1.1.0"))
    rows = [e.params for e in effects if getattr(e, "query", "") == "update_run"]
    assert [(row["state"], row["reason"]) for row in rows] == [("cancelled", "stopped")]
    assert not desk.cluster.runs


def test_a_timer_of_something_over_changes_nothing(desk):
    assert desk.ring("cron", 5) == []
    assert desk.ring("retry", 5) == []


def test_a_run_without_a_schedule_has_no_firing(desk):
    desk.submit()
    assert desk.ring("cron", 1) == []
