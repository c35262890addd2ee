"""Gives queued jobs to nodes."""

from __future__ import annotations

from heapq import heappop, heapreplace

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Send
from moorage.core.job import Event, Job, Starting
from moorage.core.launch import build_launch
from moorage.core.node import Node
from moorage.core.place import Places
from moorage.core.reactor.feed import job_event, settle
from moorage.protocol.agent import Start


def schedule(cluster: Cluster, now: float) -> list[Effect]:
    """Place what fits: by priority, then in the order of submission.

    First fit: a job that must wait holds nothing back, and smaller ones behind it may start. So a
    large job can starve beside an endless supply of small ones; reservations for it are left to a
    later version. Nothing is freed during a pass, so a shape that once found no room is not tried
    again at any lower priority.
    """
    places = Places(cluster.nodes.values())
    groups = cluster.queue.groups()
    effects: list[Effect] = []
    while groups and places.any_room:
        order, number, shape = groups[0]
        node = places.find(shape)
        if node is None:
            heappop(groups)
            continue
        job = cluster.jobs[number]
        effects += _assign(cluster, job, node, now)
        following = cluster.queue.head((-order, shape))
        if following is None:
            heappop(groups)
        else:
            heapreplace(groups, (order, following, shape))
    return effects


def _assign(cluster: Cluster, job: Job, node: Node, now: float) -> list[Effect]:
    run = cluster.runs[job.run]
    claim = node.reserve(job.id, job.shape)
    cluster.move(job, Event.ASSIGN, Starting(node.id, job.state.attempt))
    run.node, run.attempt = node.name, job.state.attempt
    return [
        rows.insert_attempt(job, node.id, claim, now),
        rows.update_job(job),
        *settle(cluster, run, now),
        job_event(job),
        Send(node.id, Start(build_launch(run, job, claim))),
    ]
