"""Buckets that have a name: list, make, adopt, delete, flush."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from moorage.core.storage import LiveStorage
from moorage.engine.loop import Engine
from moorage.errors import Conflict, InvalidInput, NotFound, Problem, those_known
from moorage.protocol.api import RunView
from moorage.protocol.stores import (
    FlushReply,
    StorageGone,
    StoragePage,
    StorageRequest,
    StorageView,
)
from moorage.server.parameters import Flag, Ref
from moorage.server.routes.runs import view as run_view
from moorage.server.storage import buckets
from moorage.server.storage.flushing import LEFT
from moorage.server.storage.listing import checked, looked_at, uri_of, view
from moorage.server.storage.storages import Storages
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route
from moorage.specs.stores.record import Access

LONGEST_WAIT = 60.0
_ENDS = frozenset({"storage.deleted", "storage.forgotten", "storage.trouble"})
Name = Annotated[str, Meta(min_length=1, max_length=256, description="A bucket's name")]
Wait = Annotated[float, Meta(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the end")]


class ListParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to ask the stores."""

    check: Annotated[Flag, Meta(description="1: look at the stores themselves")] = 0


class ShowParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a bucket, and whether to ask its store."""

    name: Name
    check: Annotated[Flag, Meta(description="1: ask the store for unfinished uploads")] = 0


class GoneParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a bucket, and how long to wait."""

    name: Name
    timeout: Wait = 10.0


class FlushParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a bucket, and how long to wait."""

    name: Name
    timeout: Wait = 30.0


class RunFlushParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a run, and how long to wait."""

    ref: Ref
    timeout: Wait = 30.0


async def list_storages(call: Call[ListParams, NoBody]) -> StoragePage:
    """By name; what only the stores know comes last."""
    storages = call.services.storages
    if call.params.check:
        return await checked(storages)
    known = storages.engine.cluster.storages
    return StoragePage([view(storages, known[name]) for name in sorted(known)])


async def show_storage(call: Call[ShowParams, NoBody]) -> StorageView:
    """One, as it is recorded."""
    storages = call.services.storages
    found = _named(storages, call.params.name)
    return await looked_at(storages, found) if call.params.check else view(storages, found)


async def make_storage(call: Call[NoParams, StorageRequest]) -> StorageView:
    """It is there on return. One that is there already under this name is answered as it is."""
    storages, asked = call.services.storages, call.body
    store = storages.stores.resolve(asked.store, "" if asked.adopt else asked.name)
    kind = storages.stores.kind_of(store)
    if kind.read_only:
        told = f"{kind.title} has no buckets of moorage's"
        raise InvalidInput(Problem(told, f"write `source: {kind.name}://...` instead", "store"))
    if why := kind.check_name(asked.name):
        raise InvalidInput(Problem(f"no bucket may be called {asked.name}: {why}", "", "name"))
    known = storages.find(asked.name)
    if known is not None:
        _require_alike(known, store)
    access = await storages.stores.access(store)
    shown = uri_of(storages, store, asked.name)
    there = (await storages.look(access, asked.name, shown=shown)).there
    if asked.adopt and known is None:
        return view(storages, await _adopt(storages, store, asked.name, call.user, access, there))
    if there and known is None:
        fix = f"use it as {shown}, or: moorage storage adopt {asked.name} --store {store}"
        told = f"a bucket {asked.name} is in store {store}, not made by moorage"
        raise Conflict(Problem(told, fix, "name"))
    if known is None or not there:
        known = await storages.make(
            asked.name, store, call.user, persistent=asked.persistent, access=access
        )
    return view(storages, known)


async def _adopt(
    storages: Storages, store: str, name: str, user: str, access: Access, there: bool
) -> LiveStorage:
    if not there:
        raise NotFound(
            f"there is no bucket {uri_of(storages, store, name)}; name the store that it is in "
            f"with --store (moorage store ls), or write `name: {name}` in a file to have it made"
        )
    born = await storages.ask(access, name, LONGEST_WAIT, partial(buckets.born, access, name))
    return await storages.adopt(name, store, user, born)


def _require_alike(known: LiveStorage, store: str) -> None:
    if known.store != store:
        told = f"storage {known.name} is in store {known.store}, not in {store}"
        raise Conflict(Problem(told, "choose another name", "store"))
    if known.state == "deleting":
        raise Conflict(Problem(f"storage {known.name} is being deleted", "wait until it is gone"))


async def delete_storage(call: Call[GoneParams, NoBody]) -> StorageGone:
    """A bucket that moorage made goes with all that is in it; another is only forgotten. Refused
    while a live run uses it. Durable on return, and done unless it says `deleting`."""
    storages = call.services.storages
    storage = _named(storages, call.params.name)
    engine = storages.engine
    with await engine.feed.follow(None, None) as follower:
        await storages.want_gone(storage)
        try:
            async with asyncio.timeout(call.params.timeout):
                while not engine.feed.closed:
                    for event in await follower.next():
                        if event.kind in _ENDS and event.data.get("storage") == storage.name:
                            return _gone(storage, event.kind, str(event.data.get("message", "")))
        except TimeoutError:
            pass
    return _gone(storage, "", storage.message)


def _gone(storage: LiveStorage, kind: str, message: str) -> StorageGone:
    if kind == "storage.deleted":
        return StorageGone(storage.name, "deleted")
    if kind == "storage.forgotten":
        return StorageGone(storage.name, "forgotten", message)
    return StorageGone(storage.name, "deleting", message)


async def flush_storage(call: Call[FlushParams, NoBody]) -> FlushReply:
    """Uploads what attempts that used it left on their nodes."""
    storages = call.services.storages
    storage = _named(storages, call.params.name)
    left: list[tuple[str, str]] = []
    for key in sorted(storage.unflushed):
        left += [(key, node) for node in await _node_of(storages.engine, key)]
    return FlushReply(await storages.flushes.flush(left, call.params.timeout))


async def flush_run(call: Call[RunFlushParams, NoBody]) -> FlushReply:
    """Uploads what the attempts of a run left on their nodes."""
    storages = call.services.storages
    found = await run_view(storages.engine, call.params.ref)
    return FlushReply(await storages.flushes.flush(_left(found), call.params.timeout))


def _left(run: RunView) -> list[tuple[str, str]]:
    return [
        (f"{job.id}.{attempt.attempt}.{attempt.rank}", attempt.node)
        for job in run.jobs
        for attempt in job.attempts
        if attempt.outcome is not None and attempt.outcome.kind in LEFT
    ]


async def _node_of(engine: Engine, key: str) -> list[str]:
    """The name of the node of an attempt, if it is known still."""
    job, attempt, rank = (int(part) for part in key.split("."))
    params = {"job_id": job, "attempt": attempt, "rank": rank}
    rows = await engine.view(partial(engine.store.read, "attempt_left", params))
    return [engine.cluster.nodes[row["node_id"]].name for row in rows]


def _named(storages: Storages, name: str) -> LiveStorage:
    found = storages.find(name)
    if found is None:
        known = those_known(name, sorted(storages.engine.cluster.storages), "storage ls")
        raise NotFound(f"there is no storage {name}; {known}")
    return found


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/storages",
        summary="List buckets that have a name",
        handler=list_storages,
        params=ListParams,
        body=NoBody,
        reply=StoragePage,
    ),
    Route(
        method="POST",
        path="/v1/storages",
        summary="Make a bucket under a name, or give one that is there a name",
        handler=make_storage,
        params=NoParams,
        body=StorageRequest,
        reply=StorageView,
        errors=(404, 409, 422),
    ),
    Route(
        method="GET",
        path="/v1/storages/{name}",
        summary="Show a bucket",
        handler=show_storage,
        params=ShowParams,
        body=NoBody,
        reply=StorageView,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/v1/storages/{name}",
        summary="Delete a bucket that moorage made, with all that is in it; forget another",
        handler=delete_storage,
        params=GoneParams,
        body=NoBody,
        reply=StorageGone,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/v1/storages/{name}/flush",
        summary="Upload what attempts left on their nodes into a bucket",
        handler=flush_storage,
        params=FlushParams,
        body=NoBody,
        reply=FlushReply,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/runs/{ref}/flush",
        summary="Upload what the attempts of a run left on their nodes into its buckets",
        handler=flush_run,
        params=RunFlushParams,
        body=NoBody,
        reply=FlushReply,
        errors=(404,),
    ),
)
