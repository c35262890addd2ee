"""A job's states, each with exactly its own data, and the table of what may follow what.

    queued -> starting -> running -> finishing -> succeeded | failed | cancelled
    queued -> prefilled -> starting              given to a full node, in line for a place there
    starting, running, finishing -> queued       a retry, after the attempt is known to be over
    prefilled -> queued                          taken back out of the line: nothing ran
    queued, prefilled -> cancelled               nothing runs

To users a job in line is `queued`: it waits, and holds no resources. A cancelled live attempt only
gets `stopping`; its final state comes with the agent's report that nothing of it is left.

A job on several nodes has a rank on each, and one state: `starting` until the process of every
rank has begun, `running` until all have ended, `finishing` until nothing of any is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

from moorage.core.shape import Shape
from moorage.ids import AttemptKey, JobId, NodeId, RunId
from moorage.protocol.agent import Held

ShownState = Literal[
    "queued", "starting", "running", "finishing", "succeeded", "failed", "cancelled"
]
JobStateName = Literal[ShownState, "prefilled"]


class Event(Enum):
    """What can happen to a job."""

    ASSIGN = "a node has room for it"
    PREFILL = "no node has room: it stands in line on one"
    RETRACT = "taken out of the line before its turn came"
    SPAWN = "its process started"
    EXIT = "its process ended, or will never start"
    SUCCEED = "all is done, exit code 0"
    FAIL = "all is done, it failed for good"
    CANCEL = "all is done, a user wanted it stopped"
    RETRY = "all is done, it failed and is tried again"


class Stopping(IntEnum):
    """What a user asked of a job. Stored as a number; an abort may follow a stop."""

    NO = 0
    STOP = 1
    ABORT = 2


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job, or its latest failed attempt, ended: for programs, for people, for shells."""

    reason: str
    message: str
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Queued:
    """Waits for a node; `attempt` is the one to come, `last` how the one before it failed."""

    name: ClassVar[Literal["queued"]] = "queued"
    attempt: int
    not_before: float | None = None
    last: Ending | None = None


@dataclass(frozen=True, slots=True)
class Prefilled:
    """In line on a node for the place of another job of its shape; nothing is reserved for it.
    `last` as in `Queued`. `retracting`: the node is asked to give it back."""

    name: ClassVar[Literal["prefilled"]] = "prefilled"
    node: NodeId
    attempt: int
    last: Ending | None = None
    retracting: bool = field(default=False, compare=False)


class Rank(NamedTuple):
    """One rank of a live attempt: its node, and what that said last (None: nothing yet)."""

    node: NodeId
    report: Held | None


@dataclass(frozen=True, slots=True)
class Starting:
    """Given to a node. `report` is None until the node says that it holds the claim. Both are
    those of rank 0; `workers` are the other ranks. `cause`: the first rank that did not succeed,
    which ends all others (for jobs with several ranks)."""

    name: ClassVar[Literal["starting"]] = "starting"
    node: NodeId
    attempt: int
    report: Held | None = None
    workers: tuple[Rank, ...] = ()
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """As `Starting`; every rank has begun."""

    name: ClassVar[Literal["running"]] = "running"
    node: NodeId
    attempt: int
    report: Held
    workers: tuple[Rank, ...] = ()
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class Finishing:
    """No process is left (or ever will be); data is being saved and cleaned."""

    name: ClassVar[Literal["finishing"]] = "finishing"
    node: NodeId
    attempt: int
    report: Held
    workers: tuple[Rank, ...] = ()
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class Succeeded:
    name: ClassVar[Literal["succeeded"]] = "succeeded"
    node: NodeId
    attempt: int
    ended_at: float
    ending: Ending


@dataclass(frozen=True, slots=True)
class Failed:
    name: ClassVar[Literal["failed"]] = "failed"
    node: NodeId
    attempt: int
    ended_at: float
    ending: Ending


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`node` is None and `attempt` 0 where nothing of it ever ran."""

    name: ClassVar[Literal["cancelled"]] = "cancelled"
    node: NodeId | None
    attempt: int
    ended_at: float
    ending: Ending


Live = Starting | Running | Finishing
Final = Succeeded | Failed | Cancelled
Waiting = Queued | Prefilled
"""`queued`, to users."""
JobState = Waiting | Live | Final


def ranks_of(state: Live) -> tuple[Rank, ...]:
    """All ranks, in their order."""
    return (Rank(state.node, state.report), *state.workers)


TRANSITIONS: Mapping[tuple[JobStateName, Event], JobStateName] = MappingProxyType(
    {
        ("queued", Event.ASSIGN): "starting",
        ("queued", Event.PREFILL): "prefilled",
        ("queued", Event.CANCEL): "cancelled",
        ("prefilled", Event.ASSIGN): "starting",
        ("prefilled", Event.RETRACT): "queued",
        ("prefilled", Event.CANCEL): "cancelled",
        ("starting", Event.SPAWN): "running",
        ("starting", Event.EXIT): "finishing",
        ("running", Event.EXIT): "finishing",
        ("finishing", Event.SUCCEED): "succeeded",
        ("finishing", Event.FAIL): "failed",
        ("finishing", Event.CANCEL): "cancelled",
        ("finishing", Event.RETRY): "queued",
    }
)
"""A report may skip states: the reactor then walks through those between, so that every watcher
sees the same order. An attempt found lost walks through `finishing` too."""


class IllegalTransition(Exception):
    """A decision that the table does not allow: a defect of the reactor, never of a user."""


def shown(state: JobStateName) -> ShownState:
    """What users see of it."""
    return "queued" if state == "prefilled" else state


def check(before: JobStateName, event: Event, after: JobStateName) -> None:
    """IllegalTransition unless the table leads from `before` by `event` to `after`."""
    if TRANSITIONS.get((before, event)) != after:
        raise IllegalTransition(f"{before} --{event.name.lower()}--> {after}")


@dataclass(slots=True)
class Job:
    """What the scheduler places. Everything that outlives a state is here beside it."""

    id: JobId
    run: RunId
    index: int
    """Position in its run, from 0."""
    shape: Shape
    """What it asks of a node: its rank 0, where it has several."""
    priority: int
    queued_at: float
    """When it entered the queue, the last time."""
    state: JobState
    stopping: Stopping = Stopping.NO
    failed_at: float | None = None
    """Its first failure: `retry.duration` counts from here."""
    started_at: float | None = None
    """When the latest process started; None where the present attempt has none yet."""
    gang: tuple[Shape, ...] = ()
    """What each rank asks for, where there are several; each is on a node of its own."""
    refusals: dict[NodeId, str] = field(default_factory=dict)
    """Nodes that could not run it, and why: its shape leaves them out."""
    lacking: Mapping[NodeId, str] = field(default_factory=dict)
    """Nodes that it has not tried, which said that they would refuse it too. Its shape leaves them
    out as well, unless none were left; a server that starts does not know them."""

    @property
    def order(self) -> tuple[int, JobId]:
        """Its place in the queue: by priority, then by age. A retry keeps the job's number, and
        with it the place."""
        return (-self.priority, self.id)

    @property
    def key(self) -> str:
        """Of its present attempt; of the one to come where it is queued. Of rank 0."""
        return self.rank_key(0)

    def rank_key(self, rank: int) -> str:
        """As `key`, of any rank."""
        return str(AttemptKey(self.id, self.state.attempt, rank))

    def rank_on(self, node: NodeId) -> int:
        """Which rank is on this node; the job is live or in line there."""
        state = self.state
        if not isinstance(state, Live) or state.node == node:
            return 0
        return next(n for n, rank in enumerate(state.workers, 1) if rank.node == node)
