"""Users submit runs: all of a request or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from cronsim import CronSimError

from moorage.core import rows
from moorage.core.cluster import Cluster
from moorage.core.cron import next_firing
from moorage.core.effects import Arm, Effect, Emit, Timer, Wake
from moorage.core.explain import fits_ever
from moorage.core.launch import check_references
from moorage.core.reactor.feed import job_event
from moorage.core.reactor.storages import in_use
from moorage.core.reactor.timers import add_job
from moorage.core.run import Run
from moorage.errors import Conflict, InvalidInput, Problem
from moorage.protocol.api import RunRef, RunRequest
from moorage.specs.mounts import Files, Repo
from moorage.specs.task import Task

SLICE = 100
"""Requests looked at, or accepted, in one go."""


class Submitted(NamedTuple):
    """What the client is told once the effects are durable."""

    runs: list[RunRef]
    effects: list[Effect]


def on_submit(
    cluster: Cluster,
    requests: Sequence[RunRequest],
    user: str,
    now: float,
    *,
    request_id: str,
    names: Iterator[str],
) -> Submitted:
    """Accept all runs, or raise InvalidInput (Conflict for a name in use) and change nothing.

    `names` yields candidates for runs that have none; those in use are passed over, so it must
    never run dry. A repeated `request_id` never gets here: the engine answers it from the store.
    """
    whole = Submitted([], [])
    for part in submission(cluster, requests, user, now, request_id=request_id, names=names):
        whole.runs.extend(part.runs)
        whole.effects.extend(part.effects)
    return whole


def submission(
    cluster: Cluster,
    requests: Sequence[RunRequest],
    user: str,
    now: float,
    *,
    request_id: str,
    names: Iterator[str],
) -> Iterator[Submitted]:
    """The same in parts, so that others are served between two of them: empty ones while requests
    are examined, which change nothing; then runs that nobody may touch, or schedule, before the
    last part, with which all of it is one decision. Nothing is refused after the first run."""
    _refuse_taken(cluster, requests)
    firings: list[float | None] = []
    problems: list[Problem] = []
    for some in _slices(requests):
        firings += _check(cluster, some, now, problems)
        yield Submitted([], [])
    if problems:
        raise InvalidInput(*problems)
    chosen = _names(cluster, requests, names)
    numbers = [cluster.new_run_id() for _ in requests]
    cluster.names.update(zip(chosen, numbers, strict=True))  # nobody else may take them meanwhile
    waiting = zip(requests, chosen, numbers, firings, strict=True)
    for _ in _slices(requests):
        part = Submitted([], [])
        for request, name, number, next_at in islice(waiting, SLICE):
            run = Run(number, name, user, request.spec, now, next_at=next_at)
            part.runs.append(RunRef(run.id, run.name))
            part.effects.extend(_add(cluster, run, request))
        yield part
    refs = [RunRef(number, name) for number, name in zip(numbers, chosen, strict=True)]
    yield Submitted([], [rows.insert_request(user, request_id, refs, now), Wake()])


def _slices(requests: Sequence[RunRequest]) -> Iterator[Sequence[RunRequest]]:
    return (requests[begin : begin + SLICE] for begin in range(0, len(requests), SLICE))


def _names(cluster: Cluster, requests: Sequence[RunRequest], names: Iterator[str]) -> list[str]:
    """One name a run; those that users wrote take precedence over generated ones."""
    taken = _refuse_taken(cluster, requests)
    chosen: list[str] = []
    for request in requests:
        name = request.spec.name or next(
            name for name in names if name not in taken and name not in cluster.names
        )
        taken.add(name)
        chosen.append(name)
    return chosen


def _refuse_taken(cluster: Cluster, requests: Sequence[RunRequest]) -> set[str]:
    """The names that users wrote; Conflict where one is not free."""
    taken: set[str] = set()
    for name in (request.spec.name for request in requests):
        if name in taken or name in cluster.names:
            raise Conflict(name_in_use(name))
        if name is not None:
            taken.add(name)
    return taken


def name_in_use(name: str | None) -> Problem:
    """What submit and plan say of a name that a live run has."""
    return Problem(f"a live run is called `{name}`", "stop it or choose another name", "name")


def _check(
    cluster: Cluster, requests: Sequence[RunRequest], now: float, problems: list[Problem]
) -> list[float | None]:
    """Add every problem of every run; the first firings of those with a schedule."""
    firings: list[float | None] = []
    for request in requests:
        problems += fits_ever(cluster, request.spec)
        problems += check_references(request.spec)
        try:
            firings.append(_first_firing(request.spec, now))
        except CronSimError as error:
            problems.append(Problem(f"no such time: {error}", field="schedule.cron"))
            firings.append(None)
    return firings


def _first_firing(task: Task, now: float) -> float | None:
    return None if task.schedule is None else next_firing(task.schedule.cron, now)


def _add(cluster: Cluster, run: Run, request: RunRequest) -> list[Effect]:
    cluster.add_run(run)
    after: list[Effect] = []
    if run.next_at is None:
        job = add_job(cluster, run, run.submitted_at)
        after = [rows.insert_job(job), job_event(job)]
    else:
        after = [Arm(Timer("cron", run.id), run.next_at)]
    blobs = [rows.insert_run_blob(run, digest, kind) for digest, kind in blobs_of(run.task)]
    data = {"name": run.name, "user": run.user, "state": run.state}
    told = Emit("run.submitted", run.id, data=data)
    buckets = in_use(cluster, run, run.submitted_at)
    return [rows.insert_run(run, request), *blobs, *buckets, told, *after]


def blobs_of(task: Task) -> list[tuple[str, str]]:
    """Digests that the task's mounts name, each once, with their kind (`tree` or `blob`)."""
    found: dict[tuple[str, str], None] = {}
    for mount in task.mounts:
        if isinstance(mount, Files | Repo) and mount.tree is not None:
            found[(mount.tree, "tree")] = None
        if isinstance(mount, Repo) and mount.pack is not None:
            found[(mount.pack, "blob")] = None
    return list(found)
