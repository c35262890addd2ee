"""Content: ask what is missing, upload, fetch. Disk work happens in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from moorage.errors import InvalidInput
from moorage.protocol.api import (
    FetchRequest,
    MissingReply,
    MissingRequest,
    PackReply,
    PartReply,
)
from moorage.server.parameters import Count
from moorage.server.stream import Stream
from moorage.server.table import (
    ANY_TOKEN,
    AnyRoute,
    Call,
    NoBody,
    NoParams,
    RawBody,
    Route,
    read_body,
)

BYTES = "application/octet-stream"


class BlobPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a blob."""

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="BLAKE3, hex")]


class PartParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a part of a large blob."""

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="BLAKE3, hex")]
    offset: Annotated[Count, Meta(description="Where the part begins")]
    size: Annotated[Count, Meta(description="Bytes of the whole blob")]


async def missing_blobs(call: Call[NoParams, MissingRequest]) -> MissingReply:
    """What is here is kept for the grace period from now on."""
    asked = call.body
    return await asyncio.to_thread(call.services.blobs.missing, asked.digests, asked.trees)


async def upload_pack(call: Call[NoParams, RawBody]) -> PackReply:
    """Durable when answered."""
    pack = await read_body(call.request)
    if not pack:
        raise InvalidInput("the body is empty: a pack has one blob at least")
    return PackReply(await asyncio.to_thread(call.services.blobs.add_pack, pack))


async def upload_part(call: Call[PartParams, RawBody]) -> PartReply:
    """Raw bytes, uncompressed."""
    asked = call.params
    data = await read_body(call.request)
    return await asyncio.to_thread(
        call.services.blobs.append_part, asked.digest, asked.offset, asked.size, data
    )


async def part_status(call: Call[BlobPath, NoBody]) -> PartReply:
    """From where to go on."""
    return await asyncio.to_thread(call.services.blobs.part, call.params.digest)


async def fetch_blobs(call: Call[NoParams, FetchRequest]) -> Response:
    """The first chunk is read before the reply begins, so that a missing blob is a 404."""
    pieces = await asyncio.to_thread(call.services.blobs.iter_pack, call.body.digests)
    first = await asyncio.to_thread(next, pieces, b"")
    return Stream(_rest(first, pieces), BYTES)


async def _rest(first: bytes, pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    piece = first
    while piece:
        yield piece
        piece = await asyncio.to_thread(next, pieces, b"")


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/blobs/missing",
        summary="Which of these blobs and trees does the server lack?",
        handler=missing_blobs,
        params=NoParams,
        body=MissingRequest,
        reply=MissingReply,
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/v1/blobs/packs",
        summary="Upload a pack of blobs",
        handler=upload_pack,
        params=NoParams,
        body=RawBody,
        reply=PackReply,
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/v1/blobs/fetch",
        summary="Download a pack of exactly these blobs",
        handler=fetch_blobs,
        params=NoParams,
        body=FetchRequest,
        media=(BYTES,),
        access=ANY_TOKEN,
        errors=(404, 422),
    ),
    Route(
        method="PUT",
        path="/v1/blobs/{digest}",
        summary="Upload a part of a large blob",
        handler=upload_part,
        params=PartParams,
        body=RawBody,
        body_optional=True,
        reply=PartReply,
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/v1/blobs/{digest}/part",
        summary="How much of a large blob is here",
        handler=part_status,
        params=BlobPath,
        body=NoBody,
        reply=PartReply,
    ),
)
