"""Nodes that come and go all the time: one event says so, until they stay as they are."""

from __future__ import annotations

from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Emit, Timer
from moorage.core.node import Node
from moorage.ids import NodeId

CHANGES = 10
"""Up or down; more of them are too many"""
WITHIN = 300.0
"""in so many seconds. After as long without any a node has settled."""


def changed(node: Node, told: Emit, now: float, *, always: bool = False) -> list[Effect]:
    """A node went up or down; `told` says it. `always`: also of one that flaps."""
    recent = [at for at in node.changes if now - at < WITHIN]
    node.changes = [*recent[-CHANGES:], now]
    if node.flapping:
        return [told] if always else []
    if len(node.changes) <= CHANGES:
        return [told]
    node.flapping = True
    data = {"changes": len(node.changes), "within": round(now - node.changes[0], 1)}
    flaps = Emit("node.flapping", node=node.id, data=data)
    return [told, flaps, Arm(Timer("settle", node.id), now + WITHIN)]


def on_settle(cluster: Cluster, timer: Timer, now: float) -> list[Effect]:
    """Look whether it has stayed as it is."""
    node = cluster.nodes.get(NodeId(timer.id))
    if node is None or not node.flapping:
        return []
    if now < node.changes[-1] + WITHIN:
        return [Arm(timer, node.changes[-1] + WITHIN)]
    node.flapping = False
    node.changes.clear()
    return [Emit("node.settled", node=node.id, data={"state": node.state})]
