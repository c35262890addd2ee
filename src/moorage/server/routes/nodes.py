"""Machines."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from moorage.core import reactor
from moorage.core.cluster import Cluster
from moorage.core.node import Node
from moorage.core.reactor.drain import is_empty
from moorage.engine.loop import Engine
from moorage.errors import Conflict, NotFound, those_known
from moorage.protocol.api import NodePage, NodeView
from moorage.protocol.fleets import RebootCheck
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route

SHOWN = 5
"""Runs that are named as a reason."""


class NodePath(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a node."""

    name: Annotated[str, Meta(min_length=1, max_length=320, description="A node's name")]


async def list_nodes(call: Call[NoParams, NoBody]) -> NodePage:
    """Every node ever seen, with what is reserved on it; but for those whose host has left its
    fleet."""
    engine = call.services.engine
    nodes = engine.cluster.nodes.values()
    return NodePage([_view(engine, node) for node in nodes if not node.gone])


async def drain_node(call: Call[NodePath, NoBody]) -> NodeView:
    """New jobs stay away, running ones finish; the event `node.drained` tells when they have."""
    engine = call.services.engine
    node = _named(engine.cluster, call.params.name)
    await engine.perform(partial(reactor.on_drain, engine.cluster, node.id))
    return _view(engine, node)


async def resume_node(call: Call[NodePath, NoBody]) -> NodeView:
    """New jobs may come again. Conflict where its host is leaving its fleet."""
    engine = call.services.engine
    node = _named(engine.cluster, call.params.name)
    host = engine.cluster.hosts_by_node.get(node.name)
    if host is not None and host.state == "leaving":
        raise Conflict(f"node {node.name} is leaving the fleet {host.fleet}")
    await engine.perform(partial(reactor.on_resume, engine.cluster, node.id))
    return _view(engine, node)


async def check_reboot(call: Call[NodePath, NoBody]) -> RebootCheck:
    """Changes nothing."""
    cluster = call.services.engine.cluster
    node = _named(cluster, call.params.name)
    reasons = []
    if not node.draining:
        reasons.append(f"it takes new jobs; moorage node drain {node.name}")
    if not is_empty(node):
        runs = sorted({cluster.runs[cluster.jobs[job].run].name for job in node.claims})
        more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
        named = f": {', '.join(runs[:SHOWN])}{more}" if runs else ""
        count = len(node.claims)
        reasons.append(f"{count} job{'' if count == 1 else 's'} would be lost{named}")
    return RebootCheck(node.name, not reasons, reasons)


def _named(cluster: Cluster, name: str) -> Node:
    number = cluster.node_names.get(name)
    if number is not None and not cluster.nodes[number].gone:
        return cluster.nodes[number]
    known = sorted(node.name for node in cluster.nodes.values() if not node.gone)
    raise NotFound(f"there is no node {name}; {those_known(name, known, 'node ls')}")


def _view(engine: Engine, node: Node) -> NodeView:
    return NodeView(
        id=node.id,
        name=node.name,
        state=node.state,
        resources=node.resources,
        isolation=node.isolation,
        version=node.version,
        fleet=node.fleet,
        hostname=node.hostname,
        draining=node.draining,
        health=node.health,
        warning=node.condition.reason if node.condition.state == "warning" else "",
        gpu_health=node.condition.gpus,
        pythons=node.pythons,
        used_cpus=node.used_cpus,
        used_memory=node.used_memory,
        used_gpus=len(node.used_gpus),
        blocks=node.blocks,
        free_blocks=max(0, node.free_blocks) if node.blocks else 0,
        jobs=len(node.claims),
        last_seen=node.last_seen,
        flapping=node.flapping or engine.leases.flapping(node.id),
    )


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/nodes",
        summary="List nodes",
        handler=list_nodes,
        params=NoParams,
        body=NoBody,
        reply=NodePage,
    ),
    Route(
        method="POST",
        path="/v1/nodes/{name}/drain",
        summary="Keep new jobs away from a node",
        handler=drain_node,
        params=NodePath,
        body=NoBody,
        reply=NodeView,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/nodes/{name}/resume",
        summary="Let a node take new jobs again",
        handler=resume_node,
        params=NodePath,
        body=NoBody,
        reply=NodeView,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/v1/nodes/{name}/reboot-check",
        summary="Whether a machine can be rebooted without harm to a job",
        handler=check_reboot,
        params=NodePath,
        body=NoBody,
        reply=RebootCheck,
        errors=(404,),
    ),
)
