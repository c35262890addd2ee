"""The exit code of a run that did not succeed."""

from __future__ import annotations

from moorage.cli.outcome import exit_code
from moorage.protocol.agent import Outcome
from moorage.protocol.api import AttemptView, JobView, RunSummary, RunView
from moorage.specs.task import Task

LOST = Outcome("lost", message="the node was rebooted while it ran")
STOPPED = Outcome("stopped", signal=15)
KILLED = Outcome("signaled", signal=11)


def code(*attempts: tuple[Outcome, ...], own: int | None = None) -> int:
    """Of a job with these attempts; an outcome a rank."""
    tried = [
        AttemptView(number, "n1", "done", 1.0, outcome=outcome, rank=rank)
        for number, ranks in enumerate(attempts, 1)
        for rank, outcome in enumerate(ranks)
    ]
    job = JobView(1, 0, "failed", exit_code=own, attempts=tried)
    summary = RunSummary(1, "train", "ann", "failed", 1.0)
    return exit_code(RunView(summary, Task(), [job]))


def test_a_signal_that_ended_it() -> None:
    assert code((KILLED,)) == 139
    assert code((LOST,), (KILLED,)) == 139
    assert code((KILLED,), (LOST,)) == 1
    assert code((KILLED,), own=3) == 3


def test_ranks_that_stopped_because_of_another_tell_nothing() -> None:
    assert code((STOPPED, LOST, STOPPED)) == 1
    assert code((STOPPED, KILLED, STOPPED)) == 139
