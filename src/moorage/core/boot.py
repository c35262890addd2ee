"""The cluster as the store's rows say it was: what a restarted server begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Timer, Wake
from moorage.core.job import (
    Ending,
    Finishing,
    Job,
    JobState,
    Prefilled,
    Queued,
    Running,
    Starting,
    Stopping,
)
from moorage.core.node import Node, Reservation
from moorage.core.run import Run
from moorage.core.shape import shape_of
from moorage.ids import AttemptKey, JobId, NodeId, RunId
from moorage.protocol.agent import Held, Isolation, NodeResources, Outcome, Phase, Usage
from moorage.specs.task import Task

Row = Mapping[str, Any]


def restore(
    *,
    runs: Iterable[Row],
    jobs: Iterable[Row],
    attempts: Iterable[Row],
    nodes: Iterable[Row],
    ids: Row,
    dropped_logs: Iterable[Row] = (),
) -> Cluster:
    """From the rows of the queries of these names (`ids`: of `max_ids`).

    Every node counts as down until its agent greets.
    """
    cluster = Cluster(next_run=ids["run"] + 1, next_job=ids["job"] + 1, next_node=ids["node"] + 1)
    for row in nodes:
        cluster.add_node(_node(row))
    for row in dropped_logs:
        cluster.nodes[NodeId(row["node_id"])].dropped_logs[row["attempt"]] = None
    for row in runs:
        cluster.add_run(_run(row))
    live = {(row["job_id"], row["attempt"]): row for row in attempts}
    for row in jobs:
        # A job in line is stored as queued; its row of `attempts` tells.
        number = row["attempt"] + (row["state"] == "queued")
        _add_job(cluster, row, live.get((row["id"], number)))
    return cluster


def timers(cluster: Cluster) -> list[Effect]:
    """What to arm and wake after `restore`; a time in the past rings at once."""
    effects: list[Effect] = []
    for run in cluster.runs.values():
        if run.next_at is not None:
            effects.append(Arm(Timer("cron", run.id), run.next_at))
    for job in cluster.jobs.values():
        if isinstance(job.state, Queued) and job.state.not_before is not None:
            effects.append(Arm(Timer("retry", job.id), job.state.not_before))
    return [*effects, Wake()]


def _node(row: Row) -> Node:
    return Node(
        id=NodeId(row["id"]),
        name=row["name"],
        boot_id=row["boot_id"],
        version=row["version"],
        resources=msgspec.json.decode(row["resources"], type=NodeResources),
        isolation=msgspec.json.decode(row["isolation"], type=Isolation),
        pythons=msgspec.json.decode(row["pythons"], type=list[str]),
        up=False,
        last_seen=row["last_seen"],
    )


def _run(row: Row) -> Run:
    return Run(
        id=RunId(row["id"]),
        name=row["name"],
        user=row["user"],
        task=msgspec.json.decode(row["spec"], type=Task),
        submitted_at=row["submitted_at"],
        jobs=row["jobs"],
        stopping=Stopping(row["stopping"]),
        last=_ending(row),
        started_at=row["started_at"],
        next_at=row["next_at"],
        node=row["node"],
        attempt=row["attempt"],
    )


def _add_job(cluster: Cluster, row: Row, attempt: Row | None) -> None:
    run = cluster.runs[RunId(row["run_id"])]
    job = Job(
        id=JobId(row["id"]),
        run=run.id,
        index=row["idx"],
        shape=shape_of(run.task.resources),
        priority=run.task.priority,
        queued_at=row["queued_at"],
        state=_state(row, attempt),
        stopping=Stopping(row["stopping"]),
        failed_at=row["failed_at"],
        started_at=row["started_at"],
    )
    claim = None
    if attempt is not None:
        gpus = msgspec.json.decode(attempt["gpus"], type=tuple[int, ...])
        claim = Reservation(job.shape.millicpus, job.shape.memory, job.shape.disk, gpus)
    cluster.add_job(job, claim)


def _state(row: Row, attempt: Row | None) -> JobState:
    if attempt is not None and attempt["state"] == "prefilled":
        return Prefilled(NodeId(attempt["node_id"]), attempt["attempt"], _ending(row))
    if row["state"] == "queued" or attempt is None:
        return Queued(row["attempt"] + 1, row["not_before"], _ending(row))
    node, number = NodeId(attempt["node_id"]), row["attempt"]
    if attempt["state"] == "assigned":
        return Starting(node, number)
    held = _held(attempt)
    match row["state"]:
        case "starting":
            return Starting(node, number, held)
        case "running":
            return Running(node, number, held)
        case _:
            return Finishing(node, number, held)


def _held(row: Row) -> Held:
    outcome, usage = row["outcome"], row["usage"]
    return Held(
        key=str(AttemptKey(JobId(row["job_id"]), row["attempt"], 0)),
        state=row["state"],
        phases=msgspec.json.decode(row["phases"], type=list[Phase]),
        outcome=None if outcome is None else msgspec.json.decode(outcome, type=Outcome),
        usage=None if usage is None else msgspec.json.decode(usage, type=Usage),
    )


def _ending(row: Row) -> Ending | None:
    """None where nothing has ended yet."""
    ending = Ending(row["reason"], row["message"], row["exit_code"])
    return None if ending == Ending("", "", None) else ending
