"""What a server that starts makes good before anything else."""

from __future__ import annotations

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit
from moorage.core.job import Live, ranks_of
from moorage.core.node import NOTHING
from moorage.core.reactor.reports import lose

MESSAGE = "the server has no record of where it ran"


def on_boot(cluster: Cluster, now: float) -> list[Effect]:
    """Ranks without a row are lost, which ends the other ranks of their jobs. What there may be of
    them is stopped when the node that holds it greets."""
    effects: list[Effect] = []
    unrecorded, cluster.unrecorded = cluster.unrecorded, []
    for number, rank in unrecorded:
        job = cluster.jobs[number]
        if not isinstance(job.state, Live):
            continue
        node = ranks_of(job.state)[rank].node
        data = {"attempt": job.state.attempt, "rank": rank}
        effects.append(rows.insert_attempt(job, node, NOTHING, now, rank))
        effects.append(Emit("rank.unknown", job.run, number, data=data))
        effects += lose(cluster, job, node, MESSAGE, now)
    return effects
