"""The servers on one database as this one sees them: who is there, and who leads."""

from __future__ import annotations

import asyncio

from moorage.protocol.api import ServerView
from moorage.store.leader import Server


class Peers:
    """Kept up to date by whoever looks at the database; used on one loop."""

    def __init__(self, own: str) -> None:
        """`own`: the address of this server."""
        self.own = own
        self.epoch = 0
        """Of the latest leader."""
        self.doubted = asyncio.Event()
        """Set where a request found that the leader does not answer: look again soon."""
        self.leading = False
        """Whether this server leads: its row says so too, but may be of an earlier term."""
        self._servers: list[Server] = []
        self._leader: str | None = None
        self._changed = asyncio.Event()
        """Set, and replaced, whenever another leads."""

    def learn(self, servers: list[Server], epoch: int) -> None:
        """What the database says: the rows, the latest leader first, and its epoch."""
        self._servers = servers
        self.epoch = epoch
        leader = servers[0].url if servers and servers[0].epoch == epoch else None
        self._set(leader if leader != self.own or self.leading else None)

    def doubt(self, url: str) -> None:
        """The leader at `url` does not lead any more, or does not answer: nobody leads until the
        next look at the database."""
        if url == self._leader:
            self._set(None)
        self.doubted.set()

    @property
    def leader(self) -> str | None:
        """Where the leader is; None while nobody is known to lead."""
        return self._leader

    @property
    def addresses(self) -> list[str]:
        """Every server that lives, the leader first; this one is always among them."""
        there = [server.url for server in self._servers if server.there]
        return list(dict.fromkeys((*there, self.own)))

    def views(self) -> list[ServerView]:
        """All of them for people, the leader first."""
        return [
            ServerView(server.url, server.version, server.url == self._leader, server.age)
            for server in self._servers
        ]

    async def until_leader(self, seconds: float) -> str | None:
        """The leader's address, as soon as there is one; None after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._leader is None:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._leader

    async def until_replaced(self, url: str) -> None:
        """Wait until another server than that at `url` leads."""
        while self._leader in (url, None):
            await self._changed.wait()

    def _set(self, leader: str | None) -> None:
        if leader != self._leader:
            self._leader = leader
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
