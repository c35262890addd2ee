"""What nodes are asked before a job is begun on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from moorage.core.effects import Inquire
from moorage.core.launch import sketch
from moorage.engine.inquiries import MOST, Inquiries
from moorage.engine.links import Link, Links
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import Probe, ProbeResult, decode_to_agent
from moorage.specs.task import Task

WHY = "/data does not exist on this node; create it, or drop :ro"
LAUNCH = sketch(Task(), "ann")


def asking(*nodes: int, run: int = 1) -> Inquire:
    return Inquire(RunId(run), WHY, tuple(map(NodeId, nodes)), LAUNCH)


class Nodes:
    """Connected, with what each says is wrong; None: it never answers."""

    def __init__(self, **says: str | None) -> None:
        self.links = Links()
        self.asked: list[int] = []
        self.told: list[tuple[int, list[int]]] = []
        self.news = asyncio.Event()
        self.inquiries = Inquiries(self.links, self.answered)
        self._says = list(says.values())
        self._links = [Link(NodeId(number), name) for number, name in enumerate(says, 1)]
        for link in self._links:
            self.links.attach(link)
            self.links.open(link)
        self.tasks = [asyncio.create_task(self._live(link)) for link in self._links]

    def answered(self, asked: Inquire, refusing: Collection[NodeId]) -> None:
        self.told.append((asked.run, sorted(refusing)))
        self.news.set()

    async def _live(self, link: Link) -> None:
        while (data := await link.next()) is not None:
            message = decode_to_agent(data)
            assert isinstance(message, Probe)
            self.asked.append(link.node)
            text = self._says[link.node - 1]
            if text is None:
                link.close("it went away")
            else:
                link.answered(ProbeResult(message.request, [text] if text else [], []))

    async def until_told(self, times: int) -> None:
        async with asyncio.timeout(30):
            while len(self.told) < times:
                self.news.clear()
                await self.news.wait()


def test_only_those_count_that_refuse_for_the_same_reason() -> None:
    async def scenario() -> None:
        nodes = Nodes(
            n1=WHY, n2=f"mounts[0]: {WHY}", n3="", n4="working_dir: /w is missing", n5=None
        )
        nodes.inquiries.begin(asking(1, 2, 3, 4, 5, 77))
        await nodes.until_told(1)
        assert nodes.told == [(1, [1, 2])]

    asyncio.run(scenario())


def test_one_inquiry_at_a_time_and_not_too_many_wait() -> None:
    async def scenario() -> None:
        nodes = Nodes(n1=WHY, n2=WHY)
        for run in range(MOST + 5):
            nodes.inquiries.begin(asking(1, 2, run=run))
        await nodes.until_told(MOST)
        assert [run for run, _ in nodes.told] == list(range(MOST))
        assert nodes.asked == [1, 2] * MOST
        nodes.inquiries.begin(asking(1, run=200))
        await nodes.until_told(MOST + 1)

    asyncio.run(scenario())


def test_nobody_is_told_after_the_end() -> None:
    async def scenario() -> None:
        nodes = Nodes(n1=WHY)
        nodes.inquiries.begin(asking(1))
        nodes.inquiries.close()
        nodes.links.close("the server is stopping")
        await asyncio.gather(*nodes.tasks)
        assert nodes.told == []

    asyncio.run(scenario())
