"""A store that can only be reached through the server, at an address of this machine: each
connection to a port on loopback becomes a WebSocket, whose other end the server connects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from moorage.protocol.relays import PIECE

LOOPBACK = "127.0.0.1"
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries to reach the server; the last one is repeated."""
PATIENCE = 60.0
"""Seconds for which a connection waits for the server: a restart then fails no request."""

Dial = Callable[[], Awaitable[ClientConnection]]
"""OSError or WebSocketException where the server cannot be reached now."""


class Relay:
    """One port. Who connects must have the store's keys: here nothing is asked for."""

    def __init__(self, dial: Dial, patience: float = PATIENCE) -> None:
        self._dial = dial
        self._patience = patience
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        """Set while nobody is connected."""
        self.idle.set()

    async def listen(self, port: int = 0) -> int:
        """Begin; the port, another one where that which is wished for is taken. OSError."""
        try:
            self._server = await asyncio.start_server(self._serve, LOOPBACK, port, limit=PIECE)
        except OSError:
            if not port:
                raise
            self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=PIECE)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.idle.clear()
        try:
            server = await self._reached()
            if server is not None:
                async with server:
                    await splice(server, reader, writer)
        except (OSError, WebSocketException):
            pass  # whoever asked sees its connection end, and asks again
        except asyncio.CancelledError:
            pass  # nobody waits for this task: it ends as the others do
        finally:
            self._open.discard(task)
            if not self._open:
                self.idle.set()
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _reached(self) -> ClientConnection | None:
        """A connection to the server; None where none can be had in time."""
        loop = asyncio.get_running_loop()
        since, tries = loop.time(), 0
        while True:
            with suppress(OSError, WebSocketException, TimeoutError):
                return await self._dial()
            if loop.time() - since > self._patience:
                return None
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1


async def splice(
    server: ClientConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass bytes on until either side has ended."""
    ways = [
        asyncio.ensure_future(_inward(server, writer)),
        asyncio.ensure_future(_outward(server, reader)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _inward(server: ClientConnection, writer: asyncio.StreamWriter) -> None:
    """Returns when the server's side is gone."""
    with suppress(ConnectionClosed, OSError):
        async for data in server:
            writer.write(data if isinstance(data, bytes) else data.encode())
            await writer.drain()


async def _outward(server: ClientConnection, reader: asyncio.StreamReader) -> None:
    """Returns when this side has closed."""
    with suppress(ConnectionClosed, OSError):
        while data := await reader.read(PIECE):
            await server.send(data)
