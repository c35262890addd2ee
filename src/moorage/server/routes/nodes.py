"""Machines."""

from __future__ import annotations

from moorage.core.node import Node
from moorage.protocol.api import NodePage, NodeView
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route


async def list_nodes(call: Call[NoParams, NoBody]) -> NodePage:
    """Every node ever seen, with what is reserved on it."""
    return NodePage([_view(node) for node in call.services.engine.cluster.nodes.values()])


def _view(node: Node) -> NodeView:
    return NodeView(
        id=node.id,
        name=node.name,
        state="up" if node.up else "down",
        resources=node.resources,
        isolation=node.isolation,
        version=node.version,
        pythons=node.pythons,
        used_cpus=node.used_cpus,
        used_memory=node.used_memory,
        used_gpus=len(node.used_gpus),
        jobs=len(node.claims),
        last_seen=node.last_seen,
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
)
