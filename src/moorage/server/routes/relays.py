"""The WebSocket of relays: nodes and clients elsewhere reach the embedded store through it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from moorage.errors import Forbidden, Unavailable
from moorage.protocol.relays import AWAY, PATH, PIECE
from moorage.server import auth
from moorage.server.replies import error_reply
from moorage.server.services import Services
from moorage.server.splice import close
from moorage.server.table import ANY_TOKEN


def routes(services: Services) -> list[BaseRoute]:
    """One; who has no keys of the store can do nothing with it."""

    async def serve(socket: WebSocket) -> None:
        try:
            owner = await services.admission.authenticate(socket.headers.get("authorization"))
            auth.authorize(owner, ANY_TOKEN)
        except (Forbidden, Unavailable) as error:
            await socket.send_denial_response(error_reply(error))
            return
        await socket.accept()
        try:
            reader, writer = await services.object_store.connect()
        except (Unavailable, OSError) as error:
            await close(socket, AWAY, str(error)[:120])
            return
        try:
            await _splice(socket, reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    return [WebSocketRoute(PATH, serve)]


async def _splice(
    socket: WebSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Until either side is gone."""
    ways = [
        asyncio.ensure_future(_inward(socket, writer)),
        asyncio.ensure_future(_outward(reader, socket)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await close(socket)


async def _inward(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    """Returns when the other end is gone; an empty message says that it sends no more."""
    with suppress(WebSocketDisconnect, KeyError, RuntimeError, OSError):
        while True:
            if data := await socket.receive_bytes():
                writer.write(data)
                await writer.drain()
            elif writer.can_write_eof():
                writer.write_eof()


async def _outward(reader: asyncio.StreamReader, socket: WebSocket) -> None:
    """Returns when the store has closed."""
    with suppress(WebSocketDisconnect, RuntimeError, OSError):
        while data := await reader.read(PIECE):
            await socket.send_bytes(data)
