"""A user stops a run."""

from __future__ import annotations

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit
from moorage.core.job import (
    Cancelled,
    Event,
    Job,
    Live,
    Prefilled,
    Queued,
    Rank,
    Stopping,
    ranks_of,
)
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reactor.reports import lose
from moorage.core.reactor.stops import stop
from moorage.core.reasons import schedule_stopped, stopped_before_start
from moorage.core.run import Run
from moorage.errors import NotFound
from moorage.ids import NodeId, RunId


def on_cancel(cluster: Cluster, run: RunId, abort: bool, now: float) -> list[Effect]:
    """Queued jobs are cancelled at once, those on a node when its agent says that nothing is left.

    An abort may follow a stop; anything else repeated changes nothing. NotFound for a run that is
    not live.
    """
    if (found := cluster.runs.get(run)) is None:
        raise NotFound(f"run {run} is not live")
    wish = Stopping.ABORT if abort else Stopping.STOP
    if wish <= found.stopping and not (abort and _stranded(cluster, found)):
        return []
    before = found.state
    found.stopping = wish
    found.next_at = None
    if found.task.schedule is not None:
        found.last = schedule_stopped()
    cluster.recount(found, before)
    effects: list[Effect] = [Emit("run.stopping", run, data={"abort": abort})]
    for number in sorted(found.live):
        job = cluster.jobs[number]
        job.stopping = wish
        effects += _stop(cluster, found, job, now)
        if abort:
            effects += _give_up(cluster, job, now)
    if run not in cluster.runs:  # given up with its last job
        return effects
    return [*effects, *settle(cluster, found, now)]


def _stop(cluster: Cluster, run: Run, job: Job, now: float) -> list[Effect]:
    state = job.state
    if isinstance(state, Live):
        there = [rank.node for rank in ranks_of(state) if not _over(rank)]
        stops = [stop(run, job, node) for node in there]
        return [rows.update_job(job), *stops]
    if isinstance(state, Prefilled):  # it may be about to begin
        return [rows.update_job(job), stop(run, job, state.node)]
    ending = stopped_before_start(state.last if isinstance(state, Queued) else None)
    run.note(ending)
    cluster.move(job, Event.CANCEL, Cancelled(None, state.attempt - 1, now, ending))
    return [rows.update_job(job), job_event(job)]


def _lost_under(cluster: Cluster, job: Job) -> list[NodeId]:
    """Nodes that hold a rank of it, and are lost."""
    if not isinstance(job.state, Live):
        return []
    there = [rank.node for rank in ranks_of(job.state) if not _over(rank)]
    return [node for node in there if cluster.nodes[node].lost]


def _stranded(cluster: Cluster, run: Run) -> bool:
    return any(_lost_under(cluster, cluster.jobs[number]) for number in run.live)


def _give_up(cluster: Cluster, job: Job, now: float) -> list[Effect]:
    """Nothing of the job is begun again, so nobody needs to know what becomes of it there: its
    node ends it when it returns."""
    effects: list[Effect] = []
    for node in _lost_under(cluster, job):
        message = f"node {cluster.nodes[node].name} is lost; what runs there ends when it returns"
        effects += lose(cluster, job, node, message, now, "node-lost")
    return effects


def _over(rank: Rank) -> bool:
    return rank.report is not None and rank.report.state == "done"
