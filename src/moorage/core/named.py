"""Fleets and nodes that a task names: which there are, and why none of them takes a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from moorage.core.cluster import Cluster
from moorage.core.node import Node
from moorage.core.shape import Where
from moorage.errors import Problem, those_known
from moorage.specs.fleet import LOCAL, Runtime

_SHOWN = 3


def admitted(cluster: Cluster, where: Where | None) -> Iterator[Node]:
    """Nodes that a job may use, connected or not."""
    return (node for node in cluster.nodes.values() if not node.gone and node.admitted(where))


def candidates(cluster: Cluster, where: Where | None) -> list[Node]:
    """The same, all of them."""
    return list(admitted(cluster, where))


def unknown(cluster: Cluster, where: Where | None) -> list[Problem]:
    """Fleets and nodes that are named and do not exist."""
    if where is None:
        return []
    fleets = [LOCAL, *sorted(cluster.fleets)]
    nodes = [node for node in cluster.nodes.values() if not node.gone]
    hosts = cluster.hosts_by_node.values()
    names = sorted({node.name for node in nodes} | set(cluster.hosts_by_node))
    addresses = sorted({host.spec.hostname for host in hosts})
    return [
        Problem(f"there is no {kind} {name}", those_known(name, known, verb), field)
        for kind, field, wanted, known, verb in (
            ("fleet", "fleets", where.fleets, fleets, "fleet ls"),
            ("node", "instances", where.nodes, names, "node ls"),
            ("host", "instances", where.hostnames, addresses, "node ls"),
        )
        for name in wanted
        if name not in known
    ]


def is_awaited(cluster: Cluster, where: Where | None) -> bool:
    """May a host that was never connected, and of which nothing is known yet, be the one?"""
    return any(
        host.node is None
        and (where is None or where.admits(host.fleet, host.name, host.spec.hostname))
        and cluster.fleets[host.fleet].spec.runtime in ("any", kind_of(where))
        for host in cluster.hosts_by_node.values()
    )


def kind_of(where: Where | None) -> Runtime:
    """What such a job runs as."""
    return "container" if where is not None and where.contained else "process"


def wrong_kind(cluster: Cluster, where: Where | None) -> list[Problem]:
    """Why none of the nodes that a job may use runs what it is, a container or none; empty where
    one may."""
    if any(admitted(cluster, where)) or is_awaited(cluster, where):
        return []
    others = by_name(cluster, where)
    if not others:
        return []
    if where is not None and where.durable and all(node.isolation.fsync for node in others):
        held = some([f"{node.name}: {node.isolation.fsync}" for node in others])
        what = f"on no node can fsync wait for uploads: {held}"
        return [Problem(what, "remove durable: fsync, or add a node that can", "file_mounts")]
    kind = kind_of(where)
    closed = {node.fleet: node.runtime for node in others if node.runtime not in ("any", kind)}
    docker = where is not None and where.docker
    unable = [
        f"{node.name}: {node.isolation.docker if docker else node.isolation.containers}"
        for node in others
        if node.fleet not in closed and (docker or kind == "container")
    ]
    reasons = [f"fleet {name}: runtime: {only}" for name, only in sorted(closed.items())]
    if docker:
        what = f"no node gives jobs a Docker daemon: {some([*reasons, *unable])}"
        return [Problem(what, "remove it, or allow it on a node that can", "docker")]
    what = "can run containers" if kind == "container" else "runs jobs without an image"
    fix = {
        "container": "remove it, or add a node that can",
        "process": "name one, or another fleet",
    }[kind]
    return [Problem(f"no node {what}: {some([*unable, *reasons])}", fix, "image")]


def by_name(cluster: Cluster, where: Where | None) -> list[Node]:
    """The nodes that a job names, whatever they run."""
    return [node for node in cluster.nodes.values() if not node.gone and node.named(where)]


def why_none(known: Sequence[Node], where: Where | None) -> str:
    """What a job waits for where no node that it may use takes jobs now."""
    closed = any(node.up and (node.draining or node.health) for node in known)
    nobody = "none takes new jobs" if closed else "none is connected"
    return f"{_which(where)}: {nobody}{not_open(known)}"


def not_open(known: Sequence[Node]) -> str:
    """Which of the nodes take no jobs now, in brackets; empty where all do."""
    draining = some([node.name for node in known if node.up and node.draining])
    unwell = some([f"{n.name}: {n.health}" for n in known if n.up and not n.draining and n.health])
    down = some([node.name for node in known if not node.up])
    kinds = (("draining", draining), ("not healthy", unwell), ("down", down))
    told = "; ".join(f"{kind}: {names}" for kind, names in kinds if names)
    return f" ({told})" if told else ""


def _which(where: Where | None) -> str:
    if where is None or where == Where():
        return "a node"
    if where.without:
        return _which(replace(where, without=frozenset())).replace("a node", "another node", 1)
    if names := [*where.nodes, *where.hostnames]:
        return f"node {' or '.join(names)}"
    what = "a node that can run containers" if where.contained else "a node"
    what = "a node that gives jobs a Docker daemon" if where.docker else what
    return f"{what} of fleet {' or '.join(where.fleets)}" if where.fleets else what


def some(names: Sequence[str]) -> str:
    """The first few names; the others are counted."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
