"""Ends what a node has of a job."""

from __future__ import annotations

from moorage.core.effects import Send
from moorage.core.job import Job, Stopping
from moorage.core.run import Run
from moorage.ids import NodeId
from moorage.protocol.agent import Stop


def stop(run: Run, job: Job, node: NodeId) -> Send:
    """Tell the agent to end what it has of the present attempt: a user wants it, or another rank
    has ended it."""
    key = job.rank_key(job.rank_on(node))
    if job.stopping == Stopping.ABORT:
        return Send(node, Stop(key, grace=0, abort=True))
    return Send(node, Stop(key, grace=run.task.stop_duration))
