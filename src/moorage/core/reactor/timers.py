"""A timer rang: the delay before a retry is over, a schedule fires, a node may have settled."""

from __future__ import annotations

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.cron import next_firing
from moorage.core.effects import Arm, Effect, Emit, Timer, Wake
from moorage.core.job import Job, Queued
from moorage.core.reactor.feed import job_event
from moorage.core.reactor.flaps import on_settle
from moorage.core.run import Run
from moorage.core.shape import shapes_of
from moorage.ids import JobId, RunId


def on_timer(cluster: Cluster, timer: Timer, now: float) -> list[Effect]:
    """A timer of something that is over, or that rings twice, changes nothing."""
    if timer.kind == "settle":
        return on_settle(cluster, timer, now)
    if timer.kind == "retry":
        return [Wake()] if cluster.queue.mature(JobId(timer.id)) else []
    run = cluster.runs.get(RunId(timer.id))
    if run is None or run.next_at is None or run.task.schedule is None:
        return []
    if now < run.next_at:  # rang early: the clock was set back meanwhile
        return [Arm(timer, run.next_at)]
    run.next_at = next_firing(run.task.schedule.cron, now)
    return _fire(cluster, run, Arm(timer, run.next_at), now)


def _fire(cluster: Cluster, run: Run, again: Arm, now: float) -> list[Effect]:
    """Add a job, unless the previous one is still live: two of one schedule never overlap.

    The next time counts from now, so firings missed while the server was down become one.
    """
    if run.live:
        data = {"reason": "previous-job-live", "next_at": again.at}
        return [rows.update_run(run, now), Emit("run.skipped", run.id, data=data), again]
    run.started_at = None
    job = add_job(cluster, run, now)
    return [rows.insert_job(job), rows.update_run(run, now), job_event(job), again, Wake()]


def add_job(cluster: Cluster, run: Run, now: float) -> Job:
    """A new queued job of a run, with the next index."""
    shapes = shapes_of(run.task)
    job = Job(
        id=cluster.new_job_id(),
        run=run.id,
        index=run.jobs,
        shape=shapes[0],
        gang=shapes if len(shapes) > 1 else (),
        priority=run.task.priority,
        queued_at=now,
        state=Queued(attempt=1),
    )
    run.jobs += 1
    cluster.add_job(job)
    return job
