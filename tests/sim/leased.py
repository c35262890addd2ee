"""A node's lease: what it may count on, and what ends with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from moorage.protocol.agent import Beat, Held, Launch, Outcome, Phase
from sim.ledger import Ledger

FENCED = Outcome("node-lost", signal=9, message="ended by its node")
LEASE, PART = 30.0, 2 / 3


@dataclass(slots=True)
class Claim:
    """One attempt directory, and the process that it may have."""

    launch: Launch
    state: str = "staging"
    alive: bool = False
    began: float | None = None
    ended: float | None = None
    """When the process started and ended, by the node's clock."""
    exit: Outcome | None = None
    """What the keeper wrote down."""
    wish: Outcome | None = None
    """A Stop that came."""
    outcome: Outcome | None = None
    fenced: bool = False
    """It ends with the node's lease."""

    def held(self, key: str) -> Held:
        phases = [Phase("claim", 1.0, 1.5)]
        if self.began is not None:
            ended = self.began if self.ended is None else self.ended
            phases.append(Phase("run", self.began, None if self.state == "running" else ended))
        if self.state == "done":
            phases.append(Phase("clean", 2.0, 2.5))
        return Held(key, self.state, phases, self.outcome)


class Leased(ABC):
    """The part of a node that looks at its own monotonic clock."""

    name: str
    ledger: Ledger
    time: Callable[[], float]
    up: bool
    orphaned: bool
    claims: dict[str, Claim]
    lines: dict[str, dict[str, Launch]]

    def __init__(self) -> None:
        self.pace = 1.0
        """Of its monotonic clock."""
        self.frozen = False
        self.until = 0.0
        """When its lease ends."""
        self.contact = 0.0
        self.beats: dict[int, float] = {}
        self.beaten = 0
        self.told: list[str] = []
        """What the server knows once it has answered."""

    @abstractmethod
    def _exit(self, key: str, claim: Claim, end: Outcome) -> None: ...

    @abstractmethod
    def _finish(self, key: str, claim: Claim, outcome: Outcome) -> None: ...

    def beat(self) -> Beat:
        """A sign of life."""
        self.beaten += 1
        self.beats[self.beaten] = self.time()
        return Beat(self.beaten)

    def answered(self, number: int) -> None:
        """The server has heard what was sent then."""
        sent = self.beats.pop(number, None)
        if sent is None:
            return
        self.contact = sent
        if sent + LEASE * PART / self.pace > self.time():
            self.until = sent + LEASE * PART / self.pace

    def expire(self) -> None:
        """The keeper, and the agent if there is one, see that the lease has ended."""
        self.until = 0.0
        self.ledger.lapsed.add(self.name)
        self.lines.clear()
        for key, claim in self.claims.items():
            if claim.fenced and claim.state != "done":
                self.fall(key, claim)

    def fall(self, key: str, claim: Claim) -> None:
        self.ledger.fenced(key)
        if claim.state == "running" and claim.alive:
            self.ledger.shaken.add(key)
            claim.wish = FENCED
            self._exit(key, claim, FENCED)
        elif claim.state == "staging" and self.up and not self.orphaned:
            self._finish(key, claim, FENCED)

    def settle(self) -> None:
        """The server knows these: what came out of a line is fenced no longer."""
        for key in self.told:
            if key in self.claims:
                self.claims[key].fenced = self.claims[key].launch.fence
