"""A node takes nothing new: what runs on it ends by itself."""

from __future__ import annotations

from moorage.core import fleetrows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Stir, Wake
from moorage.core.node import Node
from moorage.core.reactor.turns import ask_back
from moorage.ids import NodeId


def on_drain(cluster: Cluster, number: NodeId) -> list[Effect]:
    """New jobs stay away, and those in line there come back to the queue. Doing it twice changes
    nothing."""
    node = cluster.nodes[number]
    if node.draining:
        return []
    node.draining = True
    cluster.draining.add(number)
    waiting = [cluster.jobs[job] for line in node.lines.values() for job in line]
    told = Emit("node.draining", node=number)
    return [fleetrows.place_node(node), told, *ask_back(waiting), Wake()]


def on_resume(cluster: Cluster, number: NodeId) -> list[Effect]:
    """New jobs may come again."""
    node = cluster.nodes[number]
    if not node.draining:
        return []
    node.draining = False
    cluster.draining.discard(number)
    return [fleetrows.place_node(node), Emit("node.resumed", node=number), Wake()]


def is_empty(node: Node) -> bool:
    """Is there nothing of any job that it could lose?"""
    return not node.claims and not node.lines


def settled(cluster: Cluster) -> list[Effect]:
    """Tell of nodes that have drained since the last pass."""
    effects: list[Effect] = []
    for number in [n for n in cluster.draining if is_empty(cluster.nodes[n])]:
        cluster.draining.discard(number)
        effects += [Emit("node.drained", node=number), Stir()]
    return effects
