"""What callers meet while a server begins, ends, or changes its role."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message, Scope
from starlette.websockets import WebSocket

from moorage.server.door import NO_LEADER, NOT_LEADING, Door, turn_away
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.server.standby import blind, is_of_the_past

LEADER = "http://127.0.0.1:7"


async def _said(application: Any, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        kind = "websocket.connect" if scope["type"] == "websocket" else "http.request"
        return {"type": kind, "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


def _request(path: str, *headers: tuple[bytes, bytes]) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
    }


def _socket() -> Scope:
    return {"type": "websocket", "path": "/v1/agent", "headers": [], "subprotocols": []}


def test_a_closed_door_says_that_nothing_was_done() -> None:
    start, _ = asyncio.run(_said(Door(), _request("/v1/runs")))
    assert start["status"] == 503
    headers = {name.decode().lower(): value for name, value in start["headers"]}
    assert headers[NOT_LEADING.lower()] == b"1"
    assert headers["retry-after"] == b"1"
    accepted, closing = asyncio.run(_said(Door(), _socket()))
    assert accepted["type"] == "websocket.accept"
    assert (closing["code"], closing["reason"]) == (NO_LEADER, "")


def test_an_agent_is_sent_to_the_leader() -> None:
    async def away(scope: Scope, receive: Any, send: Any) -> None:
        await turn_away(WebSocket(scope, receive, send), LEADER)

    _, closing = asyncio.run(_said(away, _socket()))
    assert (closing["code"], closing["reason"]) == (NO_LEADER, LEADER)


def test_a_request_stays_with_what_it_began_with() -> None:
    async def main() -> None:
        door = Door()
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def first(scope: Scope, receive: Any, send: Any) -> None:
            inside.set()
            await go_on.wait()
            await send({"type": "first"})

        door.application = first
        asked = asyncio.ensure_future(_said(door, _request("/")))
        await inside.wait()
        door.application = Door().application
        go_on.set()
        assert await asked == [{"type": "first"}]

    asyncio.run(main())


def test_without_the_database_a_server_speaks_of_itself_alone() -> None:
    async def main() -> None:
        peers = Peers(LEADER)
        forward = Forwarder(peers, Door())
        try:
            alone = blind(peers, forward, loopback=True)
            start, body = await _said(alone, _request("/v1/health"))
            assert (start["status"], b"no connection" in body["body"]) == (503, True)
            hop = (b"moorage-hop", b"1")
            start, body = await _said(alone, _request("/v1/runs", hop))
            assert (start["status"], b"does not lead" in body["body"]) == (503, True)
            strange = {**_request("/v1/health"), "headers": [(b"host", b"evil.example")]}
            start, _ = await _said(alone, strange)
            assert start["status"] == 403
        finally:
            await forward.close()

    asyncio.run(main())


def test_what_a_standby_answers_by_itself() -> None:
    own = [
        ("GET", "/v1/runs", b""),
        ("GET", "/v1/runs/7", b""),
        ("GET", "/v1/events", b"since=3"),
        ("POST", "/v1/blobs/fetch", b""),
    ]
    leaders = [
        ("POST", "/v1/runs", b""),
        ("DELETE", "/v1/runs/7", b""),
        ("GET", "/v1/runs/7/wait", b""),
        ("GET", "/v1/events", b"follow=1"),
        ("POST", "/v1/blobs/missing", b""),
    ]
    assert all(is_of_the_past(*asked) for asked in own)
    assert not any(is_of_the_past(*asked) for asked in leaders)
