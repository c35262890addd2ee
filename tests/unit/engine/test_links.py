from __future__ import annotations

import asyncio

import pytest

from moorage.engine.links import Link, Links, NotConnected
from moorage.ids import NodeId
from moorage.protocol.agent import (
    Ack,
    CancelRead,
    Forget,
    LogData,
    ReadLog,
    Retract,
    ToAgent,
    decode_to_agent,
    unbundle,
)

NODE = NodeId(1)


async def received(link: Link) -> ToAgent | None:
    data = await link.next()
    return None if data is None else decode_to_agent(data)


def opened(links: Links) -> Link:
    link = Link(NODE, "n1")
    links.attach(link)
    links.open(link)
    return link


def test_sends_keep_their_order_and_wait_for_the_welcome() -> None:
    async def scenario() -> None:
        links = Links()
        link = Link(NODE, "n1")
        links.attach(link)
        links.send(NODE, Ack(1))
        links.open(link)
        links.send(NODE, Ack(2))
        links.send(NODE, Ack(3))
        assert [await received(link), await received(link)] == [Ack(2), Ack(3)]

    asyncio.run(scenario())


def test_whoever_comes_after_the_end_is_sent_away() -> None:
    async def scenario() -> None:
        links = Links()
        links.close("the server is stopping")
        late = opened(links)
        assert await received(late) is None
        assert late.closed == "the server is stopping"

    asyncio.run(scenario())


def test_a_newer_connection_replaces_the_older() -> None:
    async def scenario() -> None:
        links = Links()
        older = opened(links)
        newer = opened(links)
        assert await received(older) is None
        assert "newer" in older.closed
        links.send(NODE, Ack(1))
        assert await received(newer) == Ack(1)
        assert not links.detach(older)
        assert links.is_present(newer)
        assert links.detach(newer)
        assert links.connected() == []

    asyncio.run(scenario())


def test_an_answer_finds_its_question() -> None:
    async def scenario() -> None:
        links = Links()
        link = opened(links)
        asked = [
            asyncio.ensure_future(links.ask(NODE, lambda n: ReadLog(n, "1.1.0"))) for _ in range(2)
        ]
        questions = [await received(link), await received(link)]
        for question in reversed(questions):
            assert isinstance(question, ReadLog)
            link.answered(LogData(question.request, question.request, b""))
        answers = await asyncio.gather(*asked)
        assert [a.request for a in answers] == [
            q.request for q in questions if isinstance(q, ReadLog)
        ]
        link.answered(LogData(99, 0, b""))

    asyncio.run(scenario())


def test_a_reader_that_leaves_cancels_at_the_agent() -> None:
    async def scenario() -> None:
        links = Links()
        link = opened(links)
        asked = asyncio.ensure_future(links.ask(NODE, lambda n: ReadLog(n, "1.1.0", wait=True)))
        question = await received(link)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert isinstance(question, ReadLog)
        assert await received(link) == CancelRead(question.request)

    asyncio.run(scenario())


def test_questions_fail_when_the_link_is_lost() -> None:
    async def scenario() -> None:
        links = Links()
        with pytest.raises(NotConnected):
            await links.ask(NODE, lambda n: ReadLog(n, "1.1.0"))
        link = opened(links)
        asked = asyncio.ensure_future(links.ask(NODE, lambda n: ReadLog(n, "1.1.0")))
        await received(link)
        links.detach(link)
        with pytest.raises(NotConnected, match="n1"):
            await asked

    asyncio.run(scenario())


def test_one_can_wait_for_a_node() -> None:
    async def scenario() -> None:
        links = Links()
        waiting = asyncio.ensure_future(links.until_open(NODE))
        await asyncio.sleep(0)
        assert not waiting.done()
        opened(links)
        async with asyncio.timeout(30):
            await waiting

    asyncio.run(scenario())


def test_what_is_queued_at_one_moment_travels_in_one_frame() -> None:
    async def scenario() -> None:
        link = Link(NODE, "n1")
        link.send(Ack(1))
        assert unbundle(await link.frame() or b"") == [Ack(1)]
        sent = [Ack(2), Forget(["1.1.0"]), Retract(["2.1.0"])]
        for message in sent:
            link.send(message)
        link.close("bye")
        assert unbundle(await link.frame() or b"") == sent
        assert await link.frame() is None

    asyncio.run(scenario())


def test_a_frame_has_an_end() -> None:
    async def scenario() -> None:
        link = Link(NODE, "n1")
        keys = [f"{number}.1.0" for number in range(20_000)]
        for _ in range(3):
            link.send(Forget(keys))
        assert len(unbundle(await link.frame() or b"")) == 2
        assert len(unbundle(await link.frame() or b"")) == 1

    asyncio.run(scenario())
