"""A store that can only be reached through the server, at an address of this machine: each
connection to a port on loopback becomes a WebSocket, whose other end the server connects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException
from websockets.protocol import State

from moorage.data.wsframes import Frames

LOOPBACK = "127.0.0.1"
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries to reach the server; the last one is repeated."""
PATIENCE = 60.0
"""Seconds for which a connection waits for the server: a restart then fails no request."""
KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 2),
)
"""Seconds without a word, then between questions; how many go unanswered before it is gone."""

Dial = Callable[[], Awaitable[ClientConnection]]
"""OSError or WebSocketException where the server cannot be reached now."""


class Relay:
    """One port. Who connects must have the store's keys: here nothing is asked for."""

    def __init__(self, dial: Dial, patience: float = PATIENCE) -> None:
        self._dial = dial
        self._patience = patience
        self._server: asyncio.Server | None = None
        self._open: set[_Near] = set()
        self.idle = asyncio.Event()
        """Set while nobody is connected."""
        self.idle.set()

    async def listen(self, port: int = 0) -> int:
        """Begin; the port, another one where that which is wished for is taken. OSError."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Near(self), LOOPBACK, port)
        except OSError:
            if not port:
                raise
            self._server = await loop.create_server(lambda: _Near(self), LOOPBACK, 0)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for near in list(self._open):
            near.abort()  # one that reads nothing would be waited for
        await self.idle.wait()

    def came(self, near: _Near) -> None:
        """Somebody connects."""
        self._open.add(near)
        self.idle.clear()

    def left(self, near: _Near) -> None:
        """They have hung up."""
        self._open.discard(near)
        if not self._open:
            self.idle.set()

    async def reached(self) -> ClientConnection | None:
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


def _watch(server: socket.socket | None) -> None:
    """Let the kernel ask now and then whether the server's machine is there: a read that waits for
    one that vanished ends then, and is tried again, long before rclone gives it up."""
    if server is not None and server.family in (socket.AF_INET, socket.AF_INET6):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            server.setsockopt(socket.IPPROTO_TCP, option, value)


class _Near(asyncio.Protocol):
    """Who asked for something of the store. Bytes pass from one transport to the other as they
    come; a side that does not take them keeps the other from being read."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.Transport | None = None
        self._far = Frames(self._received, self.close, self._hold)
        self._opening: asyncio.Task[None] | None = None
        self._early: list[bytes] | None = []
        """What came before there was anybody to send it to: before Python 3.11.3 a transport that
        is paused at once reads nevertheless."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reach the server; what is asked meanwhile waits in the socket."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()
        self._relay.came(self)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        assert self._transport is not None
        server = await self._relay.reached()
        if server is None:
            self.close()  # whoever asked sees its connection end, and asks again
        elif server.state is not State.OPEN or self._transport.is_closing():
            server.transport.close()
            self.close()
        else:  # a store says nothing before it is asked, so nothing has come yet
            _watch(server.transport.get_extra_info("socket"))
            self._far.begin(server.transport)
            early, self._early = self._early, None
            for data in early or ():
                self._far.send(data)
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._early is not None:
            self._early.append(data)
            assert self._transport is not None
            self._transport.resume_reading()  # else it takes itself for paused, and reads on
            self._transport.pause_reading()
        else:
            self._far.send(data)

    def _received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _hold(self, held: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if held else self._transport.resume_reading)()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._far.read(False)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._far.read(True)

    def close(self) -> None:
        """Hang up on both sides."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """The same, whatever has not been read yet."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._opening is not None:
            self._opening.cancel()
        self._far.close()
        self._relay.left(self)
