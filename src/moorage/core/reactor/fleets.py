"""Users say which hosts there should be; the reconciler says how far each of them is."""

from __future__ import annotations

from typing import Any

from moorage.core import fleetrows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Stir, Wake
from moorage.core.fleet import HostState, LiveFleet, LiveHost, changes
from moorage.core.job import Stopping
from moorage.core.node import Node
from moorage.core.reactor.cancel import on_cancel
from moorage.core.reactor.drain import is_empty, on_drain, on_resume
from moorage.core.reactor.health import ask_fleet
from moorage.core.reactor.turns import ask_back
from moorage.errors import NotFound, those_known
from moorage.specs.fleet import Fleet, Runtime


def names_of_others(cluster: Cluster, fleet: str) -> frozenset[str]:
    """Nodes that are not this fleet's, by name: a machine may be called as ours would be."""
    return frozenset(node.name for node in cluster.nodes.values() if node.fleet != fleet)


def on_apply_fleet(cluster: Cluster, spec: Fleet, now: float) -> list[Effect]:
    """There shall be these hosts and no others."""
    known = cluster.fleets.get(spec.name)
    done = list(changes(known, spec, names_of_others(cluster, spec.name)))
    fleet = known or LiveFleet(spec, "active", now, now)
    fleet.spec, fleet.state, fleet.updated_at = spec, "active", now
    cluster.fleets[spec.name] = fleet
    kind = "fleet.created" if known is None else "fleet.changed"
    effects: list[Effect] = [fleetrows.upsert_fleet(fleet), _told(kind, spec.name)]
    for known_host in fleet.hosts.values():
        if known_host.node is not None:
            effects += _admit_only(cluster, cluster.nodes[known_host.node], spec.runtime)
    for change in done:
        host = fleet.hosts.get(change.num)
        if host is None:
            host = LiveHost(spec.name, change.num, change.spec, "connecting", now)
            fleet.hosts[change.num] = host
            effects.append(_host_event(host))
        if change.kind == "remove":
            effects += _leave(cluster, host, False, now)
        elif change.kind != "keep":
            effects += _come(cluster, host, change.spec, now)
        elif host.state in ("failed", "unreachable"):
            effects += on_host(cluster, host, "connecting", now)
    return [*effects, *ask_fleet(cluster, spec.name), Stir(again=True), Wake()]


def _admit_only(cluster: Cluster, node: Node, runtime: Runtime) -> list[Effect]:
    """What may run there from now on; those in line that may not come back to the queue."""
    node.runtime = runtime
    waiting = (cluster.jobs[job] for line in node.lines.values() for job in line)
    return ask_back([job for job in waiting if not node.admitted(job.shape.where)])


def _come(cluster: Cluster, host: LiveHost, spec: Any, now: float) -> list[Effect]:
    effects: list[Effect] = []
    if host.state == "leaving" and host.node is not None:
        effects = on_resume(cluster, host.node)
    host.spec, host.force = spec, False
    cluster.hosts_by_node[host.name] = host
    node = cluster.nodes.get(host.node) if host.node is not None else None
    if node is not None:
        node.split(spec.blocks)
    if node is not None and node.hostname != spec.hostname:
        node.hostname = spec.hostname
        effects.append(fleetrows.place_node(node))
    return [*effects, *on_host(cluster, host, "connecting", now)]


def on_delete_fleet(cluster: Cluster, name: str, force: bool, now: float) -> list[Effect]:
    """All of its hosts leave. `force`: their jobs are killed, and hosts that cannot be reached
    are forgotten as they are. NotFound."""
    fleet = cluster.fleets.get(name)
    if fleet is None:
        known = those_known(name, sorted(cluster.fleets), "fleet ls")
        raise NotFound(f"there is no fleet {name}; {known}")
    fleet.state, fleet.updated_at = "deleting", now
    effects: list[Effect] = [fleetrows.upsert_fleet(fleet), _told("fleet.deleting", name)]
    for host in list(fleet.hosts.values()):
        effects += _leave(cluster, host, force, now)
    if not fleet.hosts:
        effects += _forget(cluster, fleet)
    return [*effects, Stir(again=True)]


def _leave(cluster: Cluster, host: LiveHost, force: bool, now: float) -> list[Effect]:
    host.force = host.force or force
    busy = host.node is not None and not is_empty(cluster.nodes[host.node])
    effects = on_host(cluster, host, "leaving", now, message="waits for its jobs" if busy else "")
    if host.node is None:
        return effects
    effects += on_drain(cluster, host.node)
    if force:
        runs = {cluster.jobs[job].run for job in cluster.nodes[host.node].claims}
        for run in sorted(runs):
            if any(cluster.jobs[j].stopping != Stopping.ABORT for j in cluster.runs[run].live):
                effects += on_cancel(cluster, run, True, now)
    return effects


def on_host(
    cluster: Cluster,
    host: LiveHost,
    state: HostState,
    now: float,
    *,
    message: str = "",
    fix: str = "",
    facts: str | None = None,
    stuck: bool = False,
) -> list[Effect]:
    """How far it is. What is known already is not told again."""
    before = (host.state, host.message, host.fix)
    host.state, host.message, host.fix, host.stuck = state, message, fix, stuck
    if facts is not None:
        host.facts = facts
    elif before == (state, message, fix):
        return [fleetrows.upsert_host(host)]
    host.changed_at = now
    return [fleetrows.upsert_host(host), _host_event(host)]


def _host_event(host: LiveHost) -> Emit:
    data: dict[str, Any] = {"fleet": host.fleet, "num": host.num, "host": host.spec.address}
    if host.message:
        data |= {"message": host.message, "fix": host.fix}
    if host.stuck:
        data["stuck"] = True
    return Emit(f"host.{host.state}", node=host.node, data=data)


def on_host_gone(cluster: Cluster, host: LiveHost, now: float) -> list[Effect]:
    """Nothing of it is left over there, or nobody cares: forget it, and its fleet after the last
    one."""
    fleet = cluster.fleets[host.fleet]
    del fleet.hosts[host.num]
    cluster.hosts_by_node.pop(host.name, None)
    data = {"fleet": host.fleet, "num": host.num, "host": host.spec.address}
    effects: list[Effect] = [fleetrows.delete_host(host), fleetrows.revoke_tokens(host)]
    if host.node is not None:
        node = cluster.nodes[host.node]
        node.gone = True
        cluster.draining.discard(node.id)
        effects.append(fleetrows.place_node(node))
    effects.append(Emit("host.removed", node=host.node, data=data))
    if fleet.state == "deleting" and not fleet.hosts:
        effects += _forget(cluster, fleet)
    return effects


def _forget(cluster: Cluster, fleet: LiveFleet) -> list[Effect]:
    del cluster.fleets[fleet.name]
    return [fleetrows.delete_fleet(fleet.name), _told("fleet.deleted", fleet.name)]


def bind(cluster: Cluster, node: Node) -> list[Effect]:
    """A node greets: which host is it?"""
    host = cluster.hosts_by_node.get(node.name)
    if host is None:
        return []
    effects: list[Effect] = [Stir()]
    node.split(host.spec.blocks)
    node.runtime = cluster.fleets[host.fleet].spec.runtime
    if host.node != node.id:
        host.node = node.id
        effects.append(fleetrows.upsert_host(host))
    belongs = (host.fleet, host.spec.hostname, False)
    if (node.fleet, node.hostname, node.gone) != belongs:
        if node.gone:  # a new host with an old number
            node.draining = False
        node.fleet, node.hostname, node.gone = belongs
        effects.append(fleetrows.place_node(node))
    if host.state == "leaving":
        effects += on_drain(cluster, node.id)
    return effects


def _told(kind: str, fleet: str) -> Emit:
    return Emit(kind, data={"fleet": fleet})
