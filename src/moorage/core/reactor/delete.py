"""A user deletes a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Write
from moorage.core.node import Node
from moorage.errors import Conflict, Problem
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import DropLogs


def on_delete(cluster: Cluster, run: RunId, logs: Mapping[NodeId, Sequence[str]]) -> list[Effect]:
    """`logs`: the keys of the run's attempts by node, from the store, which alone knows runs that
    ended. Conflict while the run is live."""
    if run in cluster.runs:
        raise Conflict(Problem(f"run {run} is still live", "stop it first, then delete it"))
    effects: list[Effect] = [Write("delete_run", {"id": run}), Emit("run.deleted", run)]
    for node, keys in logs.items():
        effects += _drop(cluster.nodes[node], keys)
    return effects


def _drop(node: Node, keys: Sequence[str]) -> list[Effect]:
    """Tell the node at once, or when it is back."""
    if node.up:
        return [Send(node.id, DropLogs(list(keys)))]
    node.dropped_logs += keys
    return [
        Write("insert_dropped_log", {"node_id": node.id, "attempt": attempt}) for attempt in keys
    ]
