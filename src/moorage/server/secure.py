"""The listener that other machines reach: TLS, and nothing that a stranger could hold up.

Whoever connects has shown nothing yet, so each step until a request is there has a deadline, and
handshakes that are under way have a number: the oldest gives way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from moorage.server.certificates import Certificates
from moorage.server.listener import Listener, Requests, configured, serving

HANDSHAKE_WITHIN = 8.0
HEAD_WITHIN = 30.0
"""Seconds for the head of a request, from its beginning, or from that of the connection."""
GREETINGS = 512
"""Handshakes under way at most."""
_SHUTDOWN_WITHIN = 2.0
_PAUSE = 0.5
"""Seconds after which a connection is taken again where the system has no room for one."""

_log = logging.getLogger(__name__)


class SecureRequests(Requests):
    """One connection; it may not dawdle with the head of a request."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is done (uvicorn's type is of an older asyncio)."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._end()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is here."""
        self._end()
        super().on_headers_complete()

    def _begin(self) -> None:
        if self._late is None:
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(HEAD_WITHIN, self.transport.abort)

    def _end(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            late.cancel()


class SecureListener(Listener):
    """Takes connections by itself: asyncio would take any number of slow handshakes."""

    def __init__(self, config: uvicorn.Config, certificates: Certificates) -> None:
        super().__init__(config)
        self._certificates = certificates
        self._accepting: list[asyncio.Task[None]] = []
        self._greetings: dict[asyncio.Task[None], socket.socket] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await self.lifespan.startup()
        self.servers: list[asyncio.Server] = []
        self._accepting = [asyncio.create_task(self._accept(one)) for one in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        tasks = [*self._accepting, *self._greetings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                _log.error("no connection can be taken: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._greetings) >= GREETINGS:
                next(iter(self._greetings)).cancel()
            greeting = asyncio.create_task(self._greet(connection))
            self._greetings[greeting] = connection
            greeting.add_done_callback(self._greeted)

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, TimeoutError):
            await loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._certificates.context(),
                ssl_handshake_timeout=HANDSHAKE_WITHIN,
                ssl_shutdown_timeout=_SHUTDOWN_WITHIN,
            )
            return
        connection.close()

    def _greeted(self, greeting: asyncio.Task[None]) -> None:
        connection = self._greetings.pop(greeting)
        if greeting.cancelled():
            connection.close()  # also where it had not begun
        elif (error := greeting.exception()) is not None:
            connection.close()
            _log.error("a connection could not be taken", exc_info=error)

    def _protocol(self) -> asyncio.Protocol:
        return SecureRequests(self.config, self.server_state, self.lifespan.state)


@asynccontextmanager
async def listen_secure(
    application: ASGIApp, sockets: Sequence[socket.socket], certificates: Certificates
) -> AsyncIterator[None]:
    """Answer requests within the block."""
    listener = SecureListener(configured(application, SecureRequests), certificates)
    async with serving(listener, sockets):
        yield
