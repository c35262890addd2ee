"""The embedded store as a process: how it is, start, stop."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from moorage.errors import Conflict, Problem
from moorage.protocol.objectstore import PATH, EmbeddedView
from moorage.protocol.stores import EMBEDDED
from moorage.server.services import Services
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route


class StopParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether live runs may lose it."""

    force: bool = False


async def status(call: Call[NoParams, NoBody]) -> EmbeddedView:
    """See the route."""
    return await asyncio.to_thread(call.services.object_store.state)


async def start(call: Call[NoParams, NoBody]) -> EmbeddedView:
    """Answers when it answers."""
    await call.services.object_store.start()
    return await asyncio.to_thread(call.services.object_store.state)


async def stop(call: Call[StopParams, NoBody]) -> EmbeddedView:
    """Refused while a live run has a bucket in it, unless it is forced."""
    if not call.params.force:
        _check_unused(call.services)
    await call.services.object_store.stop()
    return await asyncio.to_thread(call.services.object_store.state)


def _check_unused(services: Services) -> None:
    users = services.engine.cluster.bucket_users
    runs = sorted({run for place, those in users.items() if place[0] == EMBEDDED for run in those})
    if runs:
        named = ", ".join(str(run) for run in runs[:5])
        reason = f"buckets in moorage's own store are used by run {named}"
        raise Conflict(Problem(reason, "wait for it, or add --force: its writes then wait"))


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path=PATH,
        summary="How the server's own object store is",
        handler=status,
        params=NoParams,
        body=NoBody,
        reply=EmbeddedView,
    ),
    Route(
        method="POST",
        path=f"{PATH}/start",
        summary="Start the server's own object store",
        handler=start,
        params=NoParams,
        body=NoBody,
        reply=EmbeddedView,
        errors=(503,),
    ),
    Route(
        method="POST",
        path=f"{PATH}/stop",
        summary="Stop the server's own object store until it is needed again",
        handler=stop,
        params=StopParams,
        body=NoBody,
        reply=EmbeddedView,
        errors=(409,),
    ),
)
