"""How two WebSockets become one, and how both end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from moorage.errors import Unavailable
from moorage.server.routes import streams
from moorage.server.splice import Meetings, splice


class Far:
    """The far side of an accepted WebSocket."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.said.put_nowait({"type": "websocket.connect"})

    def say(self, data: bytes) -> None:
        self.said.put_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self) -> None:
        self.said.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def hears(self) -> Any:
        async with asyncio.timeout(30):
            message = await self.heard.get()
        return message.get("bytes", message["type"])

    async def accepted(self) -> WebSocket:
        socket = WebSocket({"type": "websocket"}, self.said.get, self.heard.put)
        await socket.accept()
        assert await self.hears() == "websocket.accept"
        return socket


def test_bytes_pass_both_ways_until_one_side_has_gone() -> None:
    async def scenario() -> None:
        client, agent = Far(), Far()
        passing = asyncio.create_task(splice(await client.accepted(), await agent.accepted()))
        client.say(b"over")
        assert await agent.hears() == b"over"
        agent.say(b"back")
        agent.say(b"")
        assert [await client.hears() for _ in range(2)] == [b"back", b""]
        agent.leave()
        assert await client.hears() == "websocket.close"
        await passing

    asyncio.run(scenario())


def test_a_text_ends_it() -> None:
    async def scenario() -> None:
        client, agent = Far(), Far()
        passing = asyncio.create_task(splice(await client.accepted(), await agent.accepted()))
        client.said.put_nowait({"type": "websocket.receive", "text": "no bytes"})
        assert await client.hears() == "websocket.close"
        assert await agent.hears() == "websocket.close"
        await passing

    asyncio.run(scenario())


def test_an_agent_comes_once_and_not_too_late() -> None:
    async def scenario() -> None:
        meetings = Meetings()
        number, meeting = meetings.expect("n1")
        assert meetings.find(number) is meeting
        assert meetings.find("other") is None
        meeting.came.set_result(await Far().accepted())
        assert meetings.find(number) is None
        meetings.end(number)
        meetings.end(number)
        assert meeting.over.is_set()
        late, _ = meetings.expect("n1")
        meetings.end(late)
        assert meetings.find(late) is None

    asyncio.run(scenario())


def test_an_agent_that_never_dials_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "AGENT_PATIENCE", 0.01)

    async def scenario() -> None:
        _, meeting = Meetings().expect("n1")
        with pytest.raises(Unavailable, match="node n1 does not answer"):
            await streams._await_agent(meeting)

    asyncio.run(scenario())
