"""A simulated node: its disk, its agent, its processes, its connection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from moorage.ids import AttemptKey
from moorage.protocol.agent import (
    Ack,
    Forget,
    GpuDevice,
    Held,
    Hello,
    Isolation,
    NodeResources,
    Outcome,
    Phase,
    Report,
    Retract,
    Start,
    Stop,
)

GPUS = [GpuDevice(n, "nvidia", "H100", 80) for n in range(2)]
NODES = {
    "box": NodeResources(2, "x86", 16, 100, GPUS),
    "rack": NodeResources(4, "x86", 32, 100),
}


@dataclass
class Claim:
    """One attempt directory on a node's disk, and the process that it may have."""

    launch: Start | None
    state: str = "staging"
    ran: bool = False
    outcome: Outcome | None = None

    @property
    def alive(self) -> bool:
        return self.state == "running"

    def held(self, key: str) -> Held:
        steps = ["claim", *(["run"] if self.ran else [])]
        steps += {"finishing": ["flush"], "done": ["flush", "clean"]}.get(self.state, [])
        phases = [Phase(step, float(n), n + 0.5) for n, step in enumerate(steps)]
        return Held(key, self.state, phases, self.outcome)

    def end(self, state: str, outcome: Outcome) -> None:
        self.state, self.outcome = state, outcome


@dataclass
class Machine:
    """A node: its disk (`claims`), its agent, its connection. `to_agent` is what is in flight."""

    name: str
    boot: int = 1
    claims: dict[str, Claim] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    started: Counter[str] = field(default_factory=Counter)
    connected: bool = False
    session: int = 0
    open: bool = False
    """What was decided before the present Hello is answered by it, and no longer sent."""
    to_agent: list[object] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    dirty: dict[str, int] = field(default_factory=dict)
    """Claims to report, by the last report that carried them (0: none yet)."""
    lines: dict[str, dict[str, Start]] = field(default_factory=dict)
    told: dict[str, Held] = field(default_factory=dict)
    """What is to be said of keys that are no claims."""
    seq: int = 0

    def hello(self) -> Hello:
        self.connected, self.open, self.to_agent, self.dirty = True, False, [], {}
        self.told = {}
        self.session += 1
        held = [claim.held(key) for key, claim in self.claims.items()]
        held += [Held(key, "waiting") for line in self.lines.values() for key in line]
        has = NODES[self.name]
        boot = f"{self.name}-{self.boot}"
        return Hello(1, "0.1", self.name, boot, has, Isolation(), ["3.11"], held)

    def report(self) -> Report:
        self.seq += 1
        self.dirty = dict.fromkeys(self.dirty, self.seq)
        held = [
            self.claims[key].held(key) if key in self.claims else self.told[key]
            for key in self.dirty
            if key in self.claims or key in self.told
        ]
        self.reports.append(Report(self.seq, held))
        return self.reports[-1]

    def receive(self) -> None:
        """Handle one message; an agent knows every key it ever claimed until it forgets it."""
        message = self.to_agent.pop(0)
        match message:
            case Start(launch, wait):
                key = str(AttemptKey(launch.job, launch.attempt, launch.rank))
                assert key not in self.forgotten, f"{key} was started after its end"
                if wait and key not in self.claims:
                    self.lines.setdefault(launch.line, {}).setdefault(key, message)
                else:
                    self.leave(key)
                    self.claims.setdefault(key, Claim(message))
                    self.dirty[key] = 0
            case Retract(keys):
                for key in keys:
                    self.dirty[key] = 0
                    if self.leave(key) or key not in self.claims:
                        self.told[key] = Held(key, "retracted")
            case Stop(key, _, abort) if self.leave(key):
                outcome = Outcome("aborted" if abort else "stopped")
                self.told[key], self.dirty[key] = Held(key, "done", outcome=outcome), 0
            case Stop(key, _, abort):
                outcome = Outcome("aborted" if abort else "stopped", signal=15)
                claim = self.claims.setdefault(key, Claim(None))
                if claim.state in ("staging", "running"):
                    claim.end("finishing" if claim.launch else "done", outcome)
                self.dirty[key] = 0
            case Forget(keys):
                for key in keys:
                    claim = self.claims.pop(key, None)
                    assert claim is None or claim.state == "done"
                    self.forgotten.add(key)
                    self.dirty.pop(key, None)
            case Ack(seq):
                self.dirty = {k: n for k, n in self.dirty.items() if n == 0 or n > seq}

    def leave(self, key: str) -> bool:
        """Out of the line, if it stands in one."""
        return any(line.pop(key, None) is not None for line in self.lines.values())

    def hand_over(self, line: str) -> None:
        """A place fell free: the next in line begins."""
        for key, message in list(self.lines.get(line, {}).items())[:1]:
            del self.lines[line][key]
            assert key not in self.claims
            self.claims[key] = Claim(message)
            self.dirty[key] = 0

    def step(self, key: str, outcome: Outcome) -> None:
        """An attempt gets on by one state."""
        claim = self.claims[key]
        match claim.state:
            case "staging":
                claim.state, claim.ran = "running", True
                self.started[key] += 1
            case "running":
                claim.end("finishing", outcome)
            case "finishing":
                claim.state = "done"
                if claim.launch and claim.launch.launch.line:
                    self.hand_over(claim.launch.launch.line)
            case _:
                return
        self.dirty[key] = 0

    def restart(self) -> None:
        """The agent crashed and is back; the keeper kept what runs."""
        self.connected, self.lines = False, {}
        for claim in self.claims.values():
            if claim.state == "staging":
                claim.end("done", Outcome("lost", message="agent restarted"))

    def reboot(self, keeps_claims: bool) -> None:
        self.boot += 1
        self.connected, self.lines = False, {}
        if not keeps_claims:
            self.claims.clear()
        for claim in self.claims.values():
            if claim.state != "done":
                claim.end("done", Outcome("lost", message="node rebooted"))
