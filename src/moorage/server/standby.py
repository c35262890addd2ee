"""A server that does not lead: it answers questions about the past from the database, and hands
everything else to the leader."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from moorage.server.app import Guard, assemble
from moorage.server.door import turn_away
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.server.services import Services

_OWN = frozenset(
    {
        ("GET", "/v1/health"),
        ("GET", "/v1/info"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/runs"),
        ("POST", "/v1/blobs/fetch"),
    }
)


def standby(services: Services, peers: Peers, forward: Forwarder) -> ASGIApp:
    """The application of a standby that can read the database."""
    return Guard(Standby(assemble(services), peers, forward), services.loopback)


def blind(peers: Peers, forward: Forwarder, loopback: bool) -> ASGIApp:
    """The application of a server that has lost the database."""
    return Guard(Standby(forward, peers, forward), loopback)


class Standby:
    """Decides who answers; an ASGI application."""

    def __init__(self, own: ASGIApp, peers: Peers, forward: Forwarder) -> None:
        self._own = own
        self._peers = peers
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "websocket":
            await turn_away(WebSocket(scope, receive, send), self._peers.leader or "")
        elif is_own(scope["method"], scope["path"], scope["query_string"]):
            await self._own(scope, receive, send)
        else:
            await self._forward(scope, receive, send)


def is_own(method: str, path: str, query: bytes) -> bool:
    """Whether a standby answers this by itself."""
    if (method, path) in _OWN:
        return True
    if (method, path) == ("GET", "/v1/events"):
        return parse_qs(query).get(b"follow", [b"0"]) == [b"0"]
    return method == "GET" and path.startswith("/v1/runs/") and path.count("/") == 3
