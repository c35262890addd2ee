"""Agents come, go and come back; the server answers with the difference."""

from __future__ import annotations

import pytest

from moorage.core.job import Queued, Running, Starting
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import Retry

BACK = ["upsert_node 1 up", "! node.up"]


def assigned(desk):
    desk.hello()
    desk.submit(commands=["true"], retry=Retry())
    desk.schedule()


def test_a_lost_connection_leaves_jobs_alone(desk, say):
    desk.started()
    assert say.brief(desk.down()) == ["upsert_node 1 down", "! node.down"]
    assert desk.down() == []
    assert isinstance(desk.job().state, Running)
    assert desk.schedule() == []


def test_no_job_goes_to_a_node_that_is_down(desk, say):
    desk.hello()
    desk.down()
    desk.submit()
    assert desk.schedule() == []
    desk.hello()
    assert say.brief(desk.schedule())[-1] == "-> 1 start 1.1"


def test_a_start_that_went_missing_is_sent_again(desk, say):
    assigned(desk)
    desk.down()
    assert say.brief(desk.hello()) == [*BACK, "-> 1 start 1.1", "wake"]


def test_a_second_connection_is_no_news(desk, say):
    desk.started()
    held = say.running("1.1.0")
    assert say.brief(desk.hello(held)) == ["upsert_node 1 up", "wake"]


def test_progress_made_meanwhile_is_taken_over(desk, say):
    assigned(desk)
    desk.down()
    assert say.brief(desk.hello(say.done("1.1.0"))) == [
        *BACK,
        "update_attempt 1 done",
        "! job.running",
        "! job.finishing",
        "update_job 1 succeeded",
        "! job.ended",
        "update_run 1 succeeded",
        "! run.ended",
        "wake",
        "-> 1 forget 1.1.0",
        "wake",
    ]


def test_a_claim_that_vanished_is_lost_and_retried(desk, say):
    assigned(desk)
    desk.report(say.staging("1.1.0"))
    desk.down()
    effects = desk.hello()
    assert say.brief(effects) == [
        *BACK,
        "update_attempt 1 done",
        "! job.finishing",
        "update_job 1 queued",
        "update_run 1 queued",
        "! job.queued",
        "arm retry 1 1001",
        "wake",
        "wake",
    ]
    last = desk.job().state.last
    assert (last.reason, last.message) == ("lost", "node box no longer knows of it")


def test_a_reboot_loses_what_was_assigned_before(desk):
    assigned(desk)
    desk.down()
    desk.hello(boot="boot-2")
    assert isinstance(desk.job().state, Queued)
    assert desk.job().state.last.message == "node box was rebooted"
    assert desk.job().failed_at == desk.now


def test_what_survived_a_reboot_speaks_for_itself(desk, say):
    desk.started(retry=Retry())
    held = say.done("1.1.0", kind="lost", message="the node rebooted while it ran")
    desk.hello(held, boot="boot-2")
    assert desk.job().state.last.message == "the node rebooted while it ran"


def test_a_stop_is_sent_again(desk, say):
    desk.started()
    desk.down()
    desk.cancel(abort=True)
    effects = desk.hello(say.running("1.1.0"))
    assert say.brief(effects) == [*BACK, "-> 1 stop 1.1.0 0 abort", "wake"]


def test_a_stop_of_a_start_that_went_missing_needs_no_start(desk, say):
    assigned(desk)
    desk.down()
    desk.cancel()
    assert say.brief(desk.hello()) == [*BACK, "-> 1 stop 1.1.0 300.0", "wake"]
    assert isinstance(desk.job().state, Starting)
    desk.report(say.unrun("1.1.0", "stopped"))
    assert not desk.cluster.runs


def test_a_stopped_attempt_that_is_lost_is_cancelled(desk, say):
    desk.started(retry=Retry())
    desk.cancel()
    effects = desk.hello(boot="boot-2")
    told = [e.data for e in effects if getattr(e, "kind", "") == "job.ended"]
    assert told[0]["state"] == "cancelled"
    assert told[0]["message"] == "a user stopped it; node box was rebooted"


def test_what_nobody_knows_is_ended_or_forgotten(desk, say):
    effects = desk.hello(say.running("7.1.0"), say.done("8.1.0"))
    assert say.brief(effects) == [
        *BACK,
        "-> 1 stop 7.1.0 0 abort",
        "-> 1 forget 8.1.0",
        "wake",
    ]


def test_a_node_is_known_by_its_name(desk):
    desk.hello(cpus=2)
    desk.hello(node="other")
    desk.hello(cpus=8)
    assert desk.cluster.node_names == {"box": 1, "other": 2}
    assert desk.cluster.nodes[1].resources.cpus == 8


def test_a_node_that_shrank_keeps_its_jobs(desk, say):
    job = desk.started(resources=Resources(cpu=Cpu(Range(4))))
    desk.hello(say.running(job.key), cpus=2)
    assert desk.cluster.nodes[1].free_millicpus == -2000
    desk.submit()
    assert desk.schedule() == []
    desk.report(say.done(job.key))
    assert desk.cluster.nodes[1].free_millicpus == 2000


@pytest.mark.parametrize("held", ["running", "finishing"])
def test_a_report_that_was_lost_comes_with_the_next_hello(desk, say, held):
    assigned(desk)
    desk.hello(getattr(say, held)("1.1.0"))
    assert desk.job().state.name == held
