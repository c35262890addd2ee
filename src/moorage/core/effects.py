"""What a decision asks for. The engine carries effects out in order: writes first, durable, then
what leaves the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moorage.ids import JobId, NodeId, RunId
from moorage.protocol.agent import Launch, ToAgent


@dataclass(frozen=True, slots=True)
class Write:
    """Run a named query of the store."""

    query: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Emit:
    """Append to the event feed, in the same transaction as the writes beside it."""

    kind: str
    run: RunId | None = None
    job: JobId | None = None
    node: NodeId | None = None
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Tell an agent, after the writes are durable; dropped when it is not connected, because its
    next Hello is answered with the difference."""

    node: NodeId
    message: ToAgent


TimerKind = Literal["retry", "cron", "settle"]


@dataclass(frozen=True, slots=True)
class Timer:
    """What `Arm` wakes: `retry` of a job, the next `cron` firing of a run, or a look at whether a
    node has come to `settle`."""

    kind: TimerKind
    id: int


@dataclass(frozen=True, slots=True)
class Arm:
    """Call `on_timer` at `at` (Unix seconds); replaces an earlier one of the same timer."""

    timer: Timer
    at: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Something was freed or added: run the scheduler once, soon."""


@dataclass(frozen=True, slots=True)
class Stir:
    """Hosts may be other than they should be: look at them. `again`: also at those whose turn,
    after an error, would come later."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class Tidy:
    """Buckets may be there that should go: look at them. `again` as in `Stir`."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask these nodes whether they too would refuse `launch`, of a job of `run`, because of `why`;
    `on_answers` is told. It may stay undone: then they are tried one by one."""

    run: RunId
    why: str
    nodes: tuple[NodeId, ...]
    launch: Launch


Effect = Write | Emit | Send | Arm | Wake | Stir | Tidy | Inquire
