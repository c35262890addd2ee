"""Requests that only the leader can answer, carried to it and back as bytes, as they come.

A request is sent again only where the first try cannot have done anything: nobody took the
connection, or whoever did said that it does not lead. What is unknown is the client's to repeat,
which has the request's id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.loopback import stranger
from moorage.server.door import NOT_LEADING, NOTHING_DONE, RETRY
from moorage.server.peers import Peers
from moorage.server.replies import http_reply
from moorage.trust import context, in_the_clear

HOP = "moorage-hop"
"""On a forwarded request: whoever gets it and does not lead must not forward it again."""
PATIENCE = 15.0
"""Seconds that a request waits for a leader."""
_CONNECT_TIMEOUT = 4.0
_KEPT_WHOLE = 1024 * 1024
"""Bytes up to which a body is held until it was taken, so that it can be sent again."""
_CONNECTIONS = 1000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OF_THE_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer"),
        *(b"host", b"expect"),
    )
)


class _NotTaken(Exception):
    """The leader that was asked did nothing: another one may be."""


class _Lost(Exception):
    """Nobody knows what became of the request."""


class Forwarder:
    """An ASGI application for HTTP."""

    def __init__(self, peers: Peers, here: ASGIApp, authority: str = "") -> None:
        """`here` answers where this server came to lead while a request waited; `authority`
        (PEM): whose certificates other servers show."""
        self._peers = peers
        self._here = here
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=20,
            keepalive_expiry=30.0,
            network_backend=_Careful(),
            ssl_context=context(authority),
        )

    async def close(self) -> None:
        """Close the connections to other servers."""
        await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if HOP in Headers(scope=scope):
            reply = http_reply(503, "this server does not lead", NOTHING_DONE)
            await reply(scope, receive, send)
            return
        call = _Call(scope, receive, send)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            left = deadline - asyncio.get_running_loop().time()
            leader = await self._peers.until_leader(left) if left > 0 else None
            if leader is None:
                await call.refuse("no server leads at present", NOTHING_DONE)
                return
            if leader == self._peers.own:
                await self._here(scope, call.replay, send)
                return
            try:
                await self._through(call, leader)
            except _NotTaken:
                self._peers.doubt(leader)
                if call.can_repeat:
                    continue
                await call.refuse("the server that led does so no longer", NOTHING_DONE)
            except _Lost as error:
                self._peers.doubted.set()
                await call.refuse(str(error), RETRY)
            return

    async def _through(self, call: _Call, leader: str) -> None:
        """One try, until it is over, the client has gone or another server leads."""
        work = asyncio.ensure_future(call.exchange(self._pool, leader))
        ends = [
            asyncio.ensure_future(call.until_gone()),
            asyncio.ensure_future(self._peers.until_replaced(leader)),
        ]
        try:
            await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not ends[0].done():
                raise _Lost("another server leads by now")
        finally:
            for task in (work, *ends):
                task.cancel()
            results = await asyncio.gather(work, *ends, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]


class _Call:
    """One request on its way, and how far it came."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body = bytearray()
        self._read = False
        """Something of the body has come."""
        self._complete = False
        """All of it has."""
        self._cut = False
        """More came than is kept."""
        self._taken = asyncio.Event()
        """Nothing more of the body is to be read: from now on the client can only leave."""
        self._replying = False

    @property
    def can_repeat(self) -> bool:
        """Whether the request is still here as a whole, and nothing was answered."""
        whole = self._complete or not self._read
        return whole and not self._cut and not self._replying

    async def replay(self) -> Message:
        """The ASGI `receive` of an application that takes the request over."""
        if self._read and not self._cut:
            self._read = False
            body = bytes(self._body)
            return {"type": "http.request", "body": body, "more_body": not self._complete}
        return await self._receive()

    async def refuse(self, why: str, headers: dict[str, str]) -> None:
        """Answer that it did not work; a reply that has begun is left without an end."""
        if not self._replying:
            await http_reply(503, why, headers)(self._scope, self._receive, self._send)

    async def until_gone(self) -> None:
        """Wait until the client has gone."""
        await self._taken.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def exchange(self, pool: httpcore2.AsyncConnectionPool, leader: str) -> None:
        """Send it, and pass the reply on. _NotTaken, _Lost."""
        if in_the_clear(leader):
            raise _NotTaken("it has no TLS")
        request = httpcore2.Request(
            self._scope["method"],
            self._url(leader),
            headers=[*self._headers(leader)],
            content=self._content(),
            extensions={"timeout": {"connect": _CONNECT_TIMEOUT, "pool": PATIENCE}},
        )
        try:
            response = await pool.handle_async_request(request)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, _Stranger) as error:
            raise _NotTaken(str(error)) from None
        except httpcore2.PoolTimeout:
            raise _Lost("too many requests are passed on by this server: ask another") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, _Gone) as error:
            raise _Lost(f"the leader was lost before it answered ({error})") from None
        self._taken.set()
        try:
            if any(name.lower() == NOT_LEADING.lower().encode() for name, _ in response.headers):
                raise _NotTaken("it does not lead")
            await self._pass_on(response)
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise _Lost(str(error)) from None
        finally:
            await response.aclose()

    async def _pass_on(self, response: httpcore2.Response) -> None:
        kept = [pair for pair in response.headers if pair[0].lower() not in _OF_THE_HOP]
        self._replying = True
        start = {"type": "http.response.start", "status": response.status, "headers": kept}
        await self._send(start)
        async for chunk in response.aiter_stream():
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _url(self, leader: str) -> httpcore2.URL:
        """Put together from parts: what a client sends as path is no part of a host's name."""
        parts = urlsplit(leader)
        query: bytes = self._scope["query_string"]
        return httpcore2.URL(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port,
            target=self._scope["raw_path"] + (b"?" + query if query else b""),
        )

    def _headers(self, leader: str) -> Iterable[tuple[bytes, bytes]]:
        yield b"Host", urlsplit(leader).netloc.encode()
        yield HOP.encode(), b"1"
        for name, value in self._scope["headers"]:
            if name not in _OF_THE_HOP:
                yield name, value
        if b"content-length" not in dict(self._scope["headers"]) and self._has_body():
            yield b"Transfer-Encoding", b"chunked"

    def _has_body(self) -> bool:
        return b"transfer-encoding" in dict(self._scope["headers"])

    async def _content(self) -> AsyncIterator[bytes]:
        """The body: what was kept of it, then what is still to come."""
        if self._body:
            yield bytes(self._body)
        while not self._complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone("the client left")
            chunk: bytes = message.get("body", b"")
            self._read = True
            self._complete = not message.get("more_body", False)
            self._keep(chunk)
            if chunk:
                yield chunk
        self._taken.set()

    def _keep(self, chunk: bytes) -> None:
        if self._cut or len(self._body) + len(chunk) > _KEPT_WHOLE:
            self._cut = True
            self._body.clear()
        else:
            self._body += chunk


class _Gone(Exception):
    """The client left before all of its request had come."""


class _Stranger(Exception):
    """The leader's port belongs to another user by now."""


class _Careful(httpcore2.AsyncNetworkBackend):
    """Connects, but tells no token to another user of this machine."""

    def __init__(self) -> None:
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(self, host: str, *args: Any, **kwargs: Any) -> Any:
        """See `httpcore2.AsyncNetworkBackend`. _Stranger."""
        stream = await self._network.connect_tcp(host, *args, **kwargs)
        if host in _LOOPBACK:
            why = stranger(stream.get_extra_info("socket"))
            if why is not None:
                await stream.aclose()
                raise _Stranger(why)
        return stream
