"""A server that does not lead: it answers questions about the past from the database, and hands
everything else to the leader. Of runs it is the leader that knows what they wait for: it is asked
first, and where it does not answer soon, the database tells the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from moorage.server.app import Guard, assemble
from moorage.server.door import RETRY, turn_away
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.server.replies import http_reply
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

LEADER_PATIENCE = 2.0
"""Seconds that the leader has to tell of runs; it may be frozen."""
LEADER_SILENCE = 5.0
"""Seconds for which one that did not answer in time is not asked again: a list has many pages."""

Own = Callable[[str, str, bytes], bool]
"""Method, path, query: does this server answer by itself?"""


def standby(services: Services, peers: Peers, forward: Forwarder) -> ASGIApp:
    """The application of a standby that can read the database."""
    return Guard(Standby(assemble(services), peers, forward), services.loopback)


def blind(peers: Peers, forward: Forwarder, loopback: bool) -> ASGIApp:
    """The application of a server that has lost the database: only of itself it can speak."""
    return Guard(Standby(_lost, peers, forward, is_health), loopback)


async def _lost(scope: Scope, receive: Receive, send: Send) -> None:
    reply = http_reply(503, "this server has no connection to the database", RETRY)
    await reply(scope, receive, send)


class Standby:
    """Decides who answers; an ASGI application."""

    def __init__(
        self, own: ASGIApp, peers: Peers, forward: Forwarder, is_own: Own | None = None
    ) -> None:
        self._own = own
        self._peers = peers
        self._forward = forward
        self._is_own = is_own or is_of_the_past
        self._silent_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "websocket":
            await turn_away(WebSocket(scope, receive, send), self._peers.leader or "")
        elif not self._is_own(scope["method"], scope["path"], scope["query_string"]):
            await self._forward(scope, receive, send)
        elif not (is_of_runs(scope["path"]) and await self._told(scope, receive, send)):
            await self._own(scope, receive, send)

    async def _told(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Pass on what the leader says; False, and nothing was sent, where it says nothing."""
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        loop = asyncio.get_running_loop()
        if self._peers.leader is None or loop.time() < self._silent_until:
            return False
        try:
            async with asyncio.timeout(LEADER_PATIENCE):
                await self._forward(scope, receive, keep)
        except TimeoutError:
            self._silent_until = loop.time() + LEADER_SILENCE
            return False
        if not kept or kept[0]["status"] >= 500 or kept[-1].get("more_body", False):
            return False
        for message in kept:
            await send(message)
        return True


def is_health(method: str, path: str, query: bytes) -> bool:
    """Whether it is asked how this very server is."""
    return path == "/v1/health"


def is_of_runs(path: str) -> bool:
    """Whether what a standby tells there lacks something that the leader knows."""
    return path == "/v1/runs" or path.startswith("/v1/runs/")


def is_of_the_past(method: str, path: str, query: bytes) -> bool:
    """Whether a standby answers this by itself."""
    if (method, path) in _OWN:
        return True
    if (method, path) == ("GET", "/v1/events"):
        return parse_qs(query).get(b"follow", [b"0"]) == [b"0"]
    return method == "GET" and path.startswith("/v1/runs/") and path.count("/") == 3
