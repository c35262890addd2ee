"""The embedded store as a process: how it is, start, stop; and what agents on hosts need for
buckets."""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import FileResponse, Response

from moorage.errors import Conflict, NotFound, Problem
from moorage.protocol.objectstore import PARTS_PATH, PATH, EmbeddedView
from moorage.protocol.stores import EMBEDDED
from moorage.server.services import Services
from moorage.server.table import NODES, AnyRoute, Call, NoBody, NoParams, Route


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


class PartsPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which parts."""

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="As the bundle says")]


async def parts(call: Call[PartsPath, NoBody]) -> Response:
    """Made when the first host asks."""
    from moorage.backends.ssh.parts import archive

    place = call.services.directory / "bundles"
    path = await asyncio.to_thread(archive, place, call.params.digest)
    if path is None:
        raise NotFound("this server has other packages for buckets, or none, by now")
    return FileResponse(path, media_type="application/octet-stream")


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
    Route(
        method="GET",
        path=PARTS_PATH,
        summary="Packages that an agent on a host needs for buckets",
        handler=parts,
        params=PartsPath,
        body=NoBody,
        access=NODES,
        errors=(404,),
    ),
)
