"""Requests passed on to a leader: what it gets, and what becomes of them when it is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from moorage.server import forward
from moorage.server.door import NOT_LEADING
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.store.leader import Server

OWN = "http://127.0.0.1:1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Of-It: 1\r\n\r\nok"
REFUSAL = f"HTTP/1.1 503 No\r\nContent-Length: 0\r\n{NOT_LEADING}: 1\r\n\r\n".encode()


@dataclass
class Leader:
    """A listener that answers each connection with the next of its replies."""

    replies: list[bytes]
    got: list[bytes] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.got.append(head + await reader.readexactly(length))
        writer.write(self.replies.pop(0))
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def leading(*replies: bytes) -> AsyncIterator[Leader]:
    leader = Leader(list(replies))
    server = await asyncio.start_server(leader.serve, "127.0.0.1", 0)
    leader.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield leader


@asynccontextmanager
async def standing_by(leader: str | None) -> AsyncIterator[tuple[Peers, Forwarder]]:
    peers = Peers(OWN)
    if leader:
        learn(peers, leader)

    async def here(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send({"type": "here", "body": message["body"]})

    forwarder = Forwarder(peers, here)
    try:
        yield peers, forwarder
    finally:
        await forwarder.close()


def learn(peers: Peers, url: str, epoch: int = 1) -> None:
    peers.learn([Server(url, url, "0", epoch, 0.0)], epoch)


async def ask(
    application: Any,
    target: bytes = b"/v1/runs",
    body: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> list[Message]:
    sent: list[Message] = []
    coming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    length = [(b"content-length", b"%d" % len(body))] if body else []
    scope = {
        "type": "http",
        "method": "POST" if body else "GET",
        "path": target.decode(),
        "raw_path": target,
        "query_string": b"a=1",
        "headers": [(b"host", b"localhost"), (b"authorization", b"T"), *length, *headers],
    }
    async with asyncio.timeout(30):
        await application(scope, receive, send)
    return sent


def text(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def test_a_request_arrives_once_with_its_token_and_the_mark_of_a_hop() -> None:
    async def main() -> None:
        async with leading(ANSWER) as leader, standing_by(leader.url) as (_, forwarder):
            start, *rest = await ask(forwarder, body=b"{}")
            assert (start["status"], text(rest)) == (200, b"ok")
            assert (b"X-Of-It", b"1") in start["headers"]
            [got] = leader.got
            assert got.startswith(b"POST /v1/runs?a=1 HTTP/1.1\r\n")
            assert got.endswith(b"\r\n\r\n{}")
            assert b"authorization: T" in got
            assert b"moorage-hop: 1" in got

    asyncio.run(main())


@pytest.mark.parametrize("target", ["@127.0.0.2:{port}/v1", "http://127.0.0.2:{port}/v1", ".evil"])
def test_no_path_leads_to_another_host(target: str) -> None:
    async def main() -> None:
        async with leading(ANSWER) as leader, standing_by(leader.url) as (_, forwarder):
            path = target.format(port=leader.url.rpartition(":")[2]).encode()
            start, *_ = await ask(forwarder, path)
            assert start["status"] == 200
            assert leader.got[0].startswith(b"GET %s?a=1 HTTP" % path)

    asyncio.run(main())


def test_a_leader_that_is_none_any_more_is_followed_by_the_next() -> None:
    async def main() -> None:
        async with (
            leading(REFUSAL) as old,
            leading(ANSWER) as new,
            standing_by(old.url) as (peers, forwarder),
        ):
            asked = asyncio.ensure_future(ask(forwarder, body=b"{}"))
            await peers.doubted.wait()
            learn(peers, new.url, 2)
            start, *rest = await asked
            assert (start["status"], text(rest)) == (200, b"ok")
            assert old.got[0].endswith(b"{}")
            assert new.got[0].endswith(b"{}")

    asyncio.run(main())


def test_who_comes_to_lead_answers_by_itself() -> None:
    async def main() -> None:
        async with leading(REFUSAL) as old, standing_by(old.url) as (peers, forwarder):
            asked = asyncio.ensure_future(ask(forwarder, body=b"{}"))
            await peers.doubted.wait()
            peers.leading = True
            learn(peers, OWN, 2)
            assert await asked == [{"type": "here", "body": b"{}"}]

    asyncio.run(main())


def test_a_request_whose_fate_is_unknown_is_not_repeated() -> None:
    async def main() -> None:
        async with leading(b"", ANSWER) as leader, standing_by(leader.url) as (_, forwarder):
            start, *_ = await ask(forwarder, body=b"{}")
            assert start["status"] == 503
            names = {name.lower() for name, _ in start["headers"]}
            assert b"retry-after" in names
            assert NOT_LEADING.lower().encode() not in names
            assert len(leader.got) == 1

    asyncio.run(main())


def test_without_a_leader_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(forward, "PATIENCE", 0.05)
        async with standing_by(None) as (_, forwarder):
            start, *rest = await ask(forwarder)
            assert (start["status"], b"no server leads" in text(rest)) == (503, True)

    asyncio.run(main())


def test_what_was_passed_on_is_not_passed_on_again() -> None:
    async def main() -> None:
        async with leading(ANSWER) as leader, standing_by(leader.url) as (_, forwarder):
            start, *_ = await ask(forwarder, headers=((b"moorage-hop", b"1"),))
            assert start["status"] == 503
            assert not leader.got

    asyncio.run(main())
