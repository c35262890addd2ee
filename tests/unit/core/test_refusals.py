"""A node that cannot run a job: others are tried, and each once."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.core.effects import Emit
from moorage.core.explain import explain
from moorage.core.job import Failed, Queued, Running, Starting, ranks_of
from moorage.core.reactor import on_report
from moorage.core.refusals import refused
from moorage.core.shape import Where
from moorage.ids import NodeId
from moorage.protocol.agent import Held, Outcome, Phase, Report
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import Retry

WHY = "/data does not exist"


def refusal(why: str = WHY) -> Outcome:
    return Outcome("phase-failed", phase="fetch", message=why, here=True)


def refuse(desk: Any, job: Any, rank: int = 0, why: str = WHY) -> Any:
    """The node of this rank says that it cannot run the job."""
    return over(desk, job, rank, refusal(why))


def over(desk: Any, job: Any, rank: int, outcome: Outcome) -> Any:
    node = ranks_of(job.state)[rank].node
    held = Held(job.rank_key(rank), "done", [Phase("claim", 1.0, 2.0)], outcome)
    desk.seq += 1
    return on_report(desk.cluster, node, Report(desk.seq, [held]), desk.now)


@pytest.fixture
def two(desk: Any) -> Any:
    for name in ("h1", "h2"):
        desk.hello(node=name)
    return desk


def placed(desk: Any, **fields: Any) -> Any:
    desk.submit(**fields)
    job = list(desk.cluster.jobs.values())[-1]
    desk.schedule()
    return job


def test_another_node_is_tried_at_once(two, say):
    job = placed(two)
    assert job.state == Starting(1, 1)
    effects = refuse(two, job)
    assert say.brief(effects) == [
        "update_attempt 1 done",
        "! job.finishing",
        "update_job 1 queued",
        "update_run 1 queued",
        "! job.refused",
        "! job.queued",
        "wake",
        "-> 1 ack",
        "-> 1 forget 1.1.0",
    ]
    told = next(e for e in effects if isinstance(e, Emit) and e.kind == "job.refused")
    said = {"attempt": 1, "message": WHY, "then": "trying others"}
    assert (told.node, told.data) == (1, said)
    assert job.state == Queued(2, None, job.state.last)
    assert job.state.last.message == f"node h1: {WHY}; trying others"
    assert (job.failed_at, job.refusals) == (None, {1: WHY})
    two.schedule()
    assert job.state == Starting(2, 2)


def test_it_keeps_away_while_others_may_come(two, say):
    job = placed(two)
    refuse(two, job)
    two.down(2)
    two.schedule()
    assert isinstance(job.state, Queued)
    text = explain(two.cluster, job, two.now)
    assert text == f"another node: none is connected (down: h2); refused by node h1: {WHY}"
    two.hello(node="h2")
    two.schedule()
    two.report(say.running("1.2.0"), node=2)
    assert isinstance(job.state, Running)
    assert job.refusals == {1: WHY}


def test_nobody_is_promised_a_node_that_is_not_there(two):
    two.down(2)
    job = placed(two)
    effects = refuse(two, job)
    waits = "waiting for another node: none is connected (down: h2)"
    assert job.state.last.message == f"node h1: {WHY}; {waits}"
    (told,) = [e for e in effects if isinstance(e, Emit) and e.kind == "job.refused"]
    assert told.data["then"] == waits


def test_it_fails_when_none_is_left_and_says_why_each(two):
    job = placed(two)
    refuse(two, job)
    two.schedule()
    refuse(two, job, why="no GPU 3")
    assert isinstance(job.state, Failed)
    message = job.state.ending.message
    assert message == f"no node can run it; node h1: {WHY}; node h2: no GPU 3"
    assert job.state.ending.reason == "phase-failed"


def test_nodes_that_say_the_same_are_told_together(desk):
    for number in range(12):
        desk.hello(node=f"n{number:02}")
    job = placed(desk)
    for _ in range(12):
        refuse(desk, job)
        desk.schedule()
    message = job.state.ending.message
    names = ", ".join(f"n{number:02}" for number in range(8))
    assert message == f"no node can run it; nodes {names} and 4 more: {WHY}"


def test_one_node_alone_says_it_as_ever(desk):
    desk.hello(node="h1")
    job = placed(desk)
    refuse(desk, job)
    assert job.state.ending.message == f"on h1: the fetch phase failed: {WHY}"


def test_what_is_the_same_everywhere_fails_at_once(two):
    job = placed(two)
    over(two, job, 0, Outcome("phase-failed", phase="fetch", message="blob missing"))
    assert isinstance(job.state, Failed)


def test_what_a_user_stops_is_not_tried_elsewhere(two):
    job = placed(two)
    two.cancel()
    refuse(two, job)
    assert isinstance(job.state, Failed)


def test_a_retry_has_its_whole_budget_and_all_nodes_again(two):
    job = placed(two, retry=Retry(duration=60))
    refuse(two, job)
    two.now += 100
    two.schedule()
    refuse(two, job)
    assert job.state.not_before == two.now + 1
    assert (job.failed_at, job.refusals, job.shape.where) == (two.now, {}, None)
    two.now += 1
    two.ring("retry", 1)
    two.schedule()
    assert job.state == Starting(1, 3)


def test_a_failure_of_its_own_lets_it_come_back(two, say):
    job = placed(two, retry=Retry())
    refuse(two, job)
    two.schedule()
    two.report(say.done("1.2.0", 1), node=2)
    assert job.refusals == {}
    assert job.state.not_before == two.now + 1


def test_an_agent_that_died_changes_nothing(two, say):
    job = placed(two)
    refuse(two, job)
    two.schedule()
    two.report(say.unrun("1.2.0", "unstarted"), node=2)
    assert job.refusals == {1: WHY}
    assert job.shape.where == Where(without=frozenset({"h1"}))


def test_a_node_that_is_too_small_is_no_hope(desk):
    desk.hello(node="h1", cpus=4)
    desk.hello(node="h2", cpus=1)
    job = placed(desk, resources=Resources(cpu=Cpu(Range(2))))
    refuse(desk, job)
    assert isinstance(job.state, Failed)


def test_no_line_begins_where_jobs_are_refused(two):
    job = placed(two)
    refuse(two, job)
    assert not two.cluster.nodes[1].quick


def test_the_whole_gang_goes_elsewhere(desk):
    for name in ("a", "b", "c", "d"):
        desk.hello(node=name)
    job = placed(desk, nodes=3)
    refuse(desk, job, 1)
    assert isinstance(job.state, Starting), "until the others are over"
    over(desk, job, 0, Outcome("stopped"))
    over(desk, job, 2, Outcome("stopped"))
    assert job.refusals == {2: WHY}
    assert job.state.last.message == f"node b: {WHY}; trying others"
    desk.schedule()
    assert [rank.node for rank in ranks_of(job.state)] == [1, 3, 4]


def test_a_gang_fails_when_too_few_nodes_are_left(desk):
    for name in ("a", "b", "c"):
        desk.hello(node=name)
    job = placed(desk, nodes=3)
    refuse(desk, job, 1)
    refuse(desk, job, 2, "no podman")
    over(desk, job, 0, Outcome("exited", exit_code=1))
    assert isinstance(job.state, Failed)
    message = job.state.ending.message
    assert message == f"no node can run it; node b: {WHY}; node c: no podman"


def test_a_gang_gets_nodes_kept_for_it_that_did_not_refuse_it(desk):
    for name in ("a", "b", "c"):
        desk.hello(node=name)
    job = placed(desk, nodes=2)
    refuse(desk, job, 0)
    over(desk, job, 1, Outcome("stopped"))
    for node in (2, 3):
        desk.cluster.nodes[node].draining = True
    desk.schedule()
    for node in (2, 3):
        desk.cluster.nodes[node].draining = False
    desk.schedule()
    assert [rank.node for rank in ranks_of(job.state)] == [2, 3]


def test_refusals_are_told_from_other_ends():
    one, two = NodeId(1), NodeId(2)
    assert refused({one: "a"}, [(two, refusal("b"))]) == {one: "a", two: "b"}
    assert refused({one: "a"}, [(two, Outcome("exited", exit_code=0))]) == {one: "a"}
    assert refused({one: "a"}, [(two, Outcome("exited", exit_code=3))]) == {}
    assert refused({one: "a"}, [(two, Outcome("lost"))]) == {one: "a"}
    assert refused({}, [(one, refusal("b")), (two, Outcome("signaled"))]) == {one: "b"}
    assert refused({one: "a"}, [(two, None)]) == {one: "a"}
