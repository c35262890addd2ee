"""How the agent connects to a server: never to another user's, never without its token."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

from moorage.agent.uplink.addresses import LOOPBACK, Addresses, websocket_url
from moorage.loopback import stranger
from moorage.protocol import streams

LARGEST = 16 * 1024 * 1024
"""Bytes of a message of a stream."""
_TIMEOUT = 10.0
_PINGS = 20.0
"""Seconds between two."""


async def near(url: str, owner: int | None) -> socket.socket | None:
    """A connection to a server on this machine, once it is known to be no other user's, who
    could run jobs here otherwise; None for a server elsewhere. OSError."""
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return None
    place = (parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80))
    found = await asyncio.to_thread(socket.create_connection, place, _TIMEOUT)
    reason = stranger(found, owner)
    if reason is not None:
        found.close()
        raise ConnectionRefusedError(f"{reason}, and is not told the token")
    found.setblocking(False)
    return found


@asynccontextmanager
async def unless(event: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """A block that is given up with TimeoutError where `event` comes before its end."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        waiting = asyncio.create_task(event)
        waiting.add_done_callback(
            lambda done: None if done.cancelled() or left else limit.reschedule(loop.time())
        )
        left = False
        try:
            yield
        finally:
            left = True
            waiting.cancel()


async def dial_stream(addresses: Addresses, token: Path, number: str) -> ClientConnection:
    """Join the stream with that number at the present server. OSError, WebSocketException."""
    return await dial(addresses, token, streams.AGENT_PATH.format(id=number))


async def dial(
    addresses: Addresses, token: Path, way: str, *, pings: bool = True
) -> ClientConnection:
    """A WebSocket to the present server, at this path of it. `pings`: ask now and then whether the
    server is there. OSError, WebSocketException."""
    parts = urlsplit(websocket_url(addresses.present))
    path = parts.path.removesuffix("/v1/agent") + way
    url = parts._replace(path=path).geturl()
    trusted = addresses.trust(url)
    here = await near(url, addresses.owner)
    return await connect(
        url,
        sock=here,
        ssl=trusted,
        additional_headers={"Authorization": f"Bearer {token.read_text().strip()}"},
        compression=None,
        max_size=LARGEST,
        close_timeout=1,
        ping_interval=_PINGS if pings else None,
        proxy=None if here else True,
    )
