"""Fleets: machines that are reached by ssh."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from moorage.core import reactor
from moorage.core.cluster import Cluster
from moorage.core.fleet import LiveFleet, LiveHost, changes
from moorage.core.reactor.fleets import names_of_others
from moorage.decoding import from_json
from moorage.errors import Conflict, InvalidInput, NotFound, Problem, those_known
from moorage.protocol.fleets import (
    FleetPage,
    FleetPlan,
    FleetRequest,
    FleetView,
    HostChange,
    HostView,
)
from moorage.server.parameters import Flag
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route
from moorage.specs.fleet import Fleet
from moorage.specs.fleetfile import check_fleet

FleetName = Annotated[str, Meta(min_length=1, max_length=64, description="A fleet's name")]


class FleetPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a fleet."""

    name: FleetName


class DeleteParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a fleet, and says how it goes."""

    name: FleetName
    force: Annotated[
        Flag, Meta(description="1: kill its jobs, and forget hosts that cannot be reached")
    ] = 0


async def plan_fleet(call: Call[NoParams, FleetRequest]) -> FleetPlan:
    """Changes nothing."""
    cluster, spec = call.services.engine.cluster, call.body.spec
    problems = [str(problem) for problem in _problems(cluster, spec)]
    known = cluster.fleets.get(spec.name)
    found = [] if problems else changes(known, spec, names_of_others(cluster, spec.name))
    listed = [
        HostChange(
            change.kind,
            f"{spec.name}-{change.num}",
            change.spec.address,
            _jobs(cluster, None if known is None else known.hosts.get(change.num)),
        )
        for change in found
    ]
    return FleetPlan(spec.name, known is None, listed, problems)


async def apply_fleet(call: Call[NoParams, FleetRequest]) -> FleetView:
    """Durable on return; the hosts are worked on from then on, see the events `host.*`."""
    engine, spec = call.services.engine, call.body.spec
    if problems := _problems(engine.cluster, spec):
        raise InvalidInput(*problems)
    decide = partial(reactor.on_apply_fleet, engine.cluster, spec, engine.clock())
    await engine.perform(decide)
    return view_of(engine.cluster, engine.cluster.fleets[spec.name])


def _problems(cluster: Cluster, spec: Fleet) -> list[Problem]:
    problems = check_fleet(spec)
    known = cluster.fleets.get(spec.name)
    if known is not None and known.state == "deleting":
        fix = "wait until it is gone, or choose another name"
        problems.append(Problem(f"the fleet {spec.name} is being deleted", fix, "name"))
    elsewhere = {
        host.spec.address: host.fleet
        for host in cluster.hosts_by_node.values()
        if host.fleet != spec.name
    }
    for number, host in enumerate(spec.hosts):
        if (fleet := elsewhere.get(host.address)) is not None:
            message = f"{host.address} belongs to the fleet {fleet}, and a machine is in one"
            fix = f"take it out of that one's file and apply it, or: moorage fleet delete {fleet}"
            problems.append(Problem(message, fix, f"ssh_config.hosts[{number}]"))
    return problems


async def list_fleets(call: Call[NoParams, NoBody]) -> FleetPage:
    """All of them, by name."""
    cluster = call.services.engine.cluster
    return FleetPage([view_of(cluster, cluster.fleets[name]) for name in sorted(cluster.fleets)])


async def show_fleet(call: Call[FleetPath, NoBody]) -> FleetView:
    """One, with its hosts."""
    cluster = call.services.engine.cluster
    return view_of(cluster, _named(cluster, call.params.name))


async def delete_fleet(call: Call[DeleteParams, NoBody]) -> FleetView:
    """Its hosts drain, then their agents are removed; the fleet is gone with the last one."""
    engine = call.services.engine
    fleet = _named(engine.cluster, call.params.name)
    force = bool(call.params.force)
    decide = partial(reactor.on_delete_fleet, engine.cluster, fleet.name, force, engine.clock())
    await engine.perform(decide)
    return view_of(engine.cluster, fleet)


def _named(cluster: Cluster, name: str) -> LiveFleet:
    if name in cluster.fleets:
        return cluster.fleets[name]
    if name == "local":
        raise Conflict("the fleet local is the server's own machine; see moorage node")
    known = sorted(cluster.fleets)
    raise NotFound(f"there is no fleet {name}; {those_known(name, known, 'fleet ls')}")


def view_of(cluster: Cluster, fleet: LiveFleet) -> FleetView:
    """As users see it; without its variables, whose values may be secret."""
    return FleetView(
        name=fleet.name,
        state=fleet.state,
        created_at=fleet.created_at,
        updated_at=fleet.updated_at,
        spec=msgspec.structs.replace(fleet.spec, env=dict.fromkeys(fleet.spec.env, "")),
        hosts=[_host(cluster, fleet.hosts[num]) for num in sorted(fleet.hosts)],
    )


def _host(cluster: Cluster, host: LiveHost) -> HostView:
    node = None if host.node is None else cluster.nodes[host.node]
    return HostView(
        node=host.name,
        num=host.num,
        host=host.spec.address,
        state=host.state,
        changed_at=host.changed_at,
        message=host.message,
        fix=host.fix,
        stuck=host.stuck,
        up=node is not None and node.up,
        draining=node is not None and node.draining,
        jobs=_jobs(cluster, host),
        facts=from_json(host.facts, dict[str, Any]),
    )


def _jobs(cluster: Cluster, host: LiveHost | None) -> int:
    if host is None or host.node is None:
        return 0
    return len(cluster.nodes[host.node].claims)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/fleets/plan",
        summary="What applying a fleet would do, and what stands against it",
        handler=plan_fleet,
        params=NoParams,
        body=FleetRequest,
        reply=FleetPlan,
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/v1/fleets",
        summary="Make a fleet be as described: new, or with hosts added, changed and removed",
        handler=apply_fleet,
        params=NoParams,
        body=FleetRequest,
        reply=FleetView,
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/v1/fleets",
        summary="List fleets with their hosts",
        handler=list_fleets,
        params=NoParams,
        body=NoBody,
        reply=FleetPage,
    ),
    Route(
        method="GET",
        path="/v1/fleets/{name}",
        summary="Show a fleet",
        handler=show_fleet,
        params=FleetPath,
        body=NoBody,
        reply=FleetView,
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path="/v1/fleets/{name}",
        summary="Delete a fleet: its hosts drain, and their agents are removed",
        handler=delete_fleet,
        params=DeleteParams,
        body=NoBody,
        reply=FleetView,
        errors=(404, 409),
    ),
)
