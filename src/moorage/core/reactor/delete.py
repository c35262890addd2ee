"""A user deletes a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Write
from moorage.errors import Conflict, Problem
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import DropLogs


def on_delete(cluster: Cluster, run: RunId, logs: Mapping[NodeId, Sequence[str]]) -> list[Effect]:
    """`logs`: the keys of the run's attempts by node, from the store, which alone knows runs that
    ended. Conflict while the run is live."""
    if run in cluster.runs:
        raise Conflict(Problem(f"run {run} is still live", "stop it first, then delete it"))
    drops = [Send(node, DropLogs(list(keys))) for node, keys in logs.items() if keys]
    return [Write("delete_run", {"id": run}), Emit("run.deleted", run), *drops]
