"""Several nodes refused a job for one reason: all others are asked at once."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.core.effects import Inquire
from moorage.core.explain import explain
from moorage.core.inquiries import ENOUGH, FRESH, lacking, stored
from moorage.core.job import Failed, Queued, Starting, ranks_of
from moorage.core.reactor import on_answers, on_report
from moorage.ids import JobId, NodeId, RunId
from moorage.protocol.agent import Held, Outcome, Phase, Report
from moorage.specs.mounts import HostPath
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import Retry

WHY = "/data does not exist"
NODES = 1000


@pytest.fixture
def many(desk: Any) -> Any:
    for number in range(1, NODES + 1):
        desk.hello(node=f"n{number:04}")
    return desk


def refuse(desk: Any, job: Any, why: str = WHY, rank: int = 0) -> list[Any]:
    """Its node says that it cannot run the job; what the server asks others then."""
    node = ranks_of(job.state)[rank].node
    outcome = Outcome("phase-failed", phase="fetch", message=why, here=True)
    held = Held(job.rank_key(rank), "done", [Phase("claim", 1.0, 2.0)], outcome)
    desk.seq += 1
    effects = on_report(desk.cluster, node, Report(desk.seq, [held]), desk.now)
    return [effect for effect in effects if isinstance(effect, Inquire)]


def placed(desk: Any, **fields: Any) -> Any:
    desk.submit(**fields)
    desk.schedule()
    return list(desk.cluster.jobs.values())[-1]


def refused(desk: Any, job: Any, times: int = ENOUGH, why: str = WHY) -> list[Any]:
    """By so many nodes, one after the other; where it is placed again after each but the last."""
    asked = []
    for left in range(times - 1, -1, -1):
        asked += refuse(desk, job, why)
        if left:
            desk.schedule()
    return asked


def answer(desk: Any, asked: Inquire, *has: int) -> list[Any]:
    """All that were asked lack it but these."""
    refusing = [node for node in asked.nodes if node not in has]
    return on_answers(desk.cluster, asked.run, asked.why, refusing, desk.now)


def test_after_a_few_equal_refusals_all_others_are_asked(many):
    job = placed(many, mounts=[HostPath("/d${{ run.user }}/${{ moorage.job_index }}", "/d")])
    (asked,) = refused(many, job)
    assert (asked.run, asked.why) == (1, WHY)
    assert asked.nodes == tuple(range(ENOUGH + 1, NODES + 1))
    assert asked.launch.mounts == [HostPath("/dann/0", "/d")]
    many.schedule()
    assert refuse(many, job) == [], "once"


def test_different_reasons_are_no_pattern(many):
    job = placed(many)
    for why in ("a", "b", "c", "d", "a"):
        assert refuse(many, job, why) == []
        many.schedule()


def test_the_one_node_that_has_it_is_next(many):
    job = placed(many)
    (asked,) = refused(many, job)
    answer(many, asked, 700)
    many.schedule()
    assert job.state == Starting(700, ENOUGH + 1)


def test_a_job_that_is_under_way_meanwhile_goes_there_after_its_refusal(many):
    job = placed(many)
    (asked,) = refused(many, job)
    many.schedule()
    answer(many, asked, 700)
    refuse(many, job)
    many.schedule()
    assert job.state == Starting(700, ENOUGH + 2)


def test_where_all_lack_it_the_next_refusal_is_the_end(many):
    job = placed(many)
    (asked,) = refused(many, job)
    answer(many, asked)
    assert isinstance(job.state, Queued)
    many.schedule()
    refuse(many, job)
    assert isinstance(job.state, Failed)
    names = ", ".join(f"n{number:04}" for number in range(1, 9))
    assert job.state.ending.message == (
        f"no node can run it; nodes {names} and 992 more: {WHY} "
        "(4 tried it, 996 said so when asked)"
    )


def test_who_does_not_answer_is_tried(many):
    job = placed(many)
    (asked,) = refused(many, job)
    on_answers(many.cluster, asked.run, WHY, [n for n in asked.nodes if n > 10], many.now)
    for attempt, node in enumerate(range(ENOUGH + 1, 11), ENOUGH + 1):
        many.schedule()
        assert job.state == Starting(node, attempt)
        refuse(many, job)
    assert isinstance(job.state, Failed)


def test_it_waits_for_one_that_is_away(many):
    many.down(9)
    job = placed(many)
    (asked,) = refused(many, job)
    assert 9 not in asked.nodes
    answer(many, asked)
    many.schedule()
    assert isinstance(job.state, Queued)
    text = explain(many.cluster, job, many.now)
    assert text.startswith("another node: none is connected (down: n0009); refused by nodes n0001")
    assert text.endswith(f"and 991 more: {WHY}")
    many.hello(node="n0009")
    many.schedule()
    assert job.state == Starting(9, ENOUGH + 1)


def test_other_jobs_of_the_run_need_one_refusal(many):
    (asked,) = refused(many, placed(many))
    answer(many, asked)
    run = many.cluster.runs[RunId(1)]
    known = lacking(run, {NodeId(2): WHY}, many.now)
    assert len(known) == NODES - ENOUGH
    assert lacking(run, {NodeId(2): WHY, NodeId(3): "no GPU"}, many.now) is known
    assert lacking(run, {NodeId(2): "no GPU"}, many.now) == {}


def test_an_answer_is_no_longer_believed_after_a_while(many):
    job = placed(many)
    (asked,) = refused(many, job)
    answer(many, asked)
    many.now += FRESH
    many.schedule()
    (again,) = refuse(many, job)
    assert len(again.nodes) == NODES - ENOUGH - 1
    answer(many, again, 800)
    many.schedule()
    assert job.state == Starting(800, ENOUGH + 2)


def test_a_retry_asks_again(many):
    job = placed(many, retry=Retry(duration=600))
    (asked,) = refused(many, job)
    answer(many, asked)
    many.schedule()
    refuse(many, job)
    assert (job.refusals, job.lacking) == ({}, {})
    many.now += 10
    many.ring("retry", 1)
    many.schedule()
    assert len(refused(many, job)) == 1


def test_only_nodes_where_it_fits_are_asked(desk):
    for number in range(1, 8):
        desk.hello(node=f"n{number}", cpus=4 if number < 6 else 1)
    job = placed(desk, resources=Resources(cpu=Cpu(Range(2))))
    (asked,) = refused(desk, job)
    assert asked.nodes == (4, 5)


def test_nobody_is_asked_where_one_is_left(desk):
    for number in range(1, 5):
        desk.hello(node=f"n{number}")
    assert refused(desk, placed(desk)) == []


def test_answers_about_a_run_that_is_over_change_nothing(many):
    job = placed(many)
    (asked,) = refused(many, job)
    many.cancel()
    assert JobId(1) not in many.cluster.jobs
    assert answer(many, asked) == []
    assert on_answers(many.cluster, RunId(77), WHY, [NodeId(1)], many.now) == []


def test_the_rows_tell_the_job_without_the_answers(many):
    job = placed(many)
    refused(many, job)
    before = stored(many.cluster, job)
    assert before is job
    answer(many, Inquire(job.run, WHY, tuple(map(NodeId, range(4, 999))), None), 5)
    assert job.shape != before.shape or job.lacking
    assert stored(many.cluster, job).lacking == {}
    assert stored(many.cluster, job).shape.where.without == {"n0001", "n0002", "n0003"}


def test_a_gang_asks_for_the_rank_that_was_refused(desk):
    for number in range(1, 10):
        desk.hello(node=f"n{number}")
    job = placed(desk, nodes=2, mounts=[HostPath("/d/${{ moorage.rank }}", "/d")])
    asked = []
    for _ in range(ENOUGH):
        asked += refuse(desk, job, rank=1)
        key, node = job.rank_key(0), ranks_of(job.state)[0].node
        ended = Held(key, "done", [Phase("claim", 1.0, 2.0)], Outcome("stopped"))
        effects = desk.report(ended, node=node)
        asked += [effect for effect in effects if isinstance(effect, Inquire)]
        desk.schedule()
    (only,) = asked
    assert only.launch.mounts == [HostPath("/d/1", "/d")]
