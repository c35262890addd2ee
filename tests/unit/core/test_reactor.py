"""Each decision, with the whole list of its effects: nothing else may happen."""

from __future__ import annotations

import pytest

from moorage.core.effects import Emit, Send, Write
from moorage.core.job import Finishing, Prefilled, Queued, Running, Starting
from moorage.core.reactor import (
    on_cancel,
    on_delete,
    on_dropped,
    on_expire,
    on_expire_jobs,
    on_submit,
)
from moorage.core.reactor.ends import FREE_ATTEMPTS
from moorage.errors import Conflict, InvalidInput, NotFound
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import DropLogs, Held, Phase
from moorage.protocol.api import RunRequest
from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import Retry
from moorage.specs.task import Task

SUBMITTED = ["insert_run 1 queued", "! run.submitted", "insert_job 1 queued", "! job.queued"]
ENDED = ["! job.ended", "update_run 1 {}", "! run.ended", "wake"]


def ended(state: str) -> list[str]:
    return [line.format(state) for line in (f"update_job 1 {state}", *ENDED)]


def test_a_run_goes_all_the_way(desk, say):
    assert say.brief(desk.hello()) == ["upsert_node 1 up", "! node.up", "wake"]
    assert say.brief(desk.submit(commands=["true"])) == [*SUBMITTED, "insert_request r", "wake"]
    assert say.brief(desk.schedule()) == [
        "insert_attempt 1 assigned",
        "update_job 1 starting",
        "update_run 1 starting",
        "! job.starting",
        "-> 1 start 1.1",
    ]
    assert say.brief(desk.report(say.staging("1.1.0"))) == ["update_attempt 1 staging", "-> 1 ack"]
    assert say.brief(desk.report(say.running("1.1.0"))) == [
        "update_attempt 1 running",
        "update_job 1 running",
        "update_run 1 running",
        "! job.running",
        "-> 1 ack",
    ]
    assert say.brief(desk.report(say.finishing("1.1.0"))) == [
        "update_attempt 1 finishing",
        "update_job 1 finishing",
        "update_run 1 finishing",
        "! job.finishing",
        "-> 1 ack",
    ]
    assert say.brief(desk.report(say.done("1.1.0"))) == [
        "update_attempt 1 done",
        *ended("succeeded"),
        "-> 1 ack",
        "-> 1 forget 1.1.0",
    ]
    left = desk.cluster.runs, desk.cluster.jobs, desk.cluster.names, desk.cluster.counts
    assert not any(left)
    assert not desk.cluster.nodes[1].claims
    assert desk.cluster.nodes[1].free_millicpus == 4000


def test_rows_of_a_run_that_failed(desk, say):
    desk.started(commands=["false"])
    desk.now = 1010.0
    effects = desk.report(say.done("1.1.0", 3, message="command 1 of 1 failed with exit code 3"))
    rows = {e.query: e.params for e in effects if isinstance(e, Write)}
    message = "command 1 of 1 failed with exit code 3"
    assert rows["update_run"] == {
        "id": 1,
        "state": "failed",
        "reason": "exit-code",
        "message": message,
        "exit_code": 3,
        "started_at": 5.0,
        "ended_at": 1010.0,
        "next_at": None,
        "stopping": 0,
        "node": "box",
        "attempt": 1,
    }
    assert rows["update_job"] == {
        "id": 1,
        "state": "failed",
        "reason": "exit-code",
        "message": message,
        "exit_code": 3,
        "attempt": 1,
        "node_id": 1,
        "not_before": None,
        "stopping": 0,
        "failed_at": 1010.0,
        "queued_at": 1000.0,
        "started_at": 5.0,
        "ended_at": 1010.0,
        "cause": None,
    }
    assert rows["update_attempt"] == {
        "job_id": 1,
        "attempt": 1,
        "rank": 0,
        "state": "done",
        "started_at": 5.0,
        "ended_at": 1010.0,
        "phases": (
            '[{"name":"claim","began":1.0,"ended":2.0},{"name":"run","began":5.0,"ended":9.0},'
            '{"name":"flush","began":9.0,"ended":9.5}]'
        ),
        "outcome": f'{{"kind":"exited","exit_code":3,"message":"{message}"}}',
        "usage": None,
    }


def test_one_report_may_skip_states(desk, say):
    desk.hello()
    desk.submit()
    desk.schedule()
    assert say.brief(desk.report(say.done("1.1.0"))) == [
        "update_attempt 1 done",
        "! job.running",
        "! job.finishing",
        *ended("succeeded"),
        "-> 1 ack",
        "-> 1 forget 1.1.0",
    ]


def test_a_job_that_never_had_a_process_was_never_running(desk, say):
    desk.hello()
    desk.submit()
    desk.schedule()
    effects = desk.report(say.unrun("1.1.0", phase="fetch", message="no such blob"))
    assert say.brief(effects) == [
        "update_attempt 1 done",
        "! job.finishing",
        *ended("failed"),
        "-> 1 ack",
        "-> 1 forget 1.1.0",
    ]
    told = next(e for e in effects if isinstance(e, Emit) and e.kind == "job.ended")
    assert told.data == {
        "state": "failed",
        "attempt": 1,
        "reason": "phase-failed",
        "message": "on box: the fetch phase failed: no such blob",
        "exit_code": None,
    }


def test_more_phases_of_the_same_state_are_kept(desk, say):
    job = desk.started()
    more = Held("1.1.0", "running", [Phase("claim", 1.0, 2.0), Phase("run", 5.0, detail="sh")])
    assert say.brief(desk.report(more)) == ["update_attempt 1 running", "-> 1 ack"]
    assert say.brief(desk.report(more)) == ["-> 1 ack"]  # no progress
    flushed = say.finishing("1.1.0")
    desk.report(flushed)
    longer = Held("1.1.0", "finishing", [*flushed.phases, Phase("clean", 9.0)], flushed.outcome)
    assert say.brief(desk.report(longer)) == ["update_attempt 1 finishing", "-> 1 ack"]
    assert job.state == Finishing(1, 1, longer)


def test_repeated_and_late_reports_change_nothing(desk, say):
    desk.started()
    assert say.brief(desk.report(say.running("1.1.0"))) == ["-> 1 ack"]
    assert say.brief(desk.report(say.staging("1.1.0"))) == ["-> 1 ack"]
    assert isinstance(desk.job().state, Running)
    desk.report(say.done("1.1.0"))
    assert say.brief(desk.report(say.done("1.1.0"))) == ["-> 1 ack", "-> 1 forget 1.1.0"]


@pytest.mark.parametrize("key", ["1.2.0", "9.1.0", "nonsense", "1.x.0"])
def test_what_should_not_run_is_ended_then_forgotten(desk, say, key):
    desk.started()
    effects = desk.report(say.running(key))
    assert say.brief(effects) == [f"-> 1 stop {key} 0 abort", "-> 1 ack"]
    # Its room is free again.
    assert say.brief(desk.report(say.done(key))) == ["wake", "-> 1 ack", f"-> 1 forget {key}"]
    assert isinstance(desk.job().state, Running)


def test_another_nodes_claim_is_not_ours(desk, say):
    desk.started()
    desk.hello(node="other")
    effects = desk.report(say.done("1.1.0"), node=2)
    assert say.brief(effects) == ["-> 2 ack", "-> 2 forget 1.1.0"]
    assert isinstance(desk.job().state, Running)


def test_done_without_an_outcome_is_lost(desk):
    desk.started()
    desk.report(Held("1.1.0", "done"))
    assert not desk.cluster.jobs


# submit


def test_all_of_a_request_or_none(desk):
    desk.submit(name="train")
    before = (desk.cluster.next_run, desk.cluster.next_job)
    with pytest.raises(Conflict, match="a live run is called `train`"):
        desk.submit(Task(name="eval"), Task(name="train"))
    with pytest.raises(Conflict):
        desk.submit(Task(name="twice"), Task(name="twice"))
    assert (desk.cluster.next_run, desk.cluster.next_job) == before
    assert list(desk.cluster.names) == ["train"]


def test_generated_names_avoid_those_in_use_and_those_written(desk):
    desk.submit(name="run-1")
    desk.submit(Task(), Task(name="run-2"), Task())
    assert list(desk.cluster.names) == ["run-1", "run-3", "run-2", "run-4"]


def test_the_reply_names_every_run_in_order(desk):
    requests = [RunRequest(Task(name="a")), RunRequest(Task(name="b"))]
    submitted = on_submit(desk.cluster, requests, "ann", 7.0, request_id="q", names=iter(()))
    assert [(ref.id, ref.name) for ref in submitted.runs] == [(1, "a"), (2, "b")]
    assert submitted.effects[0] == Write(
        "insert_run",
        {
            "id": 1,
            "name": "a",
            "user": "ann",
            "state": "queued",
            "reason": "",
            "message": "",
            "exit_code": None,
            "priority": 0,
            "spec": '{"type":"task","name":"a"}',
            "source": "",
            "dialect": "native",
            "tags": "{}",
            "submitted_at": 7.0,
            "started_at": None,
            "ended_at": None,
            "next_at": None,
            "stopping": 0,
            "node": "",
            "attempt": 0,
        },
    )


def test_a_run_keeps_its_content(desk, say):
    mounts = [
        Files("a", "a", tree="t1"),
        Files("b", "b", tree="t1"),
        Repo(source=".", tree="t2", pack="p"),
        Repo(url="https://example.org/x"),
        HostPath("/a", "/a"),
    ]
    assert say.brief(desk.submit(mounts=mounts)) == [
        "insert_run 1 queued",
        "insert_run_blob t1",
        "insert_run_blob t2",
        "insert_run_blob p",
        *SUBMITTED[1:],
        "insert_request r",
        "wake",
    ]


def test_what_can_never_run_is_refused_with_every_reason(desk):
    desk.hello(cpus=4)
    big = Resources(cpu=Cpu(Range(64)), memory=Range(1 << 50))
    with pytest.raises(InvalidInput) as raised:
        desk.submit(Task(resources=big, commands=["echo ${{ env.TOKEN }}"]))
    assert [(p.field, p.message) for p in raised.value.problems] == [
        (
            "resources.cpu",
            "no node can ever run this: needs 64 CPUs, the largest node has 4",
        ),
        (
            "resources.memory",
            "no node can ever run this: needs 1.0 PB of memory, the largest node has 16 GB",
        ),
        ("commands", "${{ env.TOKEN }} has no value here"),
    ]
    assert not desk.cluster.runs


# cancel and delete


def test_a_queued_run_is_cancelled_at_once(desk, say):
    desk.submit()
    assert say.brief(desk.cancel()) == ["! run.stopping", *ended("cancelled")[:-1]]
    with pytest.raises(NotFound):
        desk.cancel()
    assert not len(desk.cluster.queue)


def test_a_live_run_is_cancelled_when_its_agent_says_so(desk, say):
    desk.started(stop_duration=30.0)
    assert say.brief(desk.cancel()) == [
        "! run.stopping",
        "update_job 1 running",
        "-> 1 stop 1.1.0 30.0",
        "update_run 1 running",
    ]
    assert desk.cancel() == []
    assert say.brief(desk.cancel(abort=True)) == [
        "! run.stopping",
        "update_job 1 running",
        "-> 1 stop 1.1.0 0 abort",
        "update_run 1 running",
    ]
    assert desk.cancel() == []
    effects = desk.report(say.done("1.1.0", kind="aborted", signal=9))
    assert say.brief(effects)[2:6] == ended("cancelled")[:-1]
    assert not desk.cluster.runs


def test_a_stopped_job_is_never_retried(desk, say):
    desk.started(retry=Retry())
    desk.cancel()
    desk.report(say.done("1.1.0", 1))
    assert not desk.cluster.jobs


def test_only_runs_that_ended_are_deleted(desk):
    desk.hello()
    desk.submit()
    with pytest.raises(Conflict, match="still live"):
        on_delete(desk.cluster, RunId(1), {})
    on_cancel(desk.cluster, RunId(1), False, 1.0)
    assert on_delete(desk.cluster, RunId(1), {1: ["1.1.0"]}) == [
        Write("note_run", {"id": 1}),
        Write("note_jobs", {"id": 1}),
        Write("delete_run", {"id": 1}),
        Emit("run.deleted", 1),
        Write("insert_dropped_log", {"node_id": 1, "attempt": "1.1.0"}),
        Send(1, DropLogs(["1.1.0"])),
    ]


def test_runs_that_expire_go_together_and_never_with_a_live_one(desk):
    desk.hello()
    desk.submit()
    with pytest.raises(Conflict, match="run 1 is still live"):
        on_expire(desk.cluster, [RunId(5), RunId(1)], {})
    effects = on_expire(desk.cluster, [RunId(5), RunId(6)], {1: ["5.1.0", "6.1.0"]})
    assert [effect for effect in effects if not isinstance(effect, Write)] == [
        Emit("run.deleted", 5, data={"reason": "retention"}),
        Emit("run.deleted", 6, data={"reason": "retention"}),
        Send(1, DropLogs(["5.1.0", "6.1.0"])),
    ]


def test_old_jobs_of_a_schedule_go_and_the_schedule_stays(desk):
    desk.hello()
    assert on_expire_jobs(desk.cluster, RunId(3), 40, {1: ["7.1.0"]}) == [
        Write("note_jobs", {"id": 3}),
        Write("delete_jobs_before", {"run_id": 3, "idx": 40}),
        Emit("run.trimmed", 3, data={"before": 40}),
        Write("insert_dropped_log", {"node_id": 1, "attempt": "7.1.0"}),
        Send(1, DropLogs(["7.1.0"])),
    ]


def test_a_node_is_told_what_output_to_delete_until_it_has_done_so(desk):
    desk.hello()
    effects = on_delete(desk.cluster, RunId(1), {1: ["1.1.0", "1.2.0"]})
    assert effects[-3:] == [
        Write("insert_dropped_log", {"node_id": 1, "attempt": "1.1.0"}),
        Write("insert_dropped_log", {"node_id": 1, "attempt": "1.2.0"}),
        Send(1, DropLogs(["1.1.0", "1.2.0"])),
    ]
    desk.down()
    assert Send(1, DropLogs(["1.1.0", "1.2.0"])) in desk.hello()
    assert on_dropped(desk.cluster, NodeId(1), ["1.1.0", "9.9.0"]) == [
        Write("delete_dropped_log", {"node_id": 1, "attempt": "1.1.0"})
    ]
    assert Send(1, DropLogs(["1.2.0"])) in desk.hello()
    on_dropped(desk.cluster, NodeId(1), ["1.2.0"])
    assert Send(1, DropLogs([])) not in desk.hello()


# retry


def retried(desk, say, *, fails: int = 1) -> None:
    """Let `fails` attempts of job 1 fail, one after the other."""
    for _ in range(fails):
        desk.report(say.done(desk.job().key, 1, message="command 1 of 1 failed"))
        state = desk.job().state
        assert isinstance(state, Queued)
        desk.now = state.not_before
        desk.ring("retry", 1)
        desk.schedule()


def test_a_failed_attempt_waits_and_is_tried_again(desk, say):
    desk.started(retry=Retry())
    effects = desk.report(say.done("1.1.0", 1, message="command 1 of 1 failed"))
    assert say.brief(effects) == [
        "update_attempt 1 done",
        "! job.finishing",
        "update_job 1 queued",
        "update_run 1 queued",
        "! job.queued",
        "arm retry 1 1001",
        "wake",
        "-> 1 ack",
        "-> 1 forget 1.1.0",
    ]
    assert desk.cluster.nodes[1].claims == {}
    assert desk.schedule() == []
    desk.now = 1001.0
    assert say.brief(desk.ring("retry", 1)) == ["wake"]
    assert desk.ring("retry", 1) == []
    assert say.brief(desk.schedule())[-1] == "-> 1 start 1.2"


def test_what_never_started_is_made_good_without_a_policy(desk, say):
    desk.hello()
    desk.submit()
    desk.schedule()
    desk.report(say.unrun("1.1.0", "unstarted"))
    assert (desk.job().state.attempt, desk.job().state.not_before) == (2, 1001.0)
    assert desk.job().failed_at is None
    desk.now = 1001.0
    desk.ring("retry", 1)
    assert say.brief(desk.schedule())[-1] == "-> 1 start 1.2"


def test_what_never_starts_is_given_up_at_last(desk, say):
    desk.hello()
    desk.submit()
    desk.schedule()
    for _ in range(FREE_ATTEMPTS):
        desk.report(say.unrun(desk.job().key, "unstarted"))
        desk.now = desk.job().state.not_before
        desk.ring("retry", 1)
        desk.schedule()
    run = desk.cluster.runs[1]
    desk.report(say.unrun(desk.job().key, "unstarted"))
    assert (run.state, run.last.reason) == ("failed", "lost")


def test_what_never_started_stays_stopped(desk, say):
    desk.hello()
    desk.submit()
    desk.schedule()
    run = desk.cluster.runs[1]
    desk.cancel(1)
    desk.report(say.unrun("1.1.0", "unstarted"))
    assert run.state == "cancelled"


def test_delays_double_up_to_a_minute(desk, say):
    desk.started(retry=Retry())
    delays = []
    for _ in range(8):
        desk.report(say.done(desk.job().key, 1))
        delays.append(desk.job().state.not_before - desk.now)
        desk.now = desk.job().state.not_before
        desk.ring("retry", 1)
        desk.schedule()
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_retry_ends_with_its_window(desk, say):
    desk.started(retry=Retry(duration=3.5))
    retried(desk, say, fails=2)  # at 0 s and 1 s after the first failure
    assert desk.job().state == Starting(1, 3)
    desk.report(say.done("1.3.0", 1))  # at 3 s: the next would begin at 7 s
    assert not desk.cluster.jobs


def test_only_the_events_of_the_policy_are_retried(desk, say):
    desk.started(retry=Retry(on_events=("interruption",)))
    desk.report(say.done("1.1.0", 1))
    assert not desk.cluster.jobs
    desk.started(retry=Retry(on_events=("interruption",)))
    desk.report(say.done("2.1.0", kind="lost", message="node rebooted"))
    assert isinstance(desk.job(2).state, Queued)


def test_a_retry_keeps_its_place(desk, say):
    desk.hello(cpus=1)
    desk.submit(retry=Retry())
    desk.submit()
    desk.schedule()
    retried(desk, say)
    assert isinstance(desk.job(1).state, Starting)
    assert isinstance(desk.job(2).state, Prefilled)


def test_a_retry_that_waits_can_be_stopped(desk, say):
    desk.started(retry=Retry())
    desk.report(say.done("1.1.0", 1, message="command 1 of 1 failed"))
    effects = desk.cancel()
    assert say.brief(effects) == ["! run.stopping", *ended("cancelled")[:-1]]
    row = next(e.params for e in effects if isinstance(e, Write) and e.query == "update_job")
    assert (row["attempt"], row["reason"], row["exit_code"]) == (1, "stopped", 1)
    assert desk.ring("retry", 1) == []
