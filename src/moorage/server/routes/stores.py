"""Object stores: declare, list, check, forget; and how users and nodes reach one."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace
from starlette.responses import Response

from moorage.core import reactor
from moorage.core.storage import LiveStore
from moorage.data.objects import hub
from moorage.data.objects.chains import missing
from moorage.data.objects.errors import StoreProblem
from moorage.errors import Forbidden, MoorageError, NotFound, those_known
from moorage.ids import NodeId
from moorage.protocol.stores import (
    StoreCheck,
    StorePage,
    StoreRequest,
    StoreView,
)
from moorage.server.replies import json_reply
from moorage.server.services import Services
from moorage.server.site import NODE_LABEL
from moorage.server.storage import buckets
from moorage.server.storage.flushing import task_of
from moorage.server.storage.storages import plain
from moorage.server.table import NODES, AnyRoute, Call, NoBody, NoParams, Route
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access

CHECK_WITHIN = 12.0
_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed")
"""What stores say where it is certainly not about permissions."""
Name = Annotated[str, Meta(min_length=1, max_length=64, description="A store's name")]


class StorePath(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a store."""

    name: Name


class AccessParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a store, and what is wanted of it."""

    name: Annotated[str, Meta(min_length=1, max_length=64, description="`default`: that one")]
    bucket: Annotated[str, Meta(max_length=256, description="The only one that is needed")] = ""


class NodeParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which store, for which attempt."""

    store: Annotated[str, Meta(min_length=1, max_length=64, description="`default`: that one")]
    attempt: Annotated[str, Meta(max_length=64, description="JOB.ATTEMPT.RANK")]


async def list_stores(call: Call[NoParams, NoBody]) -> StorePage:
    """Those that were declared, then the kinds."""
    return StorePage(await call.services.storages.stores.views())


async def show_store(call: Call[StorePath, NoBody]) -> StoreView:
    """One."""
    return await _view(call.services, call.params.name)


async def add_store(call: Call[NoParams, StoreRequest]) -> StoreView:
    """Declares it, or declares it anew; its secrets are sealed before they are kept."""
    services = call.services
    stores = services.storages.stores
    store = stores.declare(call.body, call.user)
    was = stores.default
    await services.storages.perform(partial(reactor.on_add_store, services.engine.cluster, store))
    return _after(await _view(services, store.name), was, stores.default)


async def delete_store(call: Call[StorePath, NoBody]) -> StoreView:
    """Refused while a bucket with a name, or a live run, is in it."""
    services, name = call.services, call.params.name
    cluster = services.engine.cluster
    if name not in cluster.stores:
        known = those_known(name, sorted(cluster.stores), "store ls")
        raise NotFound(f"there is no declared store {name}; {known}")
    stores = services.storages.stores
    view, was = await _view(services, name), stores.default
    await services.storages.perform(partial(reactor.on_delete_store, cluster, name))
    stores.forget(name)
    return _after(view, was, stores.default)


def _after(view: StoreView, was: str, now: str) -> StoreView:
    """Says where buckets with nothing but a name go now, if that is elsewhere."""
    return view if was == now else replace(view, default_was=was, default_now=now)


async def check_store(call: Call[StorePath, NoBody]) -> StoreCheck:
    """One look at it: does it answer, and take the credentials?"""
    services = call.services
    name = services.storages.stores.resolve(call.params.name)
    began = time.monotonic()
    access = Access(name)
    try:
        access = await services.storages.stores.access(name)
        asking = partial(hub.check if access.kind == "hf" else buckets.listed, access)
        found = await services.storages.ask(access, "", CHECK_WITHIN, asking)
    except MoorageError as error:
        problem, fix = _why(services.engine.cluster.stores.get(name), access, error)
        return StoreCheck(name, time.monotonic() - began, problem, fix)
    count = None if found is None else len(found)
    return StoreCheck(name, time.monotonic() - began, buckets=count)


def _why(declared: LiveStore | None, access: Access, error: MoorageError) -> tuple[str, str]:
    """What one look at a store failed for, and what to do about it."""
    problem, fix = plain(error)
    unsigned = access.anonymous and not (declared is not None and declared.anonymous)
    if unsigned and (lacking := missing(access)):
        return f"{problem}: {lacking}", _declare_again(declared, "give it keys")
    if not isinstance(error, StoreProblem) or error.reason != "denied":
        return problem, fix
    if any(word in problem for word in _WRONG_KEYS):
        return problem, _declare_again(declared, "the keys are wrong; declare it again")
    return problem, "check its keys; it may also be that they may not list buckets, and need not"


def _declare_again(declared: LiveStore | None, why: str) -> str:
    return "" if declared is None else f"{why}: moorage store add {declared.name} ..."


async def store_access(call: Call[AccessParams, NoBody]) -> Response:
    """For the client's own uploads and downloads. Holds secrets."""
    stores, wanted = call.services.storages.stores, call.params
    if wanted.bucket:
        session = f"moorage-{call.user}"
        store = stores.resolve(wanted.name, wanted.bucket)
        found = await stores.handed_out(store, [wanted.bucket], session, writes=True)
    else:
        found = await stores.access(wanted.name)
    return _secret(found)


async def node_access(call: Call[NodeParams, NoBody]) -> Response:
    """For an attempt that is at work on the node that asks, and whose spec names the store. Holds
    secrets."""
    services, wanted = call.services, call.params
    assert call.owner is not None
    stores = services.storages.stores
    name = stores.resolve(wanted.store)
    for node in _nodes(services, call.owner.subject):
        try:
            task = await task_of(services.engine, wanted.attempt, node)
        except Forbidden:
            continue
        mounts = [one for one in task.mounts if isinstance(one, Bucket) and one.store == name]
        if not mounts:
            break
        session = f"moorage-{wanted.attempt}"
        writes = any(not one.read_only for one in mounts)
        named = [one.bucket for one in mounts]
        return _secret(await stores.handed_out(name, named, session, writes=writes))
    raise Forbidden(
        f"attempt {wanted.attempt} is not at work on this node, or does not use store {name}"
    )


def _nodes(services: Services, subject: str) -> list[NodeId]:
    """The nodes for which a token speaks: one, or those of the server's own machine."""
    cluster = services.engine.cluster
    if subject == NODE_LABEL:
        return [one.id for one in cluster.nodes.values() if one.name not in cluster.hosts_by_node]
    number = cluster.node_names.get(subject)
    return [] if number is None else [number]


def _secret(access: Access) -> Response:
    reply = json_reply(access)
    reply.headers["Cache-Control"] = "no-store"
    return reply


async def _view(services: Services, name: str) -> StoreView:
    stores = services.storages.stores
    resolved = stores.resolve(name)
    for view in await stores.views():
        if view.name == resolved:
            return view
    raise NotFound(f"there is no store {name}")


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/stores",
        summary="List object stores: declared ones, and the kinds",
        handler=list_stores,
        params=NoParams,
        body=NoBody,
        reply=StorePage,
    ),
    Route(
        method="POST",
        path="/v1/stores",
        summary="Declare an object store, or declare it anew",
        handler=add_store,
        params=NoParams,
        body=StoreRequest,
        reply=StoreView,
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/v1/stores/{name}",
        summary="Show an object store",
        handler=show_store,
        params=StorePath,
        body=NoBody,
        reply=StoreView,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/v1/stores/{name}",
        summary="Forget how to reach an object store",
        handler=delete_store,
        params=StorePath,
        body=NoBody,
        reply=StoreView,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/v1/stores/{name}/check",
        summary="Whether an object store answers and takes its credentials",
        handler=check_store,
        params=StorePath,
        body=NoBody,
        reply=StoreCheck,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/stores/{name}/access",
        summary="How to reach an object store, with its secrets",
        handler=store_access,
        params=AccessParams,
        body=NoBody,
        reply=Access,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/node/stores/{store}",
        summary="The same for a node, while an attempt that uses the store is at work there",
        handler=node_access,
        params=NodeParams,
        body=NoBody,
        reply=Access,
        access=NODES,
        errors=(404,),
    ),
)
