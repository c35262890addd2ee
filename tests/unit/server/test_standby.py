"""What runs wait for is asked of the leader; without its answer a standby tells what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message, Receive, Scope, Send

from moorage.server import standby
from moorage.server.forward import Forwarder
from moorage.server.peers import Peers
from moorage.server.replies import http_reply
from moorage.server.standby import Standby
from moorage.store.leader import Server

OF_LEADER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nleader"


async def own(scope: Scope, receive: Receive, send: Send) -> None:
    await http_reply(200, "own", {})(scope, receive, send)


@asynccontextmanager
async def standing_by(reply: bytes | None, asked: list[bytes]) -> AsyncIterator[Standby]:
    """Beside a leader that says this, and then nothing more; None: there is no leader."""
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(reply or b"")
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peers = Peers("http://127.0.0.1:1")
    if reply is not None:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        peers.learn([Server(url, url, "0", 1, 0.0)], 1)
    forward = Forwarder(peers, own)
    try:
        yield Standby(own, peers, forward)
    finally:
        silent.set()
        await forward.close()
        server.close()
        await server.wait_closed()


async def ask(application: Standby, path: str) -> bytes:
    sent: list[Message] = []
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in requests:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"limit=3", "headers": [(b"host", b"x")],
    }  # fmt: skip
    await application(scope, receive, send)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    return b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize(
    ("path", "reply", "told"),
    [
        ("/v1/runs", OF_LEADER, b"leader"),
        ("/v1/runs/train", OF_LEADER, b"leader"),
        ("/v1/runs", None, b"own"),
        ("/v1/runs", b"", b"own"),
        ("/v1/runs", OF_LEADER[:-3], b"own"),
        ("/v1/runs", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"own"),
        ("/v1/info", OF_LEADER, b"own"),
    ],
)
def test_who_tells(
    path: str, reply: bytes | None, told: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = reply in (b"", OF_LEADER[:-3])
    monkeypatch.setattr(standby, "LEADER_PATIENCE", 1.0 if silent else 60.0)
    asked: list[bytes] = []

    async def main() -> None:
        async with standing_by(reply, asked) as application:
            assert told in await ask(application, path)

    asyncio.run(main())
    line = f"GET {path}?limit=3 HTTP/1.1".encode()
    assert asked == ([line] if reply is not None and path != "/v1/info" else [])


def test_a_leader_that_is_silent_is_not_asked_for_every_page() -> None:
    asked: list[bytes] = []

    async def main() -> None:
        async with standing_by(b"", asked) as application:
            for _ in range(3):
                assert b"own" in await ask(application, "/v1/runs")

    asyncio.run(main())
    assert len(asked) == 1
