"""Nothing is left of an attempt: a next one, or the end of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Timer, Wake
from moorage.core.job import Cancelled, Event, Failed, Job, Live, Queued, Succeeded
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reasons import Verdict, judge
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
    state = job.state
    verdict = judge(outcome, job.stopping)
    if outcome.kind == "phase-failed" and not where:  # what is missing, is missing there
        where = f"on {cluster.nodes[node].name}"
    if where and verdict.event is Event.FAIL:
        told = f"{where}: {verdict.ending.message}"
        verdict = replace(verdict, ending=replace(verdict.ending, message=told))
    free = outcome.kind == "unstarted" and state.attempt <= FREE_ATTEMPTS and not job.stopping
    if verdict.event is Event.FAIL and job.failed_at is None and not free:
        job.failed_at = now
    run.note(verdict.ending)
    at = now + _delay(job) if free else _next_try(run, job, verdict, now)
    if isinstance(state, Live) and at is not None:
        last = verdict.ending
        job.queued_at = now
        job.started_at = None
        cluster.move(job, Event.RETRY, Queued(cluster.next_attempt(job), at, last))
        effects = [rows.update_job(job), *settle(cluster, run, now), job_event(job)]
        return [*effects, Arm(Timer("retry", job.id), at), Wake()]
    if isinstance(state, Live):
        final = _FINAL[verdict.event](node, state.attempt, now, verdict.ending)
        cluster.move(job, verdict.event, final)
    return [rows.update_job(job), job_event(job), *settle(cluster, run, now), Wake()]


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
    return min(LONGEST_DELAY, 2.0 ** min(job.state.attempt - 1, 10))


_FINAL: Mapping[Event, type[Succeeded | Failed | Cancelled]] = MappingProxyType(
    {Event.SUCCEED: Succeeded, Event.FAIL: Failed, Event.CANCEL: Cancelled}
)
