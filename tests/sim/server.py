"""A simulated server: what the engine does with the decisions of the core.

Decisions go through an outbox, in order; `commit` makes the oldest durable, and only then is what
they say told. A crash loses what waits there; one between the two loses what was to be told. A
server that another one has taken over from goes on talking until its next commit is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from moorage.core import reactor
from moorage.core.boot import timers
from moorage.core.effects import Arm, Effect, Emit, Inquire, Send, Timer, Wake, Write
from moorage.errors import Conflict, InvalidInput, NotFound
from moorage.ids import NodeId, RunId
from moorage.protocol.agent import Beat, Beaten, Dropped, Hello, Report, ToServer, Welcome
from moorage.protocol.api import RunRequest
from sim.leased import LEASE
from sim.node import LACKING, Connection

if TYPE_CHECKING:
    from sim.world import World

LONGEST_SLEEP = 60.0


@dataclass(slots=True)
class Batch:
    """One decision on its way to the disk. `first` is called before what it sends."""

    effects: Sequence[Effect]
    first: Callable[[], None] | None = None
    empty: bool = field(init=False)

    def __post_init__(self) -> None:
        self.empty = not any(isinstance(effect, Write | Emit) for effect in self.effects)


class Server:
    """Begins from what is durable."""

    def __init__(self, world: World, epoch: int) -> None:
        self.world, self.epoch = world, epoch
        self.cluster = world.disk.cluster()
        self.alive = True
        self.awake = False
        self.outbox: deque[Batch] = deque()
        self.written: deque[Batch] = deque()
        self.links: dict[NodeId, Connection] = {}
        self.greeted: dict[str, int] = {}
        """The latest connection of each node from which a Hello was taken."""
        self.heard = dict.fromkeys(self.cluster.nodes, world.now)
        """When it heard of each node: what began has heard of nobody, and waits for all."""
        self.answers: deque[tuple[Inquire, list[NodeId]]] = deque()
        """Of nodes that were asked, on their way."""
        self.submitting: set[str] = set()
        """Requests that are decided and not yet answered."""
        self.alarms: dict[Timer, float] = {}
        self._heap: list[tuple[float, str, int]] = []
        self._take([*timers(self.cluster), Wake()])

    # decisions

    def decide(
        self,
        effects: Sequence[Effect],
        first: Callable[[], None] | None = None,
        proven: bool = False,
    ) -> None:
        """`proven`: what it says leaves after a commit, also where nothing is written."""
        self._take(effects)
        batch = Batch(effects, first)
        if batch.empty and not proven and not self.outbox and not self.written:
            self._tell(batch)
            return
        self.outbox.append(batch)
        if self is self.world.leader:
            self.world.decided(effects)
            self.world.notice("commit")

    def _take(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Arm):
                self.alarms[effect.timer] = effect.at
                heappush(self._heap, (effect.at, effect.timer.kind, effect.timer.id))
                self.world.notice("ring", effect.at)
            elif isinstance(effect, Wake) and not self.awake:
                self.awake = True
                self.world.notice("pass")

    def write(self, batches: int) -> bool:
        """Make the oldest durable, in one transaction. False where another leads: it is over."""
        if self.world.disk.epoch != self.epoch:
            self.die()
            return False
        for _ in range(min(batches, len(self.outbox))):
            batch = self.outbox.popleft()
            self.world.committed(batch.effects)
            self.written.append(batch)
        return True

    def tell(self) -> None:
        """What is durable may leave."""
        while self.written:
            self._tell(self.written.popleft())

    def _tell(self, batch: Batch) -> None:
        if batch.first is not None:
            batch.first()
        for effect in batch.effects:
            if isinstance(effect, Send):
                link = self.links.get(effect.node)
                if link is not None and link.open and not link.closed:
                    link.to_agent.append(effect.message)
                    self.world.sent(self, link, effect.message)
            elif isinstance(effect, Inquire):
                self._ask(effect)

    def _ask(self, asked: Inquire) -> None:
        links = {node: self.links.get(node) for node in asked.nodes}
        lack = [node for node, link in links.items() if link is not None and link.node.lacks]
        if asked.why == LACKING.message:
            self.answers.append((asked, lack))
            self.world.notice("answers")

    def answer(self) -> bool:
        """What nodes lacked when they were asked."""
        if not self.answers:
            return False
        asked, lack = self.answers.popleft()
        said = dict.fromkeys(((asked.run, node) for node in lack), self.now)
        self.world.promises.said.update(said)
        self.decide(reactor.on_answers(self.cluster, asked.run, asked.why, lack, self.now))
        return True

    def run_pass(self) -> bool:
        if not self.awake:
            return False
        self.awake = False
        self.decide(reactor.schedule(self.cluster, self.now))
        return True

    def ring(self) -> bool:
        """All timers whose time has come by this server's clock."""
        due = []
        while self._heap and self._heap[0][0] <= self.now:
            at, kind, number = heappop(self._heap)
            timer = Timer(kind, number)
            if self.alarms.get(timer) == at:
                del self.alarms[timer]
                due.append(timer)
        for timer in due:
            self.decide(reactor.on_timer(self.cluster, timer, self.now))
        if self._heap:
            self.world.notice("ring", self._heap[0][0])
        return bool(due)

    @property
    def now(self) -> float:
        return self.world.now + self.world.server_clock

    def die(self) -> None:
        """Its sockets close; what it sent before may still arrive."""
        self.alive = False
        self.outbox.clear()
        self.written.clear()
        for link in self.links.values():
            self._close(link)
        self.links.clear()

    # agents

    def arrived(self, link: Connection, message: ToServer) -> None:
        if not self.alive:
            return
        if isinstance(message, Hello):
            self._hello(link, message)
        elif self.links.get(node := self._node(link)) is not link:
            return
        elif isinstance(message, Beat):
            self.heard[node] = self.world.now
            self.decide([Send(node, Beaten(message.number))], proven=self.proves)
        elif isinstance(message, Report):
            self.decide(reactor.on_report(self.cluster, node, message, self.now))
        elif isinstance(message, Dropped):
            self.decide(reactor.on_dropped(self.cluster, node, message.keys))

    proves = True

    def look(self) -> bool:
        """Find the nodes that are silent."""
        did = False
        for node in self.cluster.nodes.values():
            silent, link = self.world.now - self.heard[node.id], self.links.get(node.id)
            if link is not None and silent > LEASE / 2:
                did = self.lost(link)
            elif link is None and silent > self.allowed and not (node.up or node.lost):
                self.decide(reactor.on_node_lost(self.cluster, node.id, self.now, silent))
                did = True
        return did

    allowed = LEASE

    def _hello(self, link: Connection, hello: Hello) -> None:
        if not self.takes(link):
            self._close(link)
            return
        self.greeted[hello.node] = link.number
        effects = reactor.on_hello(self.cluster, hello, self.now)
        node = self.cluster.node_names[hello.node]
        self.heard[node] = self.world.now
        older = self.links.get(node)
        if older is not None:
            self._close(older)
        self.links[node] = link
        self.decide(effects, lambda: self._welcome(link, node))

    def takes(self, link: Connection) -> bool:
        """Connections are numbered when they are accepted: the Hello of an older one came late."""
        return link.number > self.greeted.get(link.node.name, 0)

    def _welcome(self, link: Connection, node: NodeId) -> None:
        link.open = True
        if not link.closed:
            link.to_agent.append(Welcome(1, "0.1", self.epoch, node))
            self.world.notice("deliver", link.node.name)

    def lost(self, link: Connection) -> bool:
        """The connection is gone, and this server sees it."""
        self._close(link)
        node = self._node(link)
        if self.links.get(node) is not link:
            return False
        del self.links[node]
        self.decide(reactor.on_node_down(self.cluster, node, self.now))
        return True

    def _node(self, link: Connection) -> NodeId:
        return self.cluster.node_names.get(link.node.name, NodeId(0))

    def _close(self, link: Connection) -> None:
        if not link.closed:
            link.closed = True
            self.world.notice("closed", link.node.name)

    # users; each False where there is nothing to do

    def submit(self, label: str, requests: Sequence[RunRequest]) -> bool:
        """Answered at once where it was accepted before; `label` is the request's id."""
        if self.world.disk.rows("request", user="ann", id=label):
            self.world.answered(label)
            return True
        if label in self.submitting:
            return False
        names = (f"{label}.{n}" for n in count())
        try:
            submitted = reactor.on_submit(
                self.cluster, requests, "ann", self.now, request_id=label, names=names
            )
        except (InvalidInput, Conflict):
            return False
        self.submitting.add(label)
        self.decide(submitted.effects, lambda: self._answer(label))
        return True

    def _answer(self, label: str) -> None:
        self.submitting.remove(label)
        self.world.answered(label)

    def cancel(self, run: str, abort: bool) -> bool:
        number = self.cluster.names.get(run)
        if number is None:
            return False
        self.decide(reactor.on_cancel(self.cluster, number, abort, self.now))
        return True

    def delete(self, run: str) -> bool:
        row = self.world.disk.one("SELECT id FROM runs WHERE name = ?", run)
        if row is None:
            return False
        number = RunId(row["id"])
        logs: dict[NodeId, list[str]] = {}
        for attempt in self.world.disk.rows("attempts_of_run", run_id=number):
            key = f"{attempt['job_id']}.{attempt['attempt']}.{attempt['rank']}"
            logs.setdefault(NodeId(attempt["node_id"]), []).append(key)
        try:
            self.decide(reactor.on_delete(self.cluster, number, logs))
        except (Conflict, NotFound):
            return False
        return True
