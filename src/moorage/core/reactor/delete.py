"""Finished runs go: a user deletes one, or they were kept for long enough."""

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
    return [*_forget(run), Emit("run.deleted", run), *_drop_output(cluster, logs)]


def on_expire(
    cluster: Cluster, runs: Sequence[RunId], logs: Mapping[NodeId, Sequence[str]]
) -> list[Effect]:
    """As `on_delete`, for several that ended long ago. Conflict, and nothing changes, if one is
    live after all."""
    if live := [run for run in runs if run in cluster.runs]:
        raise Conflict(Problem(f"run {live[0]} is still live"))
    effects: list[Effect] = []
    for run in runs:
        effects += [*_forget(run), Emit("run.deleted", run, data={"reason": "retention"})]
    return effects + _drop_output(cluster, logs)


def on_expire_jobs(
    cluster: Cluster, run: RunId, before: int, logs: Mapping[NodeId, Sequence[str]]
) -> list[Effect]:
    """The jobs of a live schedule that ended long ago, those with an index below `before`; `logs`
    are the keys of their attempts by node. Live ones stay, whatever their index."""
    return [
        Write("note_jobs", {"id": run}),
        Write("delete_jobs_before", {"run_id": run, "idx": before}),
        Emit("run.trimmed", run, data={"before": before}),
        *_drop_output(cluster, logs),
    ]


def _forget(run: RunId) -> list[Effect]:
    """Its numbers are noted before its rows go: none is ever given out again."""
    ran = {"id": run}
    return [Write("note_run", ran), Write("note_jobs", ran), Write("delete_run", ran)]


def _drop_output(cluster: Cluster, logs: Mapping[NodeId, Sequence[str]]) -> list[Effect]:
    effects: list[Effect] = []
    for node, keys in logs.items():
        effects += _drop(cluster.nodes[node], keys)
    return effects


def _drop(node: Node, keys: Sequence[str]) -> list[Effect]:
    """Tell the node at once, and after each Hello until it has said that the output is gone."""
    node.dropped_logs |= dict.fromkeys(keys)
    writes: list[Effect] = [
        Write("insert_dropped_log", {"node_id": node.id, "attempt": attempt}) for attempt in keys
    ]
    return [*writes, Send(node.id, DropLogs(list(keys)))]


def on_dropped(cluster: Cluster, node: NodeId, keys: Sequence[str]) -> list[Effect]:
    """The node has deleted the output of these attempts."""
    effects: list[Effect] = []
    for key in keys:
        if key in cluster.nodes[node].dropped_logs:
            del cluster.nodes[node].dropped_logs[key]
            effects.append(Write("delete_dropped_log", {"node_id": node, "attempt": key}))
    return effects
