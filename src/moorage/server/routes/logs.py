"""The output of jobs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from moorage.engine.links import NotConnected
from moorage.errors import NotFound, Unavailable
from moorage.ids import RunId
from moorage.server.output import Output, Wanted
from moorage.server.parameters import Count, Flag, Ref, Seconds
from moorage.server.stream import Stream, unless_gone
from moorage.server.table import AnyRoute, Call, NoBody, Route

OFFSET_HEADER = "Moorage-Log-Offset"
"""Where in the job's output the first byte of a reply lies."""
TEXT = "text/plain"


class LogParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which output, and which part of it."""

    ref: Ref
    job: Annotated[Count, Meta(description="Position in the run; default: the last")] | None = None
    attempt: Annotated[Count, Meta(description="Default: all, one after the other")] | None = None
    rank: Count = 0
    follow: Annotated[Flag, Meta(description="1: until the job has ended")] = 0
    since: Annotated[Seconds, Meta(description="Unix seconds; from the next line")] | None = None
    offset: Annotated[Count, Meta(description="Byte of the job's output to begin with")] = 0


async def logs(call: Call[LogParams, NoBody]) -> Response:
    """Raw bytes, as the job wrote them."""
    asked = call.params
    engine = call.services.engine
    run = RunId((await engine.view(partial(engine.history.summary, asked.ref))).id)
    if asked.rank and asked.rank >= (
        number := await engine.view(partial(engine.history.ranks, str(run)))
    ):
        has = "it runs on one node" if number == 1 else f"they are 0 to {number - 1}"
        raise NotFound(f"the job has no rank {asked.rank}: {has}")
    follow = bool(asked.follow)
    output = Output(
        engine,
        Wanted(run, asked.job, asked.rank, asked.attempt, asked.offset, asked.since, follow),
    )
    try:
        offset = await unless_gone(call.request, output.first())
    except NotConnected as error:
        if not follow:
            raise Unavailable(f"the output cannot be read now: {error}") from None
        offset = asked.offset
    reply = Stream(output.pages(), TEXT)
    reply.headers[OFFSET_HEADER] = str(offset)
    return reply


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/runs/{ref}/logs",
        summary="The output of a job, both streams in order",
        handler=logs,
        params=LogParams,
        body=NoBody,
        media=(TEXT,),
        errors=(404,),
    ),
)
