"""What keeps a server small and sound: collect, check, back up."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from moorage.protocol.api import CollectReply
from moorage.server.parameters import Flag
from moorage.server.retention import Growth
from moorage.server.table import AnyRoute, Call, NoBody, Route

QUICK = 0.5
"""A step's pause as a multiple of its length where somebody waits for the whole."""


class CollectParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to do it."""

    dry_run: Annotated[Flag, Meta(description="1: only say what would go")] = 0


async def collect(call: Call[CollectParams, NoBody]) -> CollectReply:
    """Removes what the settings say is too old or too much; see `config.yml`."""
    growth = Growth(call.services)
    return await growth.collect(dry_run=bool(call.params.dry_run), rest=QUICK)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/collect",
        summary="Remove what was kept for long enough",
        handler=collect,
        params=CollectParams,
        body=NoBody,
        reply=CollectReply,
        errors=(503,),
    ),
)
