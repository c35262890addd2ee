"""Two WebSockets made one: what a client waits for until the agent dials, and the bytes between.

Nothing is kept here but one message for each direction: the next is taken from one side when the
other has room, so that a slow reader slows its writer and nobody else.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

NORMAL = 1000


class Meeting:
    """One client waits for one agent, which says that it came, and stays until all is over."""

    def __init__(self, node: str) -> None:
        self.node = node
        """The only one that may come."""
        self.came: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()


class Meetings:
    """All that wait, by an id that only the node is told."""

    def __init__(self) -> None:
        self._waiting: dict[str, Meeting] = {}

    def expect(self, node: str) -> tuple[str, Meeting]:
        """A new one; to be dropped by `end`."""
        number = secrets.token_urlsafe(16)
        meeting = self._waiting[number] = Meeting(node)
        return number, meeting

    def end(self, number: str) -> None:
        """Nobody waits any more, or the agent may go."""
        meeting = self._waiting.pop(number, None)
        if meeting is not None:
            meeting.over.set()

    def find(self, number: str) -> Meeting | None:
        """The one that an agent may still join."""
        meeting = self._waiting.get(number)
        return None if meeting is None or meeting.came.done() else meeting


async def splice(one: WebSocket, other: WebSocket) -> None:
    """Pass messages on in both directions until either side has ended; then both have."""
    ways = [asyncio.ensure_future(_copy(one, other)), asyncio.ensure_future(_copy(other, one))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await asyncio.gather(close(one), close(other))


async def _copy(source: WebSocket, target: WebSocket) -> None:
    with suppress(WebSocketDisconnect, KeyError, RuntimeError):  # either is gone, or says no bytes
        while True:
            await target.send_bytes(await source.receive_bytes())


async def close(socket: WebSocket, code: int = NORMAL, reason: str = "") -> None:
    """Close it, unless it is gone."""
    if socket.application_state is WebSocketState.DISCONNECTED:
        return
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason)
