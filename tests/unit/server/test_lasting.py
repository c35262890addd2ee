"""Work that lasts: told, answered, and ended when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from starlette.requests import Request

from moorage.errors import Unavailable
from moorage.protocol.api import Progress, Told
from moorage.server import lasting
from moorage.server.lasting import abandonable, reply_to, settled
from moorage.server.stream import Gone
from moorage.store.telling import Tell

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}


class Answer(Struct):
    n: int


class Client:
    """The other end of an ASGI connection."""

    def __init__(self) -> None:
        self.body = b""
        self.news = asyncio.Event()
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.body += message.get("body", b"")
        if self.body:
            self.news.set()

    async def ask(self, work: Any, *, progress: bool = True) -> list[Told]:
        request = Request(SCOPE, self.receive)
        reply = await reply_to(request, work, progress=progress)
        await reply(SCOPE, self.receive, self.send)
        return [msgspec.json.decode(line, type=Told) for line in self.body.splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "BEAT", 0.01)


def test_the_last_line_is_the_answer() -> None:
    async def scenario() -> None:
        client = Client()

        async def work(tell: Tell) -> Answer:
            tell("content", 3, 9)
            await client.news.wait()
            return Answer(7)

        *before, last = await client.ask(work)
        assert before[0].progress == Progress("content", 3, 9)
        assert msgspec.json.decode(last.reply, type=Answer) == Answer(7)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "code"), [(Unavailable("no disk"), "unavailable"), (ValueError("x"), "unavailable")]
)
def test_the_last_line_may_be_an_error(error: Exception, code: str) -> None:
    async def work(tell: Tell) -> Answer:
        raise error

    async def scenario() -> None:
        [last] = await Client().ask(work)
        assert last.error is not None
        assert (last.error.code, str(error) in last.error.message) == (code, True)

    asyncio.run(scenario())


def test_one_document_where_nobody_asked_for_lines() -> None:
    async def work(tell: Tell) -> Answer:
        return Answer(7)

    async def scenario() -> None:
        client = Client()
        reply = await reply_to(Request(SCOPE, client.receive), work, progress=False)
        assert bytes(reply.body) == b'{"n":7}'

    asyncio.run(scenario())


@pytest.mark.parametrize("progress", [True, False])
def test_a_client_that_leaves_ends_the_thread(progress: bool) -> None:
    """And what is locked for it is free only afterwards."""
    began, over = threading.Event(), threading.Event()
    held = asyncio.Lock()

    def endless(tell: Tell) -> Answer:
        began.set()
        try:
            while True:
                tell("rounds", 1, 0)
        finally:
            over.set()

    async def work(tell: Tell) -> Answer:
        async with held:
            try:
                return await abandonable(endless, tell)
            finally:
                assert over.is_set()

    async def scenario() -> None:
        client = Client()
        asking = asyncio.ensure_future(client.ask(work, progress=progress))
        await asyncio.to_thread(began.wait)
        assert held.locked()
        client.gone.set()
        await asyncio.wait([asking])
        assert progress or isinstance(asking.exception(), Gone)
        assert not held.locked()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_what_cannot_be_ended_is_waited_for() -> None:
    go, over = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(20)
        over.set()

    async def scenario() -> None:
        task = asyncio.ensure_future(settled(work, go.set))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert over.is_set()

    asyncio.run(asyncio.wait_for(scenario(), 30))
