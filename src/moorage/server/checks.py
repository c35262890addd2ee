"""What a submitted run must be like, looked at again here: not every client is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from moorage.core.reactor.submit import blobs_of
from moorage.engine.loop import Check
from moorage.errors import InvalidInput, Problem
from moorage.ids import Digest
from moorage.protocol.api import RunRequest
from moorage.specs.checks import check_task
from moorage.specs.mounts import Files, Repo
from moorage.specs.task import Task
from moorage.store.blobs import Blobs


def problems_of(task: Task) -> list[Problem]:
    """Everything wrong with a spec by itself."""
    return [*check_task(task), *_unfilled(task)]


def _unfilled(task: Task) -> list[Problem]:
    problems = []
    for number, mount in enumerate(task.mounts):
        if isinstance(mount, Files) and mount.tree is None:
            problems.append(Problem("was not uploaded", field=f"mounts[{number}].tree"))
        if isinstance(mount, Repo) and mount.url is None and mount.tree is None:
            problems.append(
                Problem("was not uploaded and has no url", field=f"mounts[{number}].tree")
            )
    return problems


def require_sound(runs: Sequence[RunRequest]) -> None:
    """InvalidInput with every problem of every run."""
    problems = [
        problem._replace(field=f"runs[{number}].spec.{problem.field}".rstrip("."))
        for number, run in enumerate(runs)
        for problem in problems_of(run.spec)
    ]
    if problems:
        raise InvalidInput(*problems)


async def missing(blobs: Blobs, tasks: Iterable[Task]) -> set[Digest]:
    """Which of the content that specs name is not here, or not all of it. Each is looked for
    once: the runs of one request often share a tree."""
    named = {found for task in tasks for found in blobs_of(task)}
    if not named:
        return set()
    trees = [Digest(digest) for digest, kind in named if kind == "tree"]
    singles = [Digest(digest) for digest, kind in named if kind == "blob"]
    reply = await asyncio.to_thread(blobs.missing, singles, trees)
    return {*reply.digests, *reply.trees}


def checker(blobs: Blobs) -> Check:
    """For `Engine.submit`: InvalidInput names the content that is not here."""

    async def check(runs: Sequence[RunRequest]) -> None:
        absent = await missing(blobs, (run.spec for run in runs))
        problems = [
            Problem(f"{kind} {digest} is not on the server", "upload it", f"runs[{number}]")
            for number, run in enumerate(runs)
            for digest, kind in blobs_of(run.spec)
            if digest in absent
        ]
        if problems:
            raise InvalidInput(*problems)

    return check
