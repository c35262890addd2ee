"""The rows that decisions write: one function a query of the store, parameters as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from moorage.core.effects import Write
from moorage.core.job import Ending, Final, Job, JobState, Live, Prefilled, Queued, Waiting, shown
from moorage.core.node import Node, Reservation
from moorage.core.progress import began
from moorage.core.run import Run
from moorage.ids import NodeId
from moorage.protocol.agent import Held, Outcome
from moorage.protocol.api import FINAL_STATES, RunRef, RunRequest

NO_ENDING = Ending("", "", None)
_encode = msgspec.json.Encoder().encode


def text(value: Any) -> str:
    """A JSON column."""
    return _encode(value).decode()


def insert_run(run: Run, request: RunRequest) -> Write:
    changing = dict(update_run(run, run.submitted_at).params)
    fixed = {
        "name": run.name,
        "user": run.user,
        "priority": run.task.priority,
        "spec": text(run.task),
        "source": request.source,
        "dialect": request.dialect,
        "tags": text(run.task.tags),
        "submitted_at": run.submitted_at,
    }
    return Write("insert_run", changing | fixed)


def insert_request(user: str, request_id: str, runs: Sequence[RunRef], now: float) -> Write:
    params = {"user": user, "id": request_id, "runs": text(runs), "at": now}
    return Write("insert_request", params)


def update_run(run: Run, now: float) -> Write:
    last, state = run.last or NO_ENDING, run.state
    params = {
        "id": run.id,
        "state": state,
        "reason": last.reason,
        "message": last.message,
        "exit_code": last.exit_code,
        "started_at": run.started_at,
        "ended_at": now if state in FINAL_STATES else None,
        "next_at": run.next_at,
        "stopping": int(run.stopping),
        "node": run.node,
        "attempt": run.attempt,
    }
    return Write("update_run", params)


def insert_run_blob(run: Run, digest: str, kind: str) -> Write:
    return Write("insert_run_blob", {"run_id": run.id, "digest": digest, "kind": kind})


def insert_job(job: Job) -> Write:
    fixed = {"run_id": job.run, "idx": job.index}
    return Write("insert_job", dict(update_job(job).params) | fixed)


def update_job(job: Job) -> Write:
    """`attempt` counts those begun, so a queued job's is one less than the one to come."""
    state = job.state
    ending = _ending(state) or NO_ENDING
    params = {
        "id": job.id,
        "state": shown(state.name),
        "reason": ending.reason,
        "message": ending.message,
        "exit_code": ending.exit_code,
        "attempt": state.attempt - 1 if isinstance(state, Waiting) else state.attempt,
        "node_id": None if isinstance(state, Waiting) else state.node,
        "not_before": state.not_before if isinstance(state, Queued) else None,
        "stopping": int(job.stopping),
        "failed_at": job.failed_at,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "ended_at": state.ended_at if isinstance(state, Final) else None,
        "cause": state.cause if isinstance(state, Live) else None,
    }
    return Write("update_job", params)


def insert_attempt(job: Job, node: NodeId, claim: Reservation, now: float, rank: int = 0) -> Write:
    """`gpus` says which were reserved: after a restart the same must be taken again. The row of a
    job in line is all that is written of it: to users it is queued as before."""
    params = {
        "job_id": job.id,
        "attempt": job.state.attempt,
        "rank": rank,
        "node_id": node,
        "state": "prefilled" if isinstance(job.state, Prefilled) else "assigned",
        "gpus": text(list(claim.gpus)),
        "assigned_at": now,
    }
    return Write("insert_attempt", params)


def assign_attempt(job: Job, now: float) -> Write:
    """A job in line got room from the server."""
    params = {"job_id": job.id, "attempt": job.state.attempt, "assigned_at": now}
    return Write("assign_attempt", params)


def delete_attempt(job: Job, attempt: int) -> Write:
    """It left the line before its turn: nothing of it ran, or ever will."""
    return Write("delete_attempt", {"job_id": job.id, "attempt": attempt})


def update_attempt(
    job: Job, state: Live | Prefilled, held: Held, now: float, rank: int = 0
) -> Write:
    params = {
        "job_id": job.id,
        "attempt": state.attempt,
        "rank": rank,
        "state": held.state,
        "started_at": began(held) if job.gang else job.started_at,
        "ended_at": now if held.state == "done" else None,
        "phases": text(held.phases),
        "outcome": None if held.outcome is None else text(held.outcome),
        "usage": None if held.usage is None else text(held.usage),
    }
    return Write("update_attempt", params)


def judge_attempt(job: Job, attempt: int, rank: int, outcome: Outcome) -> Write:
    """All nodes refused it, so that counts as a failure of its own."""
    params = {"job_id": job.id, "attempt": attempt, "rank": rank, "outcome": text(outcome)}
    return Write("judge_attempt", params)


def upsert_node(node: Node) -> Write:
    params = {
        "id": node.id,
        "name": node.name,
        "boot_id": node.boot_id,
        "state": node.state,
        "version": node.version,
        "resources": text(node.resources),
        "isolation": text(node.isolation),
        "pythons": text(node.pythons),
        "last_seen": node.last_seen,
        "address": node.address,
    }
    return Write("upsert_node", params)


def _ending(state: JobState) -> Ending | None:
    if isinstance(state, Waiting):
        return state.last
    return state.ending if isinstance(state, Final) else None
