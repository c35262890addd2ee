"""A run: its state follows from its jobs and is never set by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage.core.job import Ending, ShownState, Stopping
from moorage.ids import JobId, NodeId, RunId
from moorage.protocol.api import RunState
from moorage.specs.task import Task

_BUSIEST: tuple[ShownState, ...] = ("running", "finishing", "starting", "queued")
_WORST: tuple[ShownState, ...] = ("failed", "cancelled")


@dataclass(slots=True)
class Inquiry:
    """Nodes were asked whether they too refuse the run's jobs, for one reason."""

    at: float
    asked: int
    refusing: Mapping[NodeId, str] = field(default_factory=dict)
    """Those that would, with the reason; empty until all have answered."""


@dataclass(slots=True)
class Run:
    """A live run. Jobs that ended are only counted here; the store has the rest."""

    id: RunId
    name: str
    user: str
    task: Task
    submitted_at: float
    jobs: int = 0
    """How many jobs it has had: the index of the next one."""
    live: set[JobId] = field(default_factory=set)
    counts: Counter[ShownState] = field(default_factory=Counter)
    """Jobs by state. Of a scheduled run, only the live ones: earlier firings are history."""
    stopping: Stopping = Stopping.NO
    last: Ending | None = None
    """Of the first job that failed; while none did, of the latest that ended or is retried. Of a
    scheduled run, of the latest; once a user stops it, that."""
    started_at: float | None = None
    next_at: float | None = None
    """When the schedule fires next."""
    node: str = ""
    """The node, and the attempt there, that changed last."""
    attempt: int = 0
    inquiries: dict[str, Inquiry] = field(default_factory=dict, compare=False)
    """By reason, the latest last. Only here: a server that starts asks again."""

    @property
    def state(self) -> RunState:
        """As busy as its busiest job; when none is live, as bad as its worst."""
        counted = self.counts.get  # a Counter's own way to say 0 is ten times slower
        for state in _BUSIEST:
            if counted(state):
                return state
        if self.task.schedule is not None:
            return "cancelled" if self.stopping else "scheduled"
        for state in _WORST:
            if counted(state):
                return state
        return "succeeded"

    def count(self, before: ShownState | None, after: ShownState) -> None:
        """One job went from `before` (None: it is new) to `after`."""
        if before is not None:
            self._change(before, -1)
        if self.task.schedule is None or after in _BUSIEST:
            self._change(after, 1)

    def _change(self, state: ShownState, by: int) -> None:
        """Zeros are dropped, so that equal runs compare equal."""
        count = self.counts.get(state, 0) + by
        if count:
            self.counts[state] = count
        else:
            del self.counts[state]

    def note(self, ending: Ending) -> None:
        """Remember how a job of it ended, or failed and is retried."""
        if self.task.schedule is not None:
            self.last = self.last if self.stopping else ending
        elif not self.counts["failed"]:
            self.last = ending
