"""Asks nodes what decisions want to know of them, and tells the core what they answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from moorage.core.effects import Inquire
from moorage.engine.links import Links
from moorage.ids import NodeId
from moorage.protocol.agent import ProbeResult
from moorage.specs.places import field_of

PATIENCE = 5.0
"""Seconds in which a node answers: a slow disk may keep it."""
MOST = 100
"""Inquiries that wait: beyond that they are dropped, and nodes are tried one by one."""

Answered = Callable[[Inquire, Collection[NodeId]], object]


class Inquiries:
    """One at a time: each may be a message to a thousand nodes."""

    def __init__(self, links: Links, answered: Answered) -> None:
        """`answered` is called with the nodes that would refuse."""
        self._links = links
        self._answered = answered
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, inquire: Inquire) -> None:
        """Ask; returns at once."""
        if len(self._tasks) < MOST:
            task = asyncio.get_running_loop().create_task(self._ask(inquire))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ask nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _ask(self, inquire: Inquire) -> None:
        async with self._turn:
            answers = await self._links.probe(inquire.launch, PATIENCE, set(inquire.nodes))
        refusing = [node for node, said in answers.items() if _refuses(said, inquire.why)]
        self._answered(inquire, refusing)


def _refuses(said: ProbeResult, why: str) -> bool:
    """For the same reason; a complaint of a probe may begin with the field that it is about."""
    return any(why in (problem, field_of(problem)[1]) for problem in said.problems)
