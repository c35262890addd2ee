"""The event feed: pages, or server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from moorage.engine.feed import Feed, Follower
from moorage.errors import InvalidInput
from moorage.ids import RunId
from moorage.protocol.api import Event, EventPage
from moorage.server.parameters import LARGEST, Flag, Limit, Ref, Since
from moorage.server.replies import json_reply
from moorage.server.stream import Stream
from moorage.server.table import AnyRoute, Call, NoBody, Route

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that nothing between takes the stream for
dead."""


class EventFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events, and whether to go on."""

    since: Since | None = None
    run: Annotated[Ref, Meta(description="Only of this run (number or name)")] | None = None
    limit: Limit = 100
    last: Annotated[Limit | None, Meta(description="The newest so many instead, oldest first")] = (
        None
    )
    follow: Annotated[Flag, Meta(description="1: server-sent events without end")] = 0


async def events(call: Call[EventFilter, NoBody]) -> Response:
    """A stream goes on after `Last-Event-ID`, else after `since`, else with what comes next."""
    asked = call.params
    engine = call.services.engine
    run = None
    if asked.run is not None:
        run = RunId((await engine.view(partial(engine.history.summary, asked.run))).id)
    if asked.last is not None and not asked.follow:
        page = await engine.view(partial(engine.history.newest_events, asked.last, run))
        return json_reply(EventPage(page.events))
    if not asked.follow:
        find = partial(engine.history.events, since=asked.since or 0, run=run, limit=asked.limit)
        page = await engine.view(find)
        return json_reply(EventPage(page.events))
    since = _last_seen(call.request.headers.get("last-event-id"))
    since = asked.since if since is None else since
    follower = await engine.feed.follow(since, run)
    return Stream(_stream(engine.feed, follower), "text/event-stream")


def _last_seen(header: str | None) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and int(header) <= LARGEST):
        raise InvalidInput("Last-Event-ID is not the number of an event")
    return int(header)


async def _stream(feed: Feed, follower: Follower) -> AsyncGenerator[bytes, None]:
    with follower:
        yield b": events follow\n\n"
        while not feed.closed:
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    news = await follower.next()
            except TimeoutError:
                yield b": keep-alive\n\n"
                continue
            if news:
                yield b"".join(_frame(event, feed.encoded(event)) for event in news)


def _frame(event: Event, data: bytes) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), data)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/events",
        summary="What happened, oldest first",
        handler=events,
        params=EventFilter,
        body=NoBody,
        reply=EventPage,
        media=("text/event-stream",),
        errors=(404, 422),
    ),
)
