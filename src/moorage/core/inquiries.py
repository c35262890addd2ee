"""Where several nodes refused a job for one reason, all others are asked at once whether they
would too: else a job that one node of a thousand can run is begun on each of them in turn.

A hint, which nothing is lost without: the answers are never stored, and trusted for a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Inquire
from moorage.core.job import Job
from moorage.core.launch import sketch_of
from moorage.core.named import admitted
from moorage.core.refusals import Refusals, any_left, shapes_beside
from moorage.core.run import Inquiry, Run
from moorage.ids import NodeId

ENOUGH = 3
"""Nodes that refused a job for one reason before all others are asked."""
FRESH = 60.0
"""Seconds in which an answer holds for jobs that were not refused yet, and nobody asks again."""
_KEPT = 8
"""Inquiries that a run remembers."""


def lacking(run: Run, refusals: Refusals, now: float) -> Mapping[NodeId, str]:
    """Nodes of which it is known that they would refuse for one of these reasons."""
    asked = (run.inquiries.get(why) for why in dict.fromkeys(refusals.values()))
    known = [one.refusing for one in asked if one and one.refusing and now - one.at < FRESH]
    # Mostly there is one, which thousands of jobs can share.
    return known[0] if len(known) == 1 else {n: why for one in known for n, why in one.items()}


def inquire(
    cluster: Cluster, run: Run, job: Job, refusals: Refusals, now: float, *, rank: int = 0
) -> list[Effect]:
    """Ask, where that was not done lately. `rank`: the one that was refused last."""
    times = Counter(refusals.values())
    why = max(times, key=lambda reason: times[reason])
    last = run.inquiries.get(why)
    if times[why] < ENOUGH or (last is not None and now - last.at < FRESH):
        return []
    shapes = shapes_beside(cluster, run, refusals, lacking(run, refusals, now))
    able = admitted(cluster, shapes[rank].where)
    nodes = tuple(node.id for node in able if node.up and node.fits_empty(shapes[rank]))
    if len(nodes) < 2:  # to try it is as good
        return []
    run.inquiries.pop(why, None)
    run.inquiries[why] = Inquiry(now, len(nodes))
    while len(run.inquiries) > _KEPT:
        del run.inquiries[next(iter(run.inquiries))]
    return [Inquire(run.id, why, nodes, sketch_of(run, job, rank))]


def learn(cluster: Cluster, run: Run, job: Job, now: float) -> None:
    """A queued job keeps away from nodes that would refuse it. Where they all would, it does not:
    it ends as soon as one more has."""
    job.lacking = lacking(run, job.refusals, now)
    if any_left(cluster, run, job.refusals, job.lacking):
        cluster.reshape(job, shapes_beside(cluster, run, job.refusals, job.lacking))


def stored(cluster: Cluster, job: Job) -> Job:
    """The job as its rows tell it, without what nodes only said."""
    if not job.lacking:
        return job
    shapes = shapes_beside(cluster, cluster.runs[job.run], job.refusals)
    gang = shapes if job.gang else ()
    return replace(job, shape=shapes[0], gang=gang, lacking={})
