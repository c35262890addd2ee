"""A cluster in a world that fails: servers, nodes and the network between them.

A schedule is a list of steps, `(time, kind, *arguments)`; `do` carries one out and checks every
promise that it could break. A step that finds nothing to act on changes nothing, so any part of a
schedule is a schedule: that is what makes it shrink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec

from moorage.core.effects import Effect, Write
from moorage.protocol.agent import GpuDevice, NodeResources, Outcome, ToAgent
from moorage.protocol.api import RunRequest
from moorage.specs.gang import StartupOrder, StopCriteria
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import OnNodeLoss, Retry
from moorage.specs.schedule import Schedule
from moorage.specs.task import Task
from sim.cuts import Cuts
from sim.ledger import Broken, Ledger
from sim.node import Connection, Node
from sim.promises import Promises
from sim.server import Server
from sim.tables import Tables

Step = Sequence[Any]
KINDS = {
    "gpus": NodeResources(
        4, "x86", 32, 100, [GpuDevice(n, "nvidia", "H100", 80) for n in range(2)]
    ),
    "small": NodeResources(2, "x86", 16, 100),
    "large": NodeResources(16, "x86", 64, 100),
}
ENDS = {
    "ok": Outcome("exited", exit_code=0),
    "fail": Outcome("exited", exit_code=1, message="command 1 of 1 failed with exit code 1"),
    "oom": Outcome("out-of-memory", signal=9),
    "timeout": Outcome("timeout"),
}
EPOCH_BEGINS = 1_700_000_000.0
INTERVAL = 1000
"""Events between two checks of everything."""


@lru_cache(maxsize=4096)
def task(
    cpu: float,
    memory: int,
    gpu: int,
    priority: int,
    retry: float,
    cron: str,
    does: str,
    nodes: int = 1,
    policy: str = "any all-done",
    loss: OnNodeLoss | None = None,
    alone: bool = False,
) -> Task:
    """What users submit. `retry`: seconds, 0 for none; `does`: `ends`, or `forever`; `policy`:
    the order in which ranks start, and which of them must end."""
    order, criteria = policy.split()
    return Task(
        commands=[does],
        resources=Resources(
            cpu=Cpu(Range(cpu, cpu)),
            memory=Range(memory, memory) if memory else None,
            gpu=Gpu(Range(gpu, gpu)) if gpu else None,
        ),
        priority=priority,
        retry=Retry(duration=retry) if retry else None,
        schedule=Schedule([cron]) if cron else None,
        nodes=nodes,
        startup_order=cast(StartupOrder, order),
        stop_criteria=cast(StopCriteria, criteria),
        on_node_loss=loss,
        exclusive=alone,
    )


class World(Cuts):
    """`nodes`: their kinds by name. All are connected at the beginning."""

    def __init__(self, nodes: dict[str, str], interval: int = INTERVAL) -> None:
        super().__init__()
        self.now = EPOCH_BEGINS
        self.server_clock = 0.0
        self.events = 0
        self.interval = interval
        self.appeared: list[tuple[Any, ...]] = []
        """What will have to happen, for whoever makes the schedule."""
        self.disk, self.ahead = Tables(), Tables()
        self.answers: set[str] = set()
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self.ledger = Ledger({name: KINDS[kind].cpus for name, kind in nodes.items()})
        self.nodes = {
            name: Node(name, KINDS[kind], self.ledger, self.notice, lambda: self.now)
            for name, kind in nodes.items()
        }
        self.stale: dict[str, deque[Connection]] = {name: deque() for name in nodes}
        """Connections that the agent left, and that may still carry something to a server."""
        self.accepted = 0
        self.deposed: Server | None = None
        self.promises = Promises(self)
        self.disk.epoch = 1
        self.leader = self.new_server(1)
        for name in nodes:
            self.do_connect(name)
            self.do_arrive(name)
        self.do_commit(len(nodes))
        for name in nodes:
            self.do_deliver(name)
        assert all(node.welcomed for node in self.nodes.values())

    def new_server(self, epoch: int) -> Server:
        return Server(self, epoch)

    def close(self) -> None:
        self.disk.close()
        self.ahead.close()

    def do(self, step: Step) -> bool:
        """Carry out one step; False where there was nothing to do."""
        at, kind, *arguments = step
        self.now = max(self.now, EPOCH_BEGINS + at)
        self._expire()
        did: bool = getattr(self, f"do_{kind}")(*arguments)
        self.events += did
        if did and self.events % self.interval == 0 and self.leader.alive:
            self.promises.everything()
        return did

    # what servers and nodes call

    def notice(self, kind: str, *what: object) -> None:
        self.appeared.append((kind, *what))

    def decided(self, effects: Sequence[Effect]) -> None:
        self.ahead.apply(effects, self.now, feed=False)
        self.promises.decided(effects)

    def committed(self, effects: Iterable[Effect]) -> None:
        self.disk.apply(effects, self.now)
        self.promises.committed(effects)
        for effect in effects:
            if isinstance(effect, Write) and effect.query == "delete_run":
                self.deleted.add(effect.params["id"])

    def sent(self, server: Server, link: Connection, message: ToAgent) -> None:
        self.promises.sent(message)
        self.notice("deliver", link.node.name)

    def answered(self, label: str) -> None:
        """A user knows that the request was accepted."""
        self.answers.add(label)
        (row,) = self.disk.rows("request", user="ann", id=label)
        for run in msgspec.json.decode(row["runs"]):
            self.acknowledged.add(run["id"])

    # users

    def do_submit(self, label: str, tasks: Sequence[Sequence[Any]]) -> bool:
        """Also again, by a user who got no answer."""
        if not self.leader.alive or label in self.answers:
            return False
        return self.leader.submit(label, [RunRequest(task(*fields)) for fields in tasks])

    def do_cancel(self, run: str, abort: bool) -> bool:
        return self.leader.alive and self.leader.cancel(run, abort)

    def do_delete(self, run: str) -> bool:
        row = self.disk.one("SELECT id FROM runs WHERE name = ?", run)
        if row is None or not self.leader.alive:
            return False
        self.promises.deletable.add(row["id"])
        return self.leader.delete(run)

    # servers

    def do_pass(self) -> bool:
        return self.leader.alive and self.leader.run_pass()

    def do_ring(self) -> bool:
        return self.leader.alive and self.leader.ring()

    def do_commit(self, batches: int) -> bool:
        """The oldest decisions become durable, and what they say is told."""
        did = bool(self.leader.outbox or self.leader.written)
        self.leader.write(batches)
        self.leader.tell()
        return did

    def do_write(self, batches: int) -> bool:
        """As `commit`, but what they say is not told yet."""
        did = bool(self.leader.outbox)
        self.leader.write(batches)
        return did

    def do_crash(self) -> bool:
        """The leader dies with what it had not committed, and had committed and not told."""
        did, _ = self.leader.alive, self.leader.die()
        return did

    def do_boot(self) -> bool:
        if self.leader.alive:
            return False
        self._lead()
        return True

    def do_takeover(self) -> bool:
        """Another server has the lock; the old leader does not know it yet."""
        if self.deposed is not None:
            self.deposed.die()
        self.deposed = self.leader
        self._lead()
        return True

    def _lead(self) -> None:
        self.ahead.close()
        self.ahead = Tables(self.disk)
        self.disk.epoch += 1
        self.leader = self.new_server(self.disk.epoch)
        self.promises.restarted()

    def do_depose(self) -> bool:
        """The old leader tells what it committed in time, tries to commit more, and is refused."""
        if self.deposed is None:
            return False
        if self.deposed.alive:
            self.deposed.tell()
            self.deposed.write(1)
        self.deposed = None
        return True

    # the network

    def do_connect(self, name: str, old: bool = False) -> bool:
        """The agent dials and greets; `old`: the server that was replaced."""
        node, server = self.nodes.get(name), self.deposed if old else self.leader
        if self._still(name) or {(name, "in"), (name, "out")} & self.cuts:
            return False
        if node is None or not node.up or node.connection or server is None or not server.alive:
            return False
        self.accepted += 1
        node.connection = Connection(self.accepted, node, server)
        node.connection.to_server.append(node.hello())
        self.notice("arrive", name)
        return True

    def do_arrive(self, name: str, late: bool = False) -> bool:
        """One message reaches the server; `late`: of a connection that the agent has left."""
        if name not in self.nodes:
            return False
        link = self.stale[name][0] if late and self.stale[name] else self.nodes[name].connection
        if link is None or not link.to_server or link.left != late or (name, "out") in self.cuts:
            return False
        message = link.to_server.popleft()
        if late and not link.to_server:
            self.stale[name].popleft()
        link.server.arrived(link, message)
        return True

    def do_again(self, name: str) -> bool:
        """The latest report comes once more."""
        node = self.nodes.get(name)
        if node is None or node.connection is None or not node.welcomed or node.echo is None:
            return False
        node.connection.server.arrived(node.connection, node.echo)
        return True

    def do_deliver(self, name: str, messages: int = 1000) -> bool:
        """The next messages reach the agent."""
        node = self.nodes.get(name)
        link = node.connection if node else None
        if node is None or link is None or not link.to_agent or (name, "in") in self.cuts:
            return False
        if node.frozen:
            return False
        for _ in range(min(messages, len(link.to_agent))):
            node.receive(link.to_agent.popleft())
            if node.connection is not link:  # the server is an old one, and was refused
                self.left(link, True)
                break
        return True

    def do_break(self, name: str, lost: bool) -> bool:
        """The connection breaks for the agent; what it sent is lost, or comes late."""
        node = self.nodes.get(name)
        if node is None or node.connection is None:
            return False
        self._leave(node, lost)
        return True

    def _leave(self, node: Node, lost: bool) -> None:
        link = node.connection
        node.hang_up()
        if link is not None:
            self.left(link, lost)

    def left(self, link: Connection, lost: bool) -> None:
        name = link.node.name
        if lost:
            link.to_server.clear()
        if link.to_server:
            self.stale[name].append(link)
            for _ in link.to_server:
                self.notice("late", name)
        self.notice("gone", name)
        if link.node.up:
            self.notice("dial", name)

    def do_hangup(self, name: str) -> bool:
        """The agent sees that the server closed its connection."""
        node = self.nodes.get(name)
        if node is None or node.connection is None or not node.connection.closed:
            return False
        if node.frozen or (name, "in") in self.cuts:
            return False
        self._leave(node, True)
        return True

    def do_notice(self, name: str) -> bool:
        """The server sees that an agent's connection is gone."""
        for server in (self.leader, self.deposed):
            if server is None or not server.alive or name not in server.cluster.node_names:
                continue
            link = server.links.get(server.cluster.node_names[name])
            if link is not None and link.left:
                link.to_server.clear()
                if link in self.stale[name]:
                    self.stale[name].remove(link)
                return server.lost(link)
        return False

    # nodes

    def do_report(self, name: str) -> bool:
        return name in self.nodes and not self._still(name) and self.nodes[name].report()

    def do_go(self, name: str, run: str, end: str) -> bool:
        """The latest attempt of a run on a node gets on by one state."""
        node = self.nodes.get(name)
        key = node.find(run) if node else None
        if self._still(name):
            return False
        return node is not None and key is not None and node.go(key, ENDS[end])

    def do_agent(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or not node.up:
            return False
        self._down(node, node.crash)
        return True

    def _down(self, node: Node, fault: Any) -> None:
        link = node.connection
        fault()
        if link is not None:
            self.left(link, False)
        self.notice("down", node.name)

    def do_begin(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or node.up or node.frozen:
            return False
        node.begin()
        self.notice("dial", name)
        return True

    def do_keeper(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or node.orphaned:
            return False
        node.keeper_dies()
        return True

    def do_bury(self, name: str) -> bool:
        node = self.nodes.get(name)
        if node is None or not node.orphaned or not node.up or node.frozen:
            return False
        node.bury()
        return True

    def do_reboot(self, name: str, keeps_disk: bool) -> bool:
        node = self.nodes.get(name)
        if node is None:
            return False
        self._down(node, lambda: node.reboot(keeps_disk))
        return True


__all__ = ["ENDS", "KINDS", "Broken", "Step", "World", "task"]
