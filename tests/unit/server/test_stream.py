from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from moorage.server.stream import Stream

SCOPE: dict[str, Any] = {"type": "http"}


class Client:
    """The other end of an ASGI connection."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.reached = asyncio.Event()
        """Two messages came."""

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) == 2:
            self.reached.set()


def test_all_chunks_and_the_end() -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"a"
        yield b"b"

    async def scenario() -> None:
        client = Client()
        await Stream(chunks(), "text/plain")(SCOPE, client.receive, client.send)
        start, *rest = client.sent
        assert start["status"] == 200
        assert [m["body"] for m in rest] == [b"a", b"b", b""]
        assert [m["more_body"] for m in rest] == [True, True, False]

    asyncio.run(scenario())


def test_a_client_that_leaves_ends_a_waiting_generator() -> None:
    async def scenario() -> None:
        closed = asyncio.Event()

        async def chunks() -> AsyncGenerator[bytes, None]:
            try:
                yield b"a"
                await asyncio.Event().wait()
            finally:
                closed.set()

        client = Client()
        reply = Stream(chunks(), "text/plain")
        serving = asyncio.ensure_future(reply(SCOPE, client.receive, client.send))
        await client.reached.wait()
        client.gone.set()
        async with asyncio.timeout(30):
            await serving
        assert closed.is_set()
        assert client.sent[-1]["body"] == b"a"

    asyncio.run(scenario())


def test_an_error_is_not_taken_for_the_end() -> None:
    async def scenario() -> None:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield b"a"
            raise ValueError("disk")

        client = Client()
        with pytest.raises(ValueError, match="disk"):
            await Stream(chunks(), "text/plain")(SCOPE, client.receive, client.send)
        assert client.sent[-1]["more_body"]

    asyncio.run(scenario())
