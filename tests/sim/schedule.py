"""Makes schedules: a discrete-event simulation in virtual time, all of it from one seed.

What the world says will have to happen is given a time (latency, duration, delay before a retry);
users and faults come at random between. Steps that did something are kept: they are the schedule.
Each seed has its own mixture of faults, some without any of a kind.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from sim.world import ENDS, EPOCH_BEGINS, KINDS, Step, World

USERS = {"submit": 30.0, "cancel": 5.0, "delete": 4.0}
FAULTS = {
    "break": 10.0,
    "agent": 5.0,
    "reboot": 2.0,
    "keeper": 2.0,
    "full": 0.7,
    "lack": 1.0,
    "clock": 3.0,
    "crash": 0.2,
    "takeover": 0.2,
    "again": 6.0,
    "connect": 1.0,
    "cut": 4.0,
    "freeze": 2.0,
}
BEAT = 5.0
"""Seconds between two signs of life of a node, and between two looks of the server."""
PATIENCE = 20
"""How often a user asks again: some things are refused for good."""
ON_SERVER = frozenset({"crash", "takeover"})
AMBUSHED = frozenset({"deliver", "go", "connect", "commit", "write", "submit", "begin"})


class Schedule:
    """`run` makes the next steps and carries them out; `steps` are those so far."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.dice = dice = random.Random(seed)
        kinds = sorted(KINDS)
        self.nodes = {f"n{n}": dice.choice(kinds) for n in range(1, nodes + 1)}
        self.names = list(self.nodes)
        self.world = World(self.nodes)
        self.steps: list[Step] = []
        self.faults = {
            kind: weight * dice.choice((0, 0.5, 1, 3)) for kind, weight in FAULTS.items()
        }
        self.faults["crash"] *= min(10.0, 20 / nodes)  # what they cost grows with the cluster
        self.faults["takeover"] *= min(10.0, 20 / nodes)
        # How often a fault follows right after a step, where it happened.
        self.ambush = dice.choice((0.0, 0.01, 0.03))
        self.pace = dice.choice((0.3, 1.0, 1.0, 3.0)) * 12.0 / nodes
        """Mean seconds between two faults: a node meets one every few seconds."""
        # Where all ask for the same, short jobs are sent ahead to full nodes.
        self.cpus = dice.choice(((1,), (1, 2), (0.5, 1, 1, 2, 4)))
        self.memories = dice.choice(((0,), (4,), (0, 0, 4, 12)))
        # Many seeds have jobs on several nodes, some of them nothing else.
        most = min(nodes, 4)
        self.ranks = dice.choice(((1,), (1,), (1, 1, 1, 2, most), (2, most)))
        self.policies = dice.choice(
            (
                ("any all-done",),
                ("any all-done", "any master-done"),
                ("master-first all-done", "workers-first all-done", "master-first master-done"),
            )
        )
        self.alone = (0.0, 0.0, 0.0, 0.1)[seed % 4]
        """How many of all jobs want a node alone."""
        # Live runs per node up to which users submit.
        self.busy = dice.choice((6, 12, 24))
        self.lasts = 3.0
        """Mean seconds of a process that ends by itself."""
        self.away = 25.0
        """Mean seconds that a node is cut off, or stands still."""
        self.reign = 1.0
        """Mean seconds in which a server that was replaced does not know it."""
        self.time = 0.0
        self._heap: list[tuple[float, int, tuple[Any, ...]]] = []
        self._order = count()
        self._due: set[tuple[Any, ...]] = set()
        self._labels = count(1)
        self._asked: dict[str, Sequence[Sequence[Any]]] = {}
        self._tries: Counter[str] = Counter()
        self._runs: list[str] = []
        self.push(0.0, "user")
        self.push(1.0, "fault")
        self.push(BEAT, "looks")
        for name in self.names:
            self.push(dice.random() * BEAT, "beats", name)
            self.step("pace", name, dice.choice((0.95, 1.0, 1.05)))
        self.losses = dice.choice(((None,), (None, "restart", "wait", "lost")))
        self._react()

    def run(self, events: int) -> None:
        """Until the world has seen so many events in all."""
        world = self.world
        while world.events < events:
            self.time, _, what = heappop(self._heap)
            self._due.discard(what)
            kind, *arguments = what
            special = getattr(self, f"_{kind}", None)
            if special is None:
                self.step(kind, *arguments)
            else:
                special(*arguments)

    def step(self, kind: str, *arguments: Any) -> bool:
        step = (round(self.time, 3), kind, *arguments)
        self.steps.append(step)  # before it is done: it may break the world
        did = self.world.do(step)
        if not did:
            self.steps.pop()
        self._react()
        if did and kind in AMBUSHED and self.dice.random() < self.ambush:
            name = arguments[0] if kind in ("deliver", "go", "connect") else ""
            self.push(self.latency() / 2, "ambushes", name)
        return did

    def push(self, delay: float, *what: Any) -> None:
        heappush(self._heap, (self.time + delay, next(self._order), what))

    def once(self, delay: float, *what: Any) -> None:
        """One at a time is enough."""
        if what not in self._due:
            self._due.add(what)
            self.push(delay, *what)

    # what follows from what happened

    def _react(self) -> None:
        appeared, self.world.appeared = self.world.appeared, []
        for kind, *what in appeared:
            getattr(self, f"on_{kind}")(*what)

    def latency(self) -> float:
        """Seconds that a message takes: mostly few, sometimes as long as jobs do."""
        dice = self.dice.random()
        return 0.001 + 0.05 * dice if dice < 0.95 else 5 * (dice - 0.95) / 0.05

    def _beats(self, name: str) -> None:
        self.push(BEAT, "beats", name)
        self.step("beat", name)

    def _looks(self) -> None:
        self.push(BEAT / 2, "looks")
        self.step("look")

    def on_commit(self) -> None:
        self.once(self.latency() / 4, "commits")

    def _commits(self) -> None:
        dice = self.dice
        kind = "write" if dice.random() < 0.1 else "commit"
        self.step(kind, dice.choice((1, 3, 100, 100)))
        if self.world.leader.outbox or self.world.leader.written:
            self.on_commit()

    def on_pass(self) -> None:
        self.once(self.latency() / 10, "pass")

    def on_ring(self, at: float) -> None:
        due = at - EPOCH_BEGINS - self.world.server_clock - self.time
        self.once(min(max(due, 0.0) + 0.001, 60.0), "ring")

    def on_answers(self) -> None:
        self.push(self.latency(), "answer")

    def on_arrive(self, name: str) -> None:
        self.push(self.latency(), "arrive", name)

    def on_late(self, name: str) -> None:
        self.push(self.dice.expovariate(0.5), "arrive", name, True)

    def on_deliver(self, name: str) -> None:
        self.once(self.latency(), "delivers", name)

    def _delivers(self, name: str) -> None:
        self.step("deliver", name, self.dice.choice((1, 2, 1000, 1000)))
        link = self.world.nodes[name].connection
        if link is not None and link.to_agent:
            self.on_deliver(name)

    def on_report(self, name: str) -> None:
        self.once(self.latency(), "report", name)

    def on_go(self, name: str, launch: Any) -> None:
        """By now it may be staging, running or finishing."""
        forever = "forever" in launch.commands
        node, dice = self.world.nodes[name], self.dice
        key = node.find(launch.run_name)
        running = key is not None and node.claims[key].state == "running"
        if running and forever and node.claims[key].wish is None:
            return
        mean = self.lasts if running else 0.1
        end = "ok" if dice.random() < 0.75 else dice.choice(list(ENDS))
        self.push(dice.expovariate(1 / mean), "go", name, launch.run_name, end)

    def on_bury(self, name: str) -> None:
        self.push(self.dice.expovariate(1.0), "bury", name)

    def on_closed(self, name: str) -> None:
        self.push(self.latency(), "hangup", name)

    def on_gone(self, name: str) -> None:
        if self.dice.random() < 0.8:
            self.push(self.latency() * 10, "notice", name)

    def on_dial(self, name: str) -> None:
        self.once(self.latency() * 4, "dials", name)

    def _dials(self, name: str) -> None:
        if self.step("connect", name):
            if self.faults["break"] and self.dice.random() < 0.2:  # no answer came in time
                self.push(self.latency() / 2, "break", name, False)
        elif not self.world.leader.alive:
            self.push(0.2, "dials", name)

    def on_down(self, name: str) -> None:
        self.push(self.dice.expovariate(0.5), "begin", name)

    # users

    def _user(self) -> None:
        live = len(self.world.leader.cluster.runs)
        rate = 1.5 * len(self.names) * max(0.05, 1 - live / (self.busy * len(self.names)))
        self.push(self.dice.expovariate(rate), "user")
        (kind,) = self.dice.choices(list(USERS), list(USERS.values()))
        if live > 2 * self.busy * len(self.names):  # nodes that fail do not get on
            return
        getattr(self, f"_{kind}s")()

    def _submits(self) -> None:
        label = f"r{next(self._labels)}"
        self._asked[label] = [self._any_task() for _ in range(self.dice.choice((1, 1, 2, 5)))]
        self._submit(label)

    def _submit(self, label: str) -> None:
        tasks = self._asked.get(label, ())
        if label in self.world.answers:
            del self._asked[label]
            self._runs += [f"{label}.{n}" for n in range(len(tasks))]
        elif tasks:
            self.step("submit", label, tasks)
            self._tries[label] += 1
            if self._tries[label] < PATIENCE:  # asks again where no answer came
                self.push(2.0, "submit", label)

    def _any_task(self) -> tuple[Any, ...]:
        dice = self.dice
        return (
            dice.choice(self.cpus),
            dice.choice(self.memories),
            dice.choice((0, 0, 0, 0, 0, 1, 2)) if len(self.cpus) > 1 else 0,
            dice.choice((0, 0, 0, 50)),
            dice.choice((0, 20, 3600)),
            dice.choice(("", "", "", "", "", "", "", "*/2 * * * *")),
            dice.choice(("ends",) * 9 + ("forever",)),
            dice.choice(self.ranks),
            dice.choice(self.policies),
            dice.choice(self.losses),
            self.alone > 0 and dice.random() < self.alone,
        )

    def _cancels(self) -> None:
        live = self.world.leader.cluster.runs
        if live:
            run = live[self.dice.choice(list(live))]
            self.step("cancel", run.name, self.dice.random() < 0.4)

    def _deletes(self) -> None:
        if self._runs:
            at = self.dice.randrange(len(self._runs))
            self._runs[at], self._runs[-1] = self._runs[-1], self._runs[at]
            run = self._runs.pop()
            if not self.step("delete", run) or run in self.world.leader.cluster.names:
                self._runs.append(run)

    # faults

    def _fault(self) -> None:
        self.push(self.dice.expovariate(1 / self.pace), "fault")
        self._strike(self.faults, self.dice.choice(self.names))

    def _ambushes(self, name: str) -> None:
        """On the node where something has just happened, or on the server."""
        struck = {kind: w for kind, w in self.faults.items() if (kind in ON_SERVER) != bool(name)}
        self._strike(struck, name)

    def _strike(self, faults: dict[str, float], name: str) -> None:
        weights = list(faults.values())
        if not any(weights):
            return
        (kind,) = self.dice.choices(list(faults), weights)
        yes = self.dice.random() < 0.5
        match kind:
            case "break":
                self.step("break", name, yes)
            case "reboot":
                self.step("reboot", name, yes)
            case "full":
                self.step("full", name, True)
                self.push(self.dice.expovariate(1.0), "full", name, False)
            case "lack":
                self.step("lack", name, True)
                self.push(self.dice.expovariate(0.2), "lack", name, False)
            case "cut":
                way = self.dice.choice(("in", "out", "both"))
                for one in ("in", "out") if way == "both" else (way,):
                    self.step("cut", name, one)
                self.push(self.dice.expovariate(1 / self.away), "heal", name)
            case "freeze":
                self.step("freeze", name)
                self.push(self.dice.expovariate(1 / self.away), "thaw", name)
            case "clock":
                who = "server" if yes else name
                by = self.dice.choice((-100.0, -1.0, 0.1, 1.0, 100.0))
                self.step("clock", who, by)
            case "crash":
                self.step("crash")
                self.push(self.dice.expovariate(1.0), "boot")
            case "takeover":
                self.step("takeover")
                self.push(self.dice.expovariate(1 / self.reign), "depose")
            case "connect":
                self.step("connect", name, True)
            case _:
                self.step(kind, name)
