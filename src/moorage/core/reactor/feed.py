"""Events of jobs and runs, and the row of a run whose jobs changed."""

from __future__ import annotations

from typing import Any

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit
from moorage.core.job import Ending, Final, Job, Live, Prefilled, Queued
from moorage.core.reactor.storages import let_go
from moorage.core.run import Run


def job_event(job: Job) -> Emit:
    """Tell the state that a job has just entered: `job.queued` to `job.ended`."""
    state = job.state
    if isinstance(state, Queued):
        data: dict[str, Any] = {"attempt": state.attempt}
        if state.last is not None:
            data |= {"not_before": state.not_before} | _told(state.last)
        return Emit("job.queued", job.run, job.id, data=data)
    if isinstance(state, Live):
        data = {"attempt": state.attempt}
        return Emit(f"job.{state.name}", job.run, job.id, state.node, data)
    assert not isinstance(state, Prefilled), "nothing to tell: to users it is queued as before"
    return _job_ended(job, state)


def settle(cluster: Cluster, run: Run, now: float) -> list[Effect]:
    """Write the run as its jobs make it; when it has ended, let go of it and say so."""
    effects: list[Effect] = [rows.update_run(run, now)]
    if cluster.ended(run):
        data: dict[str, Any] = {"state": run.state}
        effects.append(Emit("run.ended", run.id, data=data | _told(run.last or rows.NO_ENDING)))
        cluster.drop_run(run)
        effects += let_go(cluster, run, now)
    return effects


def _job_ended(job: Job, state: Final) -> Emit:
    data: dict[str, Any] = {"state": state.name, "attempt": state.attempt}
    return Emit("job.ended", job.run, job.id, state.node, data | _told(state.ending))


def _told(ending: Ending) -> dict[str, Any]:
    return {
        "reason": ending.reason,
        "message": ending.message,
        "exit_code": ending.exit_code,
    }
