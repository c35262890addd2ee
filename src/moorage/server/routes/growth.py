"""What keeps a server small and sound: collect, check, back up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from moorage.errors import Unavailable
from moorage.protocol.api import CheckReply, CollectReply
from moorage.server.checkup import check_store
from moorage.server.parameters import Flag
from moorage.server.retention import Growth
from moorage.server.stream import Stream
from moorage.server.table import AnyRoute, Call, NoBody, NoParams, Route
from moorage.store.backup import Backup
from moorage.store.sqlite import SqliteStore

QUICK = 1.0
"""A step's pause as a multiple of its length where somebody waits for the whole."""
SIZE_HEADER = "Moorage-Backup-Size"
"""About how many bytes will come."""
TAR = "application/x-tar"


class CollectParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to do it."""

    dry_run: Annotated[Flag, Meta(description="1: only say what would go")] = 0


class CheckParams(Struct, frozen=True, forbid_unknown_fields=True):
    """How thoroughly."""

    deep: Annotated[Flag, Meta(description="1: read all content and compare digests")] = 0


async def collect(call: Call[CollectParams, NoBody]) -> CollectReply:
    """Removes what the settings say is too old or too much; see `config.yml`."""
    growth = Growth(call.services)
    return await growth.collect(dry_run=bool(call.params.dry_run), rest=QUICK)


async def check(call: Call[CheckParams, NoBody]) -> CheckReply:
    """Changes nothing. The server goes on meanwhile; nothing is collected."""
    services = call.services
    async with services.engine.tidying:
        return await asyncio.to_thread(
            lambda: (
                check_store(
                    services.engine.store,
                    services.blobs,
                    services.engine.clock(),
                    deep=bool(call.params.deep),
                ).reply
            )
        )


async def back_up(call: Call[NoParams, NoBody]) -> Response:
    """A tar of a snapshot and all content that it names. The reply breaks off, without a proper
    end, where it cannot be completed."""
    services = call.services
    store = services.engine.store
    if not isinstance(store, SqliteStore):
        raise Unavailable(
            "this server keeps its data in PostgreSQL: back that up with pg_dump, content included"
        )
    workspace = store.file.path.parent
    backup = Backup(store.file.snapshot, services.blobs, workspace, services.version)
    pieces = _Pieces(backup, services.engine.clock())
    first = await asyncio.to_thread(pieces.next)
    reply = Stream(_all(first, pieces), TAR)
    reply.headers[SIZE_HEADER] = str(backup.size)
    return reply


class _Pieces:
    """The chunks of a backup, taken one by one in threads."""

    def __init__(self, backup: Backup, now: float) -> None:
        self._chunks = backup.chunks(now)

    def next(self) -> bytes:
        """The next chunk; empty at the end."""
        return next(self._chunks, b"")

    def close(self) -> None:
        """Let content be collected again."""
        self._chunks.close()


async def _all(first: bytes, pieces: _Pieces) -> AsyncGenerator[bytes, None]:
    taking: asyncio.Future[bytes] | None = None
    try:
        piece = first
        while piece:
            yield piece
            # Shielded: a thread cannot be cancelled, and has to be done before the close.
            taking = asyncio.ensure_future(asyncio.to_thread(pieces.next))
            piece = await asyncio.shield(taking)
    finally:
        if taking is not None and not taking.done():
            await asyncio.wait([taking])
        await asyncio.to_thread(pieces.close)


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
    Route(
        method="POST",
        path="/v1/check",
        summary="Prove the store",
        handler=check,
        params=CheckParams,
        body=NoBody,
        reply=CheckReply,
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/backup",
        summary="All that the server knows, as one file",
        handler=back_up,
        params=NoParams,
        body=NoBody,
        media=(TAR,),
        errors=(503,),
    ),
)
