"""What the server is."""

from __future__ import annotations

import asyncio
from typing import get_args

import msgspec
from msgspec import Struct
from starlette.responses import Response

from moorage.protocol import VERSION
from moorage.protocol.api import COUNTED, FINAL_STATES, Info, Role, RunState
from moorage.server.services import Services
from moorage.server.table import OPEN, AnyRoute, Call, NoBody, NoParams, Route

LIVE_STATES = tuple(state for state in get_args(RunState) if state not in FINAL_STATES)


class Health(Struct, frozen=True):
    """`ok`: the server answers, and can write if it is the leader."""

    status: str
    role: Role = "leader"


async def health(call: Call[NoParams, NoBody]) -> Health:
    """503 once the store is broken; the process is then about to end."""
    if call.services.engine.failure is not None:
        raise call.services.engine.failure
    return Health("ok", call.services.role)


async def info(call: Call[NoParams, NoBody]) -> Info:
    """See the route."""
    services = call.services
    peers = services.peers
    leads = services.role == "leader"
    return Info(
        version=services.version,
        protocol=VERSION,
        started_at=services.started_at,
        epoch=services.engine.epoch if leads or peers is None else peers.epoch,
        store="sqlite" if peers is None else "postgresql",
        user=services.user,
        upload_limit=services.settings.upload_limit,
        runs=await _live(services),
        role=services.role,
        database=services.database,
        servers=[] if peers is None else peers.views(),
    )


async def _live(services: Services) -> dict[str, int]:
    """Live runs by state; only the leader has counted them."""
    if services.role == "leader":
        return {str(state): n for state, n in services.engine.cluster.counts.items()}

    def counted() -> dict[str, int]:
        store = services.admission.store
        asked = {state: {"state": state, "most": COUNTED} for state in LIVE_STATES}
        return {state: store.read("count_state_runs", asked[state])[0]["total"] for state in asked}

    return await services.engine.view(counted)


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
