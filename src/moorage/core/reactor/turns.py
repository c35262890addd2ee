"""A job in line on a node: how it gets a place there, and how it leaves the line without one.

The node gives the place of an attempt that ended to the next of its line, and says both in one
report. A place that fell free with nobody in line is the server's, which may give it to one that
has joined the line since. So whoever gives a place away held it, and none is given twice.
"""

from __future__ import annotations

from dataclasses import replace

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Wake
from moorage.core.job import Cancelled, Event, Job, Prefilled, Queued, Starting
from moorage.core.launch import build_launch
from moorage.core.node import Reservation
from moorage.core.reactor.feed import job_event, settle
from moorage.core.reasons import stopped_before_start
from moorage.ids import NodeId
from moorage.protocol.agent import Held, Outcome, Retract, Start


def join_line(cluster: Cluster, job: Job, node: NodeId, now: float) -> list[Effect]:
    """Send a queued job to a node that has no room for it yet."""
    state = job.state
    last = state.last if isinstance(state, Queued) else None
    cluster.move(job, Event.PREFILL, Prefilled(node, state.attempt, last))
    return [rows.insert_attempt(job, node, _claim(job), now), wait(cluster, job, node)]


def wait(cluster: Cluster, job: Job, node: NodeId) -> Send:
    """Tell the node to put it in line."""
    launch = build_launch(cluster.runs[job.run], job, _claim(job))
    return Send(node, Start(launch, wait=True))


def take_place(cluster: Cluster, job: Job) -> list[Effect]:
    """The job in line has a place now; the events that tell it."""
    state, run = job.state, cluster.runs[job.run]
    assert isinstance(state, Prefilled)
    node = cluster.nodes[state.node]
    node.reserve(job.id, job.shape)
    cluster.move(job, Event.ASSIGN, Starting(state.node, state.attempt))
    run.node, run.attempt = node.name, state.attempt
    return [job_event(job)]


def admit(cluster: Cluster, job: Job, now: float) -> list[Effect]:
    """Give a job in line room that fell free on its node."""
    told = take_place(cluster, job)
    run, claim = cluster.runs[job.run], _claim(job)
    assert isinstance(job.state, Starting)
    return [
        rows.assign_attempt(job, now),
        rows.update_job(job),
        *settle(cluster, run, now),
        *told,
        Send(job.state.node, Start(build_launch(run, job, claim))),
    ]


def ask_back(jobs: list[Job]) -> list[Effect]:
    """Ask the nodes for jobs in line; each is Queued again once its node has said that it will
    never begin. Those that were asked for before are left out."""
    asked: dict[NodeId, list[str]] = {}
    for job in jobs:
        if isinstance(job.state, Prefilled) and not job.state.retracting:
            job.state = replace(job.state, retracting=True)
            asked.setdefault(job.state.node, []).append(job.key)
    return [Send(node, Retract(keys)) for node, keys in asked.items()]


def leave_line(cluster: Cluster, job: Job, held: Held, now: float) -> list[Effect] | None:
    """What a report means for a job in line; None where its turn has come."""
    if held.state == "waiting":
        return []
    kind = None if held.outcome is None else held.outcome.kind
    stopped = held.state == "done" and not held.phases and kind in ("stopped", "aborted")
    if held.state == "retracted" or (stopped and job.stopping):
        return requeue(cluster, job, now)
    return None


def requeue(cluster: Cluster, job: Job, now: float, over: Outcome | None = None) -> list[Effect]:
    """It left the line and will never begin there: back to its place in the queue, or to its end
    where a user stopped it. The next attempt has another number, so that nothing said of this one
    can be taken for it. `over`: it may have begun unseen, and ended in this way; then it is kept
    as an attempt, by which its output is known."""
    state, run = job.state, cluster.runs[job.run]
    assert isinstance(state, Prefilled)
    gone = rows.delete_attempt(job, state.attempt)
    if over is not None:
        gone = rows.update_attempt(job, state, Held(job.key, "done", outcome=over), now)
    if job.stopping:
        ending = stopped_before_start(state.last)
        run.note(ending)
        cluster.move(job, Event.CANCEL, Cancelled(None, state.attempt - 1, now, ending))
        return [gone, rows.update_job(job), job_event(job), *settle(cluster, run, now)]
    cluster.move(job, Event.RETRACT, Queued(state.attempt + 1, last=state.last))
    data = {"attempt": state.attempt}
    told = Emit("job.retracted", job.run, job.id, state.node, data)
    return [gone, rows.update_job(job), told, Wake()]


def _claim(job: Job) -> Reservation:
    """What it will reserve. Nothing with GPUs ever waits in line."""
    shape = job.shape
    return Reservation(shape.millicpus, shape.memory, shape.disk, ())
