"""Gives queued jobs to nodes."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Send, Wake
from moorage.core.gang import reserve
from moorage.core.job import Event, Job, Rank, Starting, ranks_of
from moorage.core.launch import build_launch
from moorage.core.node import Node
from moorage.core.place import Places, placements
from moorage.core.reactor import lines, ranks
from moorage.core.reactor.drain import settled
from moorage.core.reactor.feed import job_event, settle
from moorage.protocol.agent import Start

LARGEST_PASS = 500
"""Jobs placed in one pass: the loop serves others before the next one."""


def schedule(cluster: Cluster, now: float, limit: int = LARGEST_PASS) -> list[Effect]:
    """Place what fits: by priority, then in the order of submission; then fill the lines of full
    nodes, and take back from lines what is better elsewhere.

    First fit: a job that must wait holds nothing back, and smaller ones behind it may start. So a
    large job can starve beside an endless supply of small ones; reservations for it are left to a
    later version, but for the first of those with several ranks or that want a node alone, which
    would starve beside any.
    Nothing is freed during a pass, so a shape that once found no room is not tried again at any
    lower priority.
    """
    hold = cluster.hold = reserve(cluster.queue, cluster.nodes, cluster.hold)
    effects = _pass(cluster, now, limit)
    if hold is not None:
        hold.give_back()
    return effects


def _pass(cluster: Cluster, now: float, limit: int) -> list[Effect]:
    places = Places(cluster.nodes.values(), cluster.queue.wheres)
    effects = lines.admit_first(cluster, places, now)
    placed, tired = _place(cluster, places, now, limit)
    effects += placed
    if tired:
        return [*effects, Wake()]
    effects += lines.admit_rest(cluster, places, now)
    effects += lines.yield_to_priority(cluster)
    effects += lines.yield_to_gang(cluster)
    effects += lines.fill(cluster, now, limit)
    effects += lines.balance(cluster, places)
    if cluster.draining:
        effects += settled(cluster)
    return effects


def _place(cluster: Cluster, places: Places, now: float, limit: int) -> tuple[list[Effect], bool]:
    """Up to `limit` jobs; True where more might be placed."""
    effects: list[Effect] = []
    for number, nodes in placements(cluster.queue, places, cluster.hold):
        if limit <= 0:
            return effects, True
        limit -= len(nodes)
        job = cluster.jobs[number]
        if job.gang:
            effects += _assign_all(cluster, job, nodes, now)
        else:
            effects += _assign(cluster, job, nodes[0], now)
    return effects, False


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


def _assign_all(cluster: Cluster, job: Job, nodes: Sequence[Node], now: float) -> list[Effect]:
    """A node for each rank: all of them, or the job would not be here."""
    run = cluster.runs[job.run]
    pairs = zip(nodes, job.gang, strict=True)
    claims = [node.reserve(job.id, shape) for node, shape in pairs]
    workers = tuple(Rank(node.id, None) for node in nodes[1:])
    state = Starting(nodes[0].id, job.state.attempt, workers=workers)
    cluster.move(job, Event.ASSIGN, state)
    run.node, run.attempt = f"{nodes[0].name}+{len(workers)}", job.state.attempt
    return [
        *(
            rows.insert_attempt(job, node.id, claim, now, rank)
            for rank, (node, claim) in enumerate(zip(nodes, claims, strict=True))
        ),
        rows.update_job(job),
        *settle(cluster, run, now),
        job_event(job),
        *(ranks.start(cluster, job, rank) for rank in ranks.due(run.task, ranks_of(state))),
    ]
