"""Replies that last: bytes from an asynchronous generator until it ends or the reader is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class CutOff(Exception):
    """Raised by a generator that cannot go on though there is more: the client must see a broken
    connection, not an end."""


class Stream(Response):
    """Sends chunks as they come; closes the generator as soon as the client disconnects, also
    while it waits for something that may never happen."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        self.chunks = chunks
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the response (ASGI)."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
            await self.chunks.aclose()

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        try:
            async for chunk in self.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except CutOff:
            return  # without the last, empty body, uvicorn closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Gone(Exception):
    """The client left before its answer was ready; nobody reads a reply."""


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """Wait for `answer`; it is cancelled, and Gone raised, when the client disconnects."""
    waiting = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise Gone
        return waiting.result()
    finally:
        for task in (waiting, leaving):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        if not waiting.done():
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
