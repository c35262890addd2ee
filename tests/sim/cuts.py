"""Networks that are cut, each way by itself, machines that stand still, and what shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from sim.leased import LEASE
from sim.node import Connection, Node
from sim.server import Server


class Cuts(ABC):
    """Of a world."""

    now: float
    server_clock: float
    leader: Server
    nodes: dict[str, Node]
    stale: dict[str, deque[Connection]]

    calm = True
    """No lease ends: the schedule knows of none, or all faults are over."""

    def __init__(self) -> None:
        self.cuts: set[tuple[str, str]] = set()
        """Nodes, and the direction in which nothing passes: `in` or `out`."""

    @abstractmethod
    def notice(self, kind: str, *what: object) -> None: ...

    @abstractmethod
    def _leave(self, node: Node, lost: bool) -> None: ...

    def _expire(self) -> None:
        """What no part of the world can put off."""
        for node in () if self.calm else self.nodes.values():
            if node.until and self.now >= node.until:
                node.expire()

    def _still(self, name: str) -> bool:
        """Is it frozen?"""
        return name in self.nodes and self.nodes[name].frozen

    def do_beat(self, name: str) -> bool:
        """The agent gives a sign of life, or leaves a server that answers none."""
        node = self.nodes.get(name)
        if node is None or node.connection is None or not node.welcomed or node.frozen:
            return False
        if self.now - node.contact > LEASE / 2:
            self._leave(node, False)
            return True
        node.connection.to_server.append(node.beat())
        self.notice("arrive", name)
        return True

    def do_look(self) -> bool:
        return self.leader.alive and not self.calm and self.leader.look()

    def do_cut(self, name: str, way: str) -> bool:
        """Nothing passes any more, and nobody is told."""
        if name not in self.nodes or (name, way) in self.cuts:
            return False
        self.cuts.add((name, way))
        return True

    def do_heal(self, name: str) -> bool:
        """What was held up on its way arrives."""
        cuts = {cut for cut in self.cuts if cut[0] == name}
        self.cuts -= cuts
        if cuts:
            self._stir(self.nodes[name])
        return bool(cuts)

    def do_freeze(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or node.frozen:
            return False
        node.frozen = True
        return True

    def do_thaw(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or not node.frozen:
            return False
        node.frozen = False
        self._stir(node)
        return True

    def do_pace(self, name: str, pace: float) -> bool:
        """Its monotonic clock is fast or slow."""
        if name in self.nodes:
            self.nodes[name].pace = pace
            self.calm = False
        return name in self.nodes

    def _stir(self, node: Node) -> None:
        """What could not happen does now."""
        link = node.connection
        for _ in link.to_server if link else ():
            self.notice("arrive", node.name)
        for old in self.stale[node.name]:
            for _ in old.to_server:
                self.notice("late", node.name)
        if link and link.to_agent:
            self.notice("deliver", node.name)
        if link and link.closed:
            self.notice("closed", node.name)
        for claim in node.claims.values():
            self.notice("go", node.name, claim.launch)
        for kind, due in (("report", node.changed), ("bury", node.orphaned), ("dial", not link)):
            if due:
                self.notice(kind, node.name)
        if not node.up:
            self.notice("down", node.name)

    def do_clock(self, name: str, by: float) -> bool:
        """A clock is set; `server`, or a node."""
        if name == "server":
            self.server_clock += by
        elif name in self.nodes:
            self.nodes[name].clock += by
        return True

    def do_lack(self, name: str, lacks: bool) -> bool:
        node = self.nodes.get(name)
        if node is None or node.lacks == lacks:
            return False
        node.lacks = lacks
        return True

    def do_answer(self) -> bool:
        """What nodes lacked when they were asked arrives at the server."""
        return self.leader.alive and self.leader.answer()

    def do_full(self, name: str, full: bool) -> bool:
        node = self.nodes.get(name)
        if node is None or node.full == full:
            return False
        node.full = full
        return True
