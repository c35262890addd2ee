"""Connections of agents: one for each node, ordered sends, questions with their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from itertools import count
from typing import TypeVar

import msgspec

from moorage.errors import Unavailable
from moorage.ids import NodeId
from moorage.protocol.agent import (
    CancelRead,
    Launch,
    LogData,
    Probe,
    ProbeResult,
    ReadLog,
    Swept,
    ToAgent,
    bundle,
    encode,
)
from moorage.protocol.flush import Flushed

_FRAME = 262_144
"""Bytes after which a frame takes no further message."""
_MESSAGES = 1000

Reply = LogData | ProbeResult | Swept | Flushed
T = TypeVar("T")


class NotConnected(Unavailable):
    """The node's agent is not connected, or was lost before it answered."""


class Link:
    """One connection. The engine queues messages; whoever holds the socket sends them in order.

    A link is open from its `Welcome` on: what was decided before belongs to the difference that
    answers the agent's Hello, and is not sent twice.
    """

    def __init__(self, node: NodeId, name: str) -> None:
        self.node = node
        self.name = name
        self.open = False
        self.closed = ""
        """Why it was closed; empty while it is not."""
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    def send(self, message: ToAgent) -> None:
        """Queue a message; dropped on a closed link."""
        if not self.closed:
            self._outgoing.put_nowait(encode(message))

    async def next(self) -> bytes | None:
        """The next bytes for the socket; None when the link is to be closed."""
        return await self._outgoing.get()

    async def frame(self) -> bytes | None:
        """As `next`, with all else that is queued by now: a frame costs both sides more than what
        is in it."""
        first = await self._outgoing.get()
        if first is None:
            return None
        messages, size = [first], len(first)
        while size < _FRAME and len(messages) < _MESSAGES and not self._outgoing.empty():
            following = self._outgoing.get_nowait()
            if following is None:  # to be met again, after these
                self._outgoing.put_nowait(None)
                break
            messages.append(following)
            size += len(following)
        return bundle(messages)

    def close(self, why: str) -> None:
        """End it: what was queued is still sent, questions fail. May be called twice."""
        if self.closed:
            return
        self.closed = why
        self._outgoing.put_nowait(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(NotConnected(f"node {self.name}: {why}"))

    async def ask(self, number: int, message: ToAgent) -> Reply:
        """Send a question and wait for the answer. NotConnected if the link closes before it."""
        if self.closed:
            raise NotConnected(f"node {self.name}: {self.closed}")
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self.send(message)
        try:
            return await waiting
        except asyncio.CancelledError:
            if isinstance(message, ReadLog):
                self.send(CancelRead(number))
            raise
        finally:
            del self._waiting[number]

    def answered(self, reply: Reply) -> None:
        """An answer came; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(reply.request)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


class Links:
    """The present link of each node."""

    def __init__(self) -> None:
        self._by_node: dict[NodeId, Link] = {}
        self._numbers = count(1)
        self._opened = asyncio.Event()
        """Set, and replaced, whenever a link opens."""
        self._accepted = count(1)
        self._greeted: dict[str, int] = {}
        """The newest connection of each node, by its name, from which a Hello came."""
        self._closed = ""
        """Why all are closed, for good."""

    def accept(self) -> int:
        """The number of a connection; to be taken before its agent can speak on it."""
        return next(self._accepted)

    def greets(self, name: str, number: int) -> None:
        """A Hello came on this connection. NotConnected where one came on a newer connection of
        the node: this one was late on its way, the agent has left, and what it held then must not
        be taken for what it holds now."""
        if number < self._greeted.get(name, 0):
            raise NotConnected(f"node {name}: a newer connection has greeted before this one")
        self._greeted[name] = number

    def attach(self, link: Link) -> None:
        """Make this the node's link; an older one is closed."""
        older = self._by_node.get(link.node)
        self._by_node[link.node] = link
        if older is not None:
            older.close("replaced by a newer connection")
        if self._closed:  # its Hello was on its way, and nobody would ever answer it
            link.close(self._closed)

    def open(self, link: Link) -> None:
        """The agent is welcome: messages may be sent from now on."""
        link.open = True
        opened, self._opened = self._opened, asyncio.Event()
        opened.set()

    async def until_open(self, node: NodeId) -> None:
        """Wait until the node can be asked."""
        while node not in self.connected():
            await self._opened.wait()

    def detach(self, link: Link) -> bool:
        """The connection is gone. True if it was the node's present one."""
        link.close("the agent's connection was lost")
        if self._by_node.get(link.node) is not link:
            return False
        del self._by_node[link.node]
        return True

    def of(self, node: NodeId) -> Link | None:
        """The node's present link."""
        return self._by_node.get(node)

    def is_present(self, link: Link) -> bool:
        """Whether the link was not replaced."""
        return self._by_node.get(link.node) is link

    def send(self, node: NodeId, message: ToAgent) -> None:
        """Send if the node is connected and welcomed."""
        link = self._by_node.get(node)
        if link is not None and link.open:
            link.send(message)

    async def ask(self, node: NodeId, question: Callable[[int], ToAgent]) -> Reply:
        """Ask a node; NotConnected where it cannot be asked."""
        link = self._by_node.get(node)
        if link is None or not link.open:
            raise NotConnected("the node's agent is not connected")
        number = next(self._numbers)
        return await link.ask(number, question(number))

    async def read_log(self, node: NodeId, read: ReadLog) -> LogData:
        """A page of an attempt's output; `read.request` is filled in here. NotConnected where the
        node cannot be asked. Cancelling this tells the agent."""
        reply = await self.ask(node, lambda number: msgspec.structs.replace(read, request=number))
        return _expect(reply, LogData)

    async def probe(
        self, launch: Launch, patience: float, wanted: Collection[NodeId]
    ) -> dict[NodeId, ProbeResult]:
        """What each of the nodes says about a launch; one that is not connected, or does not
        answer within `patience` seconds, is left out."""
        nodes = [node for node in self.connected() if node in wanted]
        asked = [self._probe(node, launch, patience) for node in nodes]
        replies = zip(nodes, await asyncio.gather(*asked), strict=True)
        return {node: reply for node, reply in replies if reply is not None}

    async def _probe(self, node: NodeId, launch: Launch, patience: float) -> ProbeResult | None:
        try:
            async with asyncio.timeout(patience):
                reply = await self.ask(node, lambda number: Probe(number, launch))
                return _expect(reply, ProbeResult)
        except (TimeoutError, NotConnected):
            return None

    def connected(self) -> list[NodeId]:
        """Nodes that can be asked now."""
        return [node for node, link in self._by_node.items() if link.open and not link.closed]

    def close(self, why: str) -> None:
        """Close all, also those to come."""
        self._closed = why
        for link in list(self._by_node.values()):
            link.close(why)


def _expect(reply: Reply, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise NotConnected("the node's agent answered something else: update it")
    return reply
