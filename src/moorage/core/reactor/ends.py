"""Nothing is left of an attempt: a next one, or the end of the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from msgspec import structs

from moorage.core import inquiries, rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Emit, Timer, Wake
from moorage.core.job import (
    Cancelled,
    Ending,
    Event,
    Failed,
    Job,
    Live,
    Queued,
    Succeeded,
    ranks_of,
)
from moorage.core.progress import outcome_of
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reasons import Verdict, judge
from moorage.core.refusals import Refusals, any_left, others, refused, shapes_beside, told
from moorage.core.run import Run
from moorage.ids import NodeId
from moorage.protocol.agent import Outcome

LONGEST_DELAY = 60.0
FREE_ATTEMPTS = 10
"""An attempt up to this number of which no process was started is made good without a policy:
nothing ran. What brings its agent down each time must not do so for ever."""


def end(
    cluster: Cluster,
    run: Run,
    job: Job,
    outcome: Outcome,
    now: float,
    *,
    node: NodeId,
    where: str = "",
) -> list[Effect]:
    """`outcome`, which decided, was met on `node`; `where` is how users are told of that, if they
    cannot know."""
    met = _met(job, node, outcome)
    refusals = refused(job.refusals, met)
    new = {node: why for node, why in refusals.items() if node not in job.refusals}
    lacking = inquiries.lacking(run, refusals, now)
    spent = bool(new) and not any_left(cluster, run, refusals, lacking)
    verdict = judge(outcome, job.stopping)
    if outcome.here and new and not spent and not job.stopping:
        return _elsewhere(cluster, run, job, verdict.ending, refusals, new, now)
    if verdict.event is Event.FAIL:
        text = verdict.ending.message
        if outcome.kind == "phase-failed" and not where:  # what is missing, is missing there
            where = f"on {cluster.nodes[node].name}"
        if spent and outcome.here and len(refusals) > 1:
            text = f"no node can run it; {told(cluster, {**lacking, **refusals})}"
            if asked := len(lacking.keys() - refusals.keys()):
                text = f"{text} ({len(refusals)} tried it, {asked} said so when asked)"
        elif where:
            text = f"{where}: {text}"
        verdict = replace(verdict, ending=replace(verdict.ending, message=text))
    free = outcome.kind == "unstarted" and _counted(job) <= FREE_ATTEMPTS and not job.stopping
    if verdict.event is Event.FAIL and job.failed_at is None and not free:
        job.failed_at = now
    run.note(verdict.ending)
    at = now + _delay(job) if free else _next_try(run, job, verdict, now)
    if at is None or not isinstance(job.state, Live):
        return _finally(cluster, run, job, verdict, node, now)
    effects = _forgotten(run, job, refusals, met) if spent else []
    _requeue(cluster, run, job, Queued(0, at, verdict.ending), {} if spent else refusals, now)
    effects += [rows.update_job(job), *settle(cluster, run, now), job_event(job)]
    return [*effects, Arm(Timer("retry", job.id), at), Wake()]


def _finally(
    cluster: Cluster, run: Run, job: Job, verdict: Verdict, node: NodeId, now: float
) -> list[Effect]:
    """No attempt follows."""
    if isinstance(job.state, Live):
        final = _FINAL[verdict.event](node, job.state.attempt, now, verdict.ending)
        cluster.move(job, verdict.event, final)
    return [rows.update_job(job), job_event(job), *settle(cluster, run, now), Wake()]


def _requeue(
    cluster: Cluster,
    run: Run,
    job: Job,
    state: Queued,
    refusals: Refusals,
    now: float,
) -> None:
    """Back to its place in the queue, for its next attempt."""
    job.queued_at = now
    job.started_at = None
    cluster.move(job, Event.RETRY, replace(state, attempt=cluster.next_attempt(job)))
    if refusals != job.refusals:
        job.refusals = dict(refusals)
        job.lacking = inquiries.lacking(run, refusals, now)
        cluster.reshape(job, shapes_beside(cluster, run, refusals, job.lacking))


def _met(job: Job, node: NodeId, outcome: Outcome) -> list[tuple[NodeId, Outcome | None]]:
    """Where each rank was, and how it ended."""
    if not job.gang or not isinstance(job.state, Live):
        return [(node, outcome)]
    ranks = ranks_of(job.state)
    return [(r.node, None if r.report is None else outcome_of(r.report)) for r in ranks]


def _elsewhere(
    cluster: Cluster,
    run: Run,
    job: Job,
    ending: Ending,
    refusals: Refusals,
    new: Refusals,
    now: float,
) -> list[Effect]:
    """Try other nodes, at once: that is no retry of the user's."""
    attempt = job.state.attempt
    rank = job.rank_on(next(iter(new)))
    asks = inquiries.inquire(cluster, run, job, refusals, now, rank=rank)
    then = others(cluster, run, refusals, inquiries.lacking(run, refusals, now))
    last = replace(ending, message=f"{told(cluster, new)}; {then}")
    run.note(last)
    _requeue(cluster, run, job, Queued(0, last=last), refusals, now)
    events = [
        Emit(
            "job.refused", run.id, job.id, node, {"attempt": attempt, "message": why, "then": then}
        )
        for node, why in new.items()
    ]
    changed = [rows.update_job(job), *settle(cluster, run, now), *events, job_event(job)]
    return [*changed, *asks, Wake()]


def _forgotten(
    run: Run, job: Job, refusals: Refusals, met: Sequence[tuple[NodeId, Outcome | None]]
) -> list[Effect]:
    """No node is left: it counts as a failure of the job, of which a retry begins with all."""
    for why in refusals.values():
        run.inquiries.pop(why, None)
    return [
        rows.judge_attempt(job, job.state.attempt, rank, structs.replace(outcome, here=False))
        for rank, (_, outcome) in enumerate(met)
        if outcome is not None and outcome.here
    ]


def _next_try(run: Run, job: Job, verdict: Verdict, now: float) -> float | None:
    """When the next attempt may begin; None for none.

    The window is judged here, once: a retry that then waits for a free node is not given up, since
    a lack of room always queues.
    """
    retry = run.task.retry
    if verdict.lost:
        if run.task.on_node_loss == "restart":
            return now
        if run.task.on_node_loss == "lost":
            return None
    if retry is None or verdict.retry is None or verdict.retry not in retry.on_events:
        return None
    at = now + _delay(job)
    first = now if job.failed_at is None else job.failed_at
    return at if at <= first + retry.duration else None


def _delay(job: Job) -> float:
    """Seconds before the attempt after the present one."""
    return min(LONGEST_DELAY, 2.0 ** min(_counted(job) - 1, 10))


def _counted(job: Job) -> int:
    """The number of its attempt, without those that nodes refused."""
    return max(1, job.state.attempt - len(job.refusals))


_FINAL: Mapping[Event, type[Succeeded | Failed | Cancelled]] = MappingProxyType(
    {Event.SUCCEED: Succeeded, Event.FAIL: Failed, Event.CANCEL: Cancelled}
)
