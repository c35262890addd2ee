"""What answers requests while the role of a server changes."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from moorage.server.replies import http_reply

NO_LEADER = 1013
"""WebSocket close code of a server that does not lead; the reason is the leader's address."""
RETRY = {"Retry-After": "1"}
NOT_LEADING = "Moorage-Not-Leading"
"""On the reply of whoever does not lead: nothing was done, whatever was asked."""
NOTHING_DONE = {**RETRY, NOT_LEADING: "1"}


class Door:
    """One ASGI application for the listener; which one that is may change at any time. A request
    stays with the one that it began with."""

    def __init__(self) -> None:
        self.application: ASGIApp = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        await self.application(scope, receive, send)


async def closed(scope: Scope, receive: Receive, send: Send) -> None:
    """Nobody is here: begins, or ends."""
    if scope["type"] == "websocket":
        await turn_away(WebSocket(scope, receive, send), "")
    else:
        reply = http_reply(503, "this server is starting or stopping", NOTHING_DONE)
        await reply(scope, receive, send)


async def turn_away(socket: WebSocket, leader: str) -> None:
    """Tell an agent to go elsewhere: a close code is only seen after the upgrade."""
    await socket.accept()
    await socket.close(NO_LEADER, leader)
