"""A node says how well it is: with a failure it takes nothing new, what runs there goes on.
A GPU that failed is out alone: nobody gets it, and the rest of its node works on."""

from __future__ import annotations

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Wake
from moorage.core.node import Node
from moorage.core.reactor.turns import ask_back
from moorage.ids import NodeId
from moorage.protocol.health import CheckHealth, Health
from moorage.specs.fleet import LOCAL


def on_health(cluster: Cluster, number: NodeId, health: Health) -> list[Effect]:
    """Take it; what is known already changes nothing."""
    node = cluster.nodes[number]
    if node.condition == health:
        return []
    node.condition = health
    failed = health.state == "failure"
    node.health = (health.reason or "it says so itself") if failed else ""
    node.failed_gpus = frozenset(gpu.index for gpu in health.gpus if gpu.state == "failure")
    told = Emit("node.health", node=number, data={"state": health.state, "reason": health.reason})
    waiting = [cluster.jobs[job] for line in node.lines.values() for job in line] if failed else []
    return [told, *ask_back(waiting), Wake()]


def ask_health(cluster: Cluster, node: Node) -> list[Effect]:
    """What the node has to look at, as its fleet wants it. Nothing for a machine that neither
    belongs to a fleet nor has GPUs."""
    if node.fleet == LOCAL and not node.resources.gpus:
        return []
    fleet = cluster.fleets.get(node.fleet)
    check = None if fleet is None else fleet.spec.health
    if check is None:
        return [Send(node.id, CheckHealth())]
    return [Send(node.id, CheckHealth(check.command, check.interval, check.timeout))]


def ask_fleet(cluster: Cluster, name: str) -> list[Effect]:
    """All nodes of the fleet that are connected; its file has changed."""
    known = [host.node for host in cluster.fleets[name].hosts.values() if host.node is not None]
    nodes = [cluster.nodes[number] for number in known]
    return [effect for node in nodes if node.up for effect in ask_health(cluster, node)]
