"""The rows of fleets, hosts and their tokens: one function a query of the store."""

from __future__ import annotations

from moorage.core.effects import Write
from moorage.core.fleet import LiveFleet, LiveHost
from moorage.core.node import Node
from moorage.core.rows import text


def upsert_fleet(fleet: LiveFleet) -> Write:
    params = {
        "name": fleet.name,
        "spec": text(fleet.spec),
        "state": fleet.state,
        "created_at": fleet.created_at,
        "updated_at": fleet.updated_at,
    }
    return Write("upsert_fleet", params)


def delete_fleet(name: str) -> Write:
    return Write("delete_fleet", {"name": name})


def upsert_host(host: LiveHost) -> Write:
    params = {
        "fleet": host.fleet,
        "num": host.num,
        "address": host.spec.address,
        "spec": text(host.spec),
        "state": host.state,
        "message": host.message,
        "fix": host.fix,
        "facts": host.facts,
        "node_id": host.node,
        "force": int(host.force),
        "changed_at": host.changed_at,
    }
    return Write("upsert_host", params)


def delete_host(host: LiveHost) -> Write:
    return Write("delete_host", {"fleet": host.fleet, "num": host.num})


def place_node(node: Node) -> Write:
    """Where a node belongs, and whether it takes new jobs."""
    params = {
        "id": node.id,
        "fleet": node.fleet,
        "hostname": node.hostname,
        "draining": int(node.draining),
        "gone": int(node.gone),
    }
    return Write("place_node", params)


def revoke_tokens(host: LiveHost) -> Write:
    """No agent may speak for this host's node any more."""
    return Write("delete_node_tokens", {"subject": host.name})
