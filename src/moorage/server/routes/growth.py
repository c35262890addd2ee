"""What keeps a server small and sound: collect, check, back up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from moorage.protocol.api import CheckReply, CollectReply, Told
from moorage.server.checkup import check_store
from moorage.server.lasting import LINES, Gauge, abandonable, last, line, reply_to, settled
from moorage.server.parameters import Flag
from moorage.server.retention import Growth
from moorage.server.snapshots import snapshot_of
from moorage.server.stream import Stream, unless_gone
from moorage.server.table import AnyRoute, Call, NoBody, Route
from moorage.store.backup import Backup
from moorage.store.telling import Tell

QUICK = 1.0
"""A step's pause as a multiple of its length where somebody waits for the whole."""
SIZE_HEADER = "Moorage-Backup-Size"
"""About how many bytes will come."""
TAR = "application/x-tar"
BYTES = "application/octet-stream"

Lines = Annotated[Flag, Meta(description="1: lines of progress, the last with the reply")]


class CollectParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to do it."""

    dry_run: Annotated[Flag, Meta(description="1: only say what would go")] = 0
    progress: Lines = 0


class CheckParams(Struct, frozen=True, forbid_unknown_fields=True):
    """How thoroughly."""

    deep: Annotated[Flag, Meta(description="1: read all content and compare digests")] = 0
    progress: Lines = 0


class BackupParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to tell how far it is."""

    progress: Annotated[Flag, Meta(description="1: lines of progress before the file")] = 0


async def collect(call: Call[CollectParams, NoBody]) -> Response:
    """Removes what the settings say is too old or too much; see `config.yml`. It ends when the
    client leaves."""
    growth = Growth(call.services)
    dry_run = bool(call.params.dry_run)

    async def work(tell: Tell) -> CollectReply:
        return await growth.collect(dry_run=dry_run, rest=QUICK, tell=tell)

    return await reply_to(call.request, work, progress=bool(call.params.progress))


async def check(call: Call[CheckParams, NoBody]) -> Response:
    """Changes nothing. The server goes on meanwhile; nothing is collected. It ends when the client
    leaves."""
    services = call.services
    deep = bool(call.params.deep)

    def checked(tell: Tell) -> CheckReply:
        now = services.engine.clock()
        return check_store(services.engine.store, services.blobs, now, deep=deep, tell=tell).reply

    async def work(tell: Tell) -> CheckReply:
        async with services.engine.tidying:
            return await abandonable(checked, tell)

    return await reply_to(call.request, work, progress=bool(call.params.progress))


async def back_up(call: Call[BackupParams, NoBody]) -> Response:
    """A tar of a snapshot and all content that it names. The reply breaks off, without a proper
    end, where it cannot be completed. With `progress`, lines until the snapshot is made; the one
    with `size` is the last before the tar."""
    services = call.services
    snapshot = snapshot_of(services.engine.store)
    backup = Backup(snapshot, services.blobs, services.blobs.directory, services.version)
    pieces = _Pieces(backup, services.engine.clock())
    if call.params.progress:
        return Stream(_told(pieces), BYTES)
    try:
        first = await unless_gone(call.request, settled(pieces.next, pieces.gauge.end))
    except BaseException:
        await settled(pieces.close)
        raise
    reply = Stream(_all(first, pieces), TAR)
    reply.headers[SIZE_HEADER] = str(backup.size)
    return reply


class _Pieces:
    """The chunks of a backup, taken one by one in threads."""

    def __init__(self, backup: Backup, now: float) -> None:
        self.gauge = Gauge()
        self._backup = backup
        self._chunks = backup.chunks(now, self.gauge.tell)

    @property
    def size(self) -> int:
        """About how many bytes there are, once the first chunk was taken."""
        return self._backup.size

    def next(self) -> bytes:
        """The next chunk; empty at the end."""
        return next(self._chunks, b"")

    def close(self) -> None:
        """Let content be collected again."""
        self._chunks.close()


async def _told(pieces: _Pieces) -> AsyncGenerator[bytes, None]:
    taking = asyncio.ensure_future(settled(pieces.next, pieces.gauge.end))
    try:
        async for beat in pieces.gauge.until(taking):
            yield beat
        if taking.exception() is not None:
            yield line(last(taking))
            return
        yield line(Told(size=pieces.size))
        async with aclosing(_all(taking.result(), pieces)) as rest:
            async for piece in rest:
                yield piece
    finally:
        taking.cancel()
        await asyncio.wait([taking])
        await settled(pieces.close)


async def _all(first: bytes, pieces: _Pieces) -> AsyncGenerator[bytes, None]:
    try:
        piece = first
        while piece:
            yield piece
            piece = await settled(pieces.next)
    finally:
        await settled(pieces.close)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/collect",
        summary="Remove what was kept for long enough",
        handler=collect,
        params=CollectParams,
        body=NoBody,
        reply=CollectReply,
        media=(LINES,),
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
        media=(LINES,),
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/backup",
        summary="All that the server knows, as one file",
        handler=back_up,
        params=BackupParams,
        body=NoBody,
        media=(TAR, BYTES),
        errors=(503,),
    ),
)
