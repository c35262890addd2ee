"""Gives queued jobs to nodes."""

from __future__ import annotations

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Send, Wake
from moorage.core.job import Event, Job, Starting
from moorage.core.launch import build_launch
from moorage.core.node import Node
from moorage.core.place import Places, placements
from moorage.core.reactor import lines
from moorage.core.reactor.feed import job_event, settle
from moorage.protocol.agent import Start

LARGEST_PASS = 500
"""Jobs placed in one pass: the loop serves others before the next one."""


def schedule(cluster: Cluster, now: float, limit: int = LARGEST_PASS) -> list[Effect]:
    """Place what fits: by priority, then in the order of submission; then fill the lines of full
    nodes, and take back from lines what is better elsewhere.

    First fit: a job that must wait holds nothing back, and smaller ones behind it may start. So a
    large job can starve beside an endless supply of small ones; reservations for it are left to a
    later version. Nothing is freed during a pass, so a shape that once found no room is not tried
    again at any lower priority.
    """
    places = Places(cluster.nodes.values(), cluster.queue.wheres)
    effects = lines.admit_first(cluster, places, now)
    placed, tired = _place(cluster, places, now, limit)
    effects += placed
    if tired:
        return [*effects, Wake()]
    effects += lines.admit_rest(cluster, places, now)
    effects += lines.yield_to_priority(cluster)
    effects += lines.fill(cluster, now, limit)
    effects += lines.balance(cluster, places)
    return effects


def _place(cluster: Cluster, places: Places, now: float, limit: int) -> tuple[list[Effect], bool]:
    """Up to `limit` jobs; True where more might be placed."""
    effects: list[Effect] = []
    for number, node in placements(cluster.queue, places):
        if not limit:
            return effects, True
        limit -= 1
        effects += _assign(cluster, cluster.jobs[number], node, now)
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
