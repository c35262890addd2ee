"""uvicorn on a socket that is bound already, inside a loop and under signals that are ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes of one WebSocket message: a Hello names every claim that a node holds."""
LARGEST_HEAD = 512 * 1024
"""Bytes of a request before its body, more than come in one piece."""
GRACE = 1
"""Seconds that replies have to be finished in when the server stops."""


class Requests(HttpToolsProtocol):
    """One connection. The parser keeps what it has not understood yet, however long that gets, and
    nobody has shown a token by then: here it has an end, before the body and after it."""

    _kept = 0

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._kept += len(data)
        super().data_received(data)
        if self._kept > LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_headers_complete(self) -> None:
        """The parser let go of them."""
        self._kept = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body, which has limits of its own."""
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._kept = 0
        super().on_message_complete()


class Listener(uvicorn.Server):
    """Waits for `stop` where uvicorn would look at a flag ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until `stop` is set."""
        self.ready.set()
        await self.stop.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the process."""
        yield


def configured(application: ASGIApp, http: type[Requests] = Requests) -> uvicorn.Config:
    """What holds for every connection; `http` reads them."""
    return uvicorn.Config(
        application,
        http=http,
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=GRACE,
    )


@asynccontextmanager
async def serving(listener: Listener, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """It answers within the block."""
    work = asyncio.ensure_future(listener.serve(sockets=list(sockets)))
    ready = asyncio.ensure_future(listener.ready.wait())
    try:
        await asyncio.wait({work, ready}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        yield
    finally:
        ready.cancel()
        listener.stop.set()
        await work


@asynccontextmanager
async def listen(application: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Answer requests within the block."""
    async with serving(Listener(configured(application)), [listening]):
        yield
