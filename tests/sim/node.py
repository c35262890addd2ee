"""A simulated node: its disk, its keeper with processes, its agent.

Modelled: claims survive the agent and, where the disk is kept, a reboot; processes survive the
agent; only the keeper knows exits, and orphans of a dead keeper live until the agent buries them;
a full disk refuses claims; one report is under way at a time, and carries latest states only.
Not modelled: data phases one by one, output, the time a kill takes beyond one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from moorage.ids import AttemptKey, JobId
from moorage.protocol.agent import (
    Ack,
    Beaten,
    DropLogs,
    Dropped,
    Forget,
    Held,
    Hello,
    Isolation,
    Launch,
    NodeResources,
    Outcome,
    Report,
    Retract,
    Start,
    Stop,
    ToAgent,
    ToServer,
    Welcome,
)
from sim.leased import Claim, Leased
from sim.ledger import Ledger

if TYPE_CHECKING:
    from sim.server import Server

OK = Outcome("exited", exit_code=0)
KILLED = {False: Outcome("stopped", signal=15), True: Outcome("aborted", signal=9)}
NO_ROOM = Outcome("phase-failed", phase="claim", message="No space left on device", here=True)
LACKING = Outcome("phase-failed", phase="fetch", message="/data does not exist", here=True)
DIED = Outcome("lost", message="its keeper died")
RESTARTED = Outcome("unstarted", message="the agent was restarted before the process was started")
UNKNOWN = Outcome("stopped", message="not known to its node")


class Notice(Protocol):
    """How a part of the world says that something will have to happen; replays ignore it."""

    def __call__(self, kind: str, *what: object) -> None: ...


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket: messages in order, either way. `number` grows with each accepted one."""

    number: int
    node: Node
    server: Server
    to_server: deque[ToServer] = field(default_factory=deque)
    to_agent: deque[ToAgent] = field(default_factory=deque)
    open: bool = False
    """The server has welcomed the agent: what it decided before is not sent."""
    left: bool = False
    """The agent has closed it; what it sent may still arrive."""
    closed: bool = False
    """The server has closed it; what it sent may still arrive."""


class Node(Leased):
    """`notice`, `ledger` and `time` are the world's; its own clock is `clock` seconds off."""

    def __init__(
        self,
        name: str,
        has: NodeResources,
        ledger: Ledger,
        notice: Notice,
        time: Callable[[], float],
    ) -> None:
        super().__init__()
        self.name, self.has, self.ledger, self.notice = name, has, ledger, notice
        self.time = time
        self.boot = 1
        self.full = False
        self.lacks = False
        """It has not what jobs need, as each finds out that is to begin."""
        self.orphaned = False
        """The keeper died, and its processes are not buried yet."""
        self.claims: dict[str, Claim] = {}
        self.lines: dict[str, dict[str, Launch]] = {}
        """Sent ahead, not claimed; only in the agent's memory."""
        self.refused: dict[str, Held] = {}
        """Claims that the full disk refused, until the server knows."""
        self.logs: set[str] = set()
        self.epoch = 0
        self.clock = 0.0
        self.up = True
        self.connection: Connection | None = None
        self.welcomed = False
        self.changed: dict[str, Held | None] = {}
        self.sent = self.acked = 0
        self.echo: Report | None = None
        """The latest report: it may come twice."""

    # the agent and its connection

    def hello(self) -> Hello:
        self.beats = {0: self.time()}
        self.told = list(self.claims)
        self.changed.clear()
        self.refused.clear()
        self.welcomed = False
        held = [claim.held(key) for key, claim in self.claims.items()]
        held += [Held(key, "waiting") for line in self.lines.values() for key in line]
        return Hello(
            1, "0.1", self.name, f"{self.name}-{self.boot}", self.has, Isolation(), [], held
        )

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.left = True
            self.connection = None
            self.welcomed = False

    def report(self) -> bool:
        """Send what changed, unless an earlier report waits for its Ack."""
        if not self.welcomed or not self.changed or self.sent != self.acked:
            return False
        held = [told or self._held(key) for key, told in self.changed.items()]
        self.told = list(self.changed)
        self.changed.clear()
        self.sent += 1
        self._send(Report(self.sent, [known for known in held if known is not None]))
        return True

    def _held(self, key: str) -> Held | None:
        claim = self.claims.get(key)
        return None if claim is None else claim.held(key)

    def _send(self, report: Report) -> None:
        assert self.connection is not None
        self.connection.to_server.append(report)
        claims = [held for held in report.held if held.key in self.claims]
        self.echo = Report(0, claims)
        self.notice("arrive", self.name)

    def tell(self, key: str, held: Held | None = None) -> None:
        self.changed[key] = held
        self.notice("report", self.name)

    def receive(self, message: ToAgent) -> None:
        if not (self.until or isinstance(message, Welcome)):  # it may be old
            self.hang_up()
            return
        match message:
            case Beaten(number=number):
                self.answered(number)
            case Welcome(epoch=epoch):
                self._welcome(epoch)
            case Start(launch=launch, wait=wait):
                self.start(launch, wait)
            case Retract(keys=keys):
                for key in keys:
                    began = not self.leave(key) and key in self.claims
                    self.tell(key, None if began else Held(key, "retracted"))
            case Stop(key=key, abort=abort):
                self.stop(key, abort)
            case Forget(keys=keys):
                for key in keys:
                    self.forget(key)
            case Ack(seq=seq):
                self.acked = max(self.acked, seq)
                if self.acked == self.sent:
                    self.settle()
                if self.changed:
                    self.notice("report", self.name)
            case DropLogs(keys=keys):
                self.logs.difference_update(keys)
                if self.connection is not None:
                    self.connection.to_server.append(Dropped(keys))
                    self.notice("arrive", self.name)

    def _welcome(self, epoch: int) -> None:
        """A server that was replaced and does not know it yet is refused."""
        if epoch < self.epoch:
            self.hang_up()
            return
        if not self.full:
            self.epoch = epoch
        self.welcomed, self.sent, self.acked = True, 0, 0
        self.answered(0)
        self.settle()
        if self.changed:
            self.notice("report", self.name)

    # attempts

    def start(self, launch: Launch, wait: bool) -> None:
        """`mkdir` is the claim: a second one finds it."""
        key = str(AttemptKey(JobId(launch.job), launch.attempt, launch.rank))
        if key in self.claims:
            self.tell(key)
        elif key in self.refused:
            self.tell(key, self.refused[key])
        elif wait:
            self.lines.setdefault(launch.line, {}).setdefault(key, launch)
        else:
            self.leave(key)
            self._claim(key, launch)

    def _claim(self, key: str, launch: Launch, fenced: bool = False) -> bool:
        if self.full:
            self.refused[key] = Held(key, "done", outcome=NO_ROOM)
            self.tell(key, self.refused[key])
            return False
        self.claims[key] = Claim(launch, fenced=fenced or launch.fence)
        self.logs.add(key)
        self.ledger.claimed(self.name, key, launch)
        self.notice("go", self.name, launch)
        return True

    def leave(self, key: str) -> bool:
        """Out of the line, if it stands in one."""
        return any(line.pop(key, None) is not None for line in self.lines.values())

    def _hand_over(self, launch: Launch) -> None:
        """The place of one that is done goes to the next in its line."""
        line = self.lines.get(launch.line, {})
        while launch.line and line and self.until:
            key = next(iter(line))
            if self._claim(key, line.pop(key), fenced=True):
                self.tell(key)
                return

    def stop(self, key: str, abort: bool) -> None:
        claim = self.claims.get(key)
        if claim is None:
            outcome = Outcome("aborted" if abort else "stopped") if self.leave(key) else UNKNOWN
            self.tell(key, Held(key, "done", outcome=outcome))
            return
        if claim.state == "staging":
            self._finish(key, claim, KILLED[abort])
        elif claim.state == "running":
            claim.wish = KILLED[abort]
            self.notice("go", self.name, claim.launch)
        else:
            self.tell(key)

    def forget(self, key: str) -> None:
        self.refused.pop(key, None)
        claim = self.claims.get(key)
        if claim is not None and claim.state == "done":
            del self.claims[key]

    def find(self, run: str) -> str | None:
        """The attempt here of a run's latest job that is not over."""
        for key, claim in reversed(self.claims.items()):
            if claim.launch.run_name == run and claim.state != "done":
                return key
        return None

    def go(self, key: str, end: Outcome) -> bool:
        """An attempt gets on by one state. Its process can end without the agent."""
        claim = self.claims[key]
        if claim.state == "running" and claim.alive:
            self._exit(key, claim, end)
        elif not self.up or self.orphaned:
            return False
        elif claim.state == "staging" and self.lacks:
            self._finish(key, claim, LACKING)
        elif claim.state == "staging":
            claim.state, claim.alive = "running", True
            claim.began = self.time() + self.clock
            self.ledger.spawned(key)
            self.notice("go", self.name, claim.launch)
            self.tell(key)
        elif claim.state == "finishing":
            claim.state = "done"
            self.ledger.over(self.name, key, claim.launch)
            self.tell(key)
            self._hand_over(claim.launch)
        else:
            return False
        return True

    def _exit(self, key: str, claim: Claim, end: Outcome) -> None:
        claim.alive, claim.ended = False, self.time() + self.clock
        if end.kind == "exited" and end.exit_code == 0 and claim.wish is None:
            self.ledger.succeeded.add(key)
        claim.exit = claim.wish or end
        if self.up and not self.orphaned:
            self._finish(key, claim, claim.exit)

    def _finish(self, key: str, claim: Claim, outcome: Outcome) -> None:
        claim.state, claim.outcome = "finishing", outcome
        self.notice("go", self.name, claim.launch)
        self.tell(key)

    # faults

    def crash(self) -> None:
        """The agent dies; processes and disk stay."""
        self.hang_up()
        self.up = False
        self.lines.clear()
        self.changed.clear()
        for key, claim in self.claims.items():
            if claim.state == "staging":
                self.ledger.shaken.add(key)

    def begin(self) -> None:
        """A new agent picks up what earlier ones left."""
        self.up = True
        self.bury()
        for key, claim in self.claims.items():
            if claim.state == "finishing":
                self.notice("go", self.name, claim.launch)
            elif claim.state == "running" and not claim.alive:
                self._finish(key, claim, claim.exit or DIED)
            elif claim.state == "staging":
                self._finish(key, claim, RESTARTED)

    def keeper_dies(self) -> None:
        """Its processes go on until the agent notices and buries them."""
        self.orphaned = True
        for key, claim in self.claims.items():
            if claim.alive:
                self.ledger.shaken.add(key)
        self.notice("bury", self.name)

    def bury(self) -> None:
        """End what no keeper knows, and have a new keeper."""
        if not self.orphaned or not self.up:
            return
        self.orphaned = False
        for key, claim in self.claims.items():
            if claim.state == "running":
                claim.alive = False
                self._finish(key, claim, claim.exit or DIED)
            elif claim.state in ("staging", "finishing"):
                self.notice("go", self.name, claim.launch)

    def reboot(self, keeps_disk: bool) -> None:
        """All processes die; the agent is down until `begin`."""
        self.crash()
        self.boot += 1
        self.until = 0.0
        self.ledger.lapsed.add(self.name)
        self.orphaned = False
        for key, claim in self.claims.items():
            self.ledger.shaken.add(key)
            claim.alive = False
            if claim.state != "done":
                self.ledger.fenced(key)
            if not keeps_disk and claim.state != "done":
                self.ledger.over(self.name, key, claim.launch)
        if not keeps_disk:
            self.claims.clear()
            self.logs.clear()
            self.epoch = 0
            self.full = False
