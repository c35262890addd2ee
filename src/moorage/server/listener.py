"""uvicorn on a socket that is bound already, inside a loop and under signals that are ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes of one WebSocket message: a Hello names every claim that a node holds."""
GRACE = 1
"""Seconds that replies have to be finished in when the server stops."""


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


@asynccontextmanager
async def listen(application: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Answer requests within the block."""
    config = uvicorn.Config(
        application,
        http="h11",
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
    listener = Listener(config)
    serving = asyncio.ensure_future(listener.serve(sockets=[listening]))
    ready = asyncio.ensure_future(listener.ready.wait())
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield
    finally:
        ready.cancel()
        listener.stop.set()
        await serving
