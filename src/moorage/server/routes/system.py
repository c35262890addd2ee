"""What the server is."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct
from starlette.responses import Response

from moorage.protocol import VERSION
from moorage.protocol.api import Info
from moorage.server.table import OPEN, AnyRoute, Call, NoBody, NoParams, Route


class Health(Struct, frozen=True):
    """`ok`: the server answers and can write."""

    status: str


async def health(call: Call[NoParams, NoBody]) -> Health:
    """503 once the store is broken; the process is then about to end."""
    if call.services.engine.failure is not None:
        raise call.services.engine.failure
    return Health("ok")


async def info(call: Call[NoParams, NoBody]) -> Info:
    """See the route."""
    services = call.services
    return Info(
        version=services.version,
        protocol=VERSION,
        started_at=services.started_at,
        epoch=services.engine.epoch,
        store="sqlite",
        user=services.user,
        upload_limit=services.settings.upload_limit,
        runs={str(state): n for state, n in services.engine.cluster.counts.items()},
    )


async def openapi(call: Call[NoParams, NoBody]) -> Response:
    """Built when it is asked for: few servers ever are."""
    from moorage.server.openapi import document

    text = await asyncio.to_thread(lambda: msgspec.json.encode(document(call.services.version)))
    return Response(text, media_type="application/json")


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/health",
        summary="Whether the server works",
        handler=health,
        params=NoParams,
        body=NoBody,
        reply=Health,
        access=OPEN,
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/info",
        summary="What this server is",
        handler=info,
        params=NoParams,
        body=NoBody,
        reply=Info,
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        summary="This document",
        handler=openapi,
        params=NoParams,
        body=NoBody,
        media=("application/json",),
        access=OPEN,
    ),
)
