"""Work that lasts, done in threads: whoever waits for it is told how far it is, which also keeps
the connection alive, and it ends soon after nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from moorage.errors import MoorageError, Unavailable
from moorage.protocol.api import Progress, Told
from moorage.server.replies import error_body, json_reply
from moorage.server.stream import Stream, unless_gone
from moorage.store.telling import Tell, nobody

LINES = "application/x-ndjson"
BEAT = 0.5
"""Seconds between two lines."""

T = TypeVar("T")
Work = Callable[[Tell], Awaitable[T]]
_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Raised in a thread whose work nobody waits for any more."""


class Gauge:
    """Where a thread says how far it is, until it is told that nobody listens."""

    def __init__(self) -> None:
        self._latest = Progress("")
        self._over = threading.Event()

    def tell(self, what: str, done: int, total: int) -> None:
        """See `Tell`. Abandoned after `end`."""
        if self._over.is_set():
            raise Abandoned
        self._latest = Progress(what, done, total)

    def end(self) -> None:
        """Nobody waits any more."""
        self._over.set()

    async def until(self, done: asyncio.Future[T]) -> AsyncGenerator[bytes, None]:
        """A line now and then, until `done` is."""
        while not (await asyncio.wait([done], timeout=BEAT))[0]:
            yield line(Told(progress=self._latest))


async def settled(work: Callable[[], T], end: Callable[[], None] | None = None) -> T:
    """Call it in a thread. Where this is cancelled, `end` is called, and it is over only when the
    thread is: what was locked for it stays locked until then."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if end is not None:
            end()
        await asyncio.wait([running])
        with suppress(asyncio.CancelledError):
            running.exception()
        raise


async def abandonable(work: Callable[[Tell], T], tell: Tell = nobody) -> T:
    """The same for work that tells how far it is, and so can be ended."""
    gauge = Gauge()

    def told(what: str, done: int, total: int) -> None:
        gauge.tell(what, done, total)
        tell(what, done, total)

    return await settled(lambda: work(told), gauge.end)


async def reply_to(request: Request, work: Work[Struct], *, progress: bool) -> Response:
    """The answer as one document, or as lines of which the last has it. The work is cancelled
    when the client leaves."""
    if progress:
        return Stream(_lines(work), LINES)
    return json_reply(await unless_gone(request, work(nobody)))


async def _lines(work: Work[Struct]) -> AsyncGenerator[bytes, None]:
    gauge = Gauge()
    working = asyncio.ensure_future(work(gauge.tell))
    try:
        async for beat in gauge.until(working):
            yield beat
        yield line(last(working))
    finally:
        working.cancel()
        await asyncio.wait([working])


def last(done: asyncio.Future[Any]) -> Told:
    """What came of it."""
    error = done.exception()
    if error is None:
        return Told(reply=msgspec.Raw(msgspec.json.encode(done.result())))
    if not isinstance(error, MoorageError):
        _log.error("work for a request failed", exc_info=error)
        error = Unavailable(f"internal error: {error!r}")
    return Told(error=error_body(error))


def line(told: Told) -> bytes:
    """As it is sent."""
    return msgspec.json.encode(told) + b"\n"
