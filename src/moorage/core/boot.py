"""The cluster as the store's rows say it was: what a restarted server begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from moorage.core.cluster import Cluster
from moorage.core.effects import Arm, Effect, Timer, Wake
from moorage.core.fleet import LiveFleet, LiveHost
from moorage.core.job import (
    Ending,
    Finishing,
    Job,
    JobState,
    Prefilled,
    Queued,
    Rank,
    Running,
    Starting,
    Stopping,
)
from moorage.core.node import NOTHING, Node
from moorage.core.refusals import refused, shapes_beside
from moorage.core.run import Run
from moorage.core.storage import LiveStorage, LiveStore
from moorage.decoding import from_json, json_decoder
from moorage.ids import AttemptKey, JobId, NodeId, RunId
from moorage.protocol.agent import Held, Isolation, NodeResources, Outcome, Phase, Usage
from moorage.specs.fleet import Fleet, Host
from moorage.specs.task import Task

Row = Mapping[str, Any]
_gpus = json_decoder(tuple[int, ...])


def restore(
    *,
    runs: Iterable[Row],
    jobs: Iterable[Row],
    attempts: Iterable[Row],
    nodes: Iterable[Row],
    ids: Row,
    earlier_attempts: Iterable[Row] = (),
    dropped_logs: Iterable[Row] = (),
    fleets: Iterable[Row] = (),
    hosts: Iterable[Row] = (),
    node_places: Iterable[Row] = (),
    stores: Iterable[Row] = (),
    storages: Iterable[Row] = (),
) -> Cluster:
    """From the rows of the queries of these names (`ids`: of `max_ids`).

    Every node counts as down until its agent greets.
    """
    cluster = Cluster(next_run=ids["run"] + 1, next_job=ids["job"] + 1, next_node=ids["node"] + 1)
    for row in nodes:
        cluster.add_node(_node(row))
    _place_nodes(cluster, fleets, hosts, node_places)
    cluster.stores = {row["name"]: _store(row) for row in stores}
    cluster.storages = {row["name"]: _storage(row) for row in storages}
    for row in dropped_logs:
        cluster.nodes[NodeId(row["node_id"])].dropped_logs[row["attempt"]] = None
    for row in runs:
        cluster.add_run(_run(row))
    live: dict[tuple[int, int], list[Row]] = {}
    for row in attempts:
        live.setdefault((row["job_id"], row["attempt"]), []).append(row)
    refusals = _refusals(earlier_attempts)
    for row in jobs:
        # A job in line is stored as queued; its row of `attempts` tells.
        number = row["attempt"] + (row["state"] == "queued")
        found = live.get((row["id"], number), [])
        _add_job(cluster, row, found, refusals.get(row["id"], {}))
    return cluster


def _refusals(rows: Iterable[Row]) -> dict[int, dict[NodeId, str]]:
    """What jobs met at nodes that could not run them."""
    found: dict[int, dict[NodeId, str]] = {}
    for (job, _), ranks in groupby(rows, lambda row: (row["job_id"], row["attempt"])):
        met = [(NodeId(row["node_id"]), _outcome(row["outcome"])) for row in ranks]
        found[job] = refused(found.get(job, {}), met)
    return found


def _outcome(text: str) -> Outcome:
    return from_json(text, Outcome)


def _place_nodes(
    cluster: Cluster, fleets: Iterable[Row], hosts: Iterable[Row], places: Iterable[Row]
) -> None:
    """Which node is which host of which fleet."""
    for row in places:
        node = cluster.nodes[NodeId(row["id"])]
        node.fleet, node.hostname = row["fleet"], row["hostname"]
        node.draining, node.gone = bool(row["draining"]), bool(row["gone"])
        if node.draining and not node.gone:
            cluster.draining.add(node.id)
    for row in fleets:
        spec = from_json(row["spec"], Fleet)
        fleet = LiveFleet(spec, row["state"], row["created_at"], row["updated_at"])
        cluster.fleets[fleet.name] = fleet
    for row in hosts:
        host = LiveHost(
            fleet=row["fleet"],
            num=row["num"],
            spec=from_json(row["spec"], Host),
            state=row["state"],
            changed_at=row["changed_at"],
            message=row["message"],
            fix=row["fix"],
            facts=row["facts"],
            node=None if row["node_id"] is None else NodeId(row["node_id"]),
            force=bool(row["force"]),
        )
        cluster.fleets[host.fleet].hosts[host.num] = host
        cluster.hosts_by_node[host.name] = host
        if host.node is not None:
            cluster.nodes[host.node].split(host.spec.blocks)
            cluster.nodes[host.node].runtime = cluster.fleets[host.fleet].spec.runtime


def _store(row: Row) -> LiveStore:
    flags = {name: bool(row[name]) for name in ("path_style", "anonymous")}
    return LiveStore(**{**row, **flags})


def _storage(row: Row) -> LiveStorage:
    flags = {name: bool(row[name]) for name in ("made", "persistent")}
    unflushed = from_json(row["unflushed"], set[str])
    return LiveStorage(**{**row, **flags, "unflushed": unflushed})


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
        resources=from_json(row["resources"], NodeResources),
        isolation=from_json(row["isolation"], Isolation),
        pythons=from_json(row["pythons"], list[str]),
        up=False,
        lost=row["state"] == "lost",
        last_seen=row["last_seen"],
        address=row["address"],
    )


def _run(row: Row) -> Run:
    return Run(
        id=RunId(row["id"]),
        name=row["name"],
        user=row["user"],
        task=from_json(row["spec"], Task),
        submitted_at=row["submitted_at"],
        jobs=row["jobs"],
        stopping=Stopping(row["stopping"]),
        last=_ending(row),
        started_at=row["started_at"],
        next_at=row["next_at"],
        node=row["node"],
        attempt=row["attempt"],
    )


def _add_job(
    cluster: Cluster, row: Row, attempts: Sequence[Row], refusals: dict[NodeId, str]
) -> None:
    """`attempts`: one row a rank."""
    run = cluster.runs[RunId(row["run_id"])]
    shapes = shapes_beside(cluster, run, refusals)
    missing = _missing(cluster, attempts, len(shapes))
    ranks = [*attempts, *missing] if len(attempts) + len(missing) == len(shapes) else []
    ranks.sort(key=lambda attempt: attempt["rank"])
    job = Job(
        id=JobId(row["id"]),
        run=run.id,
        index=row["idx"],
        shape=shapes[0],
        gang=shapes if len(shapes) > 1 else (),
        priority=run.task.priority,
        queued_at=row["queued_at"],
        state=_state(row, ranks),
        stopping=Stopping(row["stopping"]),
        failed_at=row["failed_at"],
        started_at=row["started_at"],
        refusals=refusals,
    )
    claims = [
        NOTHING
        if attempt in missing
        else cluster.nodes[NodeId(attempt["node_id"])].claim(shape, _gpus(attempt["gpus"]))
        for shape, attempt in zip(shapes, ranks, strict=bool(ranks))
    ]
    cluster.add_job(job, *claims)
    cluster.unrecorded += [(job.id, attempt["rank"]) for attempt in missing if ranks]


def _missing(cluster: Cluster, attempts: Sequence[Row], ranks: int) -> list[Row]:
    """Rows for those ranks that have none, where others have: on nodes of which the job has none,
    of which any may be the right one."""
    if not attempts or len(attempts) >= ranks:
        return []
    known = {row["rank"] for row in attempts}
    used = {row["node_id"] for row in attempts}
    free = (node for node in sorted(cluster.nodes) if node not in used)
    lost = (rank for rank in range(ranks) if rank not in known)
    return [
        {**attempts[0], "rank": rank, "node_id": node, "state": "assigned"}
        for rank, node in zip(lost, free, strict=False)
    ]


def _state(row: Row, attempts: Sequence[Row]) -> JobState:
    attempt = attempts[0] if attempts else None
    if attempt is not None and attempt["state"] == "prefilled":
        return Prefilled(NodeId(attempt["node_id"]), attempt["attempt"], _ending(row))
    if row["state"] == "queued" or attempt is None:
        return Queued(row["attempt"] + 1, row["not_before"], _ending(row))
    (node, held), *workers = (Rank(NodeId(a["node_id"]), _held(a)) for a in attempts)
    number, others, cause = row["attempt"], tuple(workers), row["cause"]
    if row["state"] == "starting" or held is None:
        return Starting(node, number, held, others, cause)
    state = Running if row["state"] == "running" else Finishing
    return state(node, number, held, others, cause)


def _held(row: Row) -> Held | None:
    """None where the node has not said that it holds the claim."""
    if row["state"] == "assigned":
        return None
    outcome, usage = row["outcome"], row["usage"]
    return Held(
        key=str(AttemptKey(JobId(row["job_id"]), row["attempt"], row["rank"])),
        state=row["state"],
        phases=from_json(row["phases"], list[Phase]),
        outcome=None if outcome is None else _outcome(outcome),
        usage=None if usage is None else from_json(usage, Usage),
    )


def _ending(row: Row) -> Ending | None:
    """None where nothing has ended yet."""
    ending = Ending(row["reason"], row["message"], row["exit_code"])
    return None if ending == Ending("", "", None) else ending
