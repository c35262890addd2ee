"""What an agent is told to run: the task of a run, made concrete for one attempt of one job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from moorage.core.environment import environment
from moorage.core.job import Job
from moorage.core.node import Reservation
from moorage.core.run import Run
from moorage.core.team import ALONE, Team
from moorage.errors import InvalidInput, Problem
from moorage.protocol.agent import Launch, Limits
from moorage.protocol.container import Container
from moorage.specs.filling import interpolate_spec, job_values
from moorage.specs.gang import commands_of, resources_of
from moorage.specs.resources import Range, Resources
from moorage.specs.retry import on_loss_of
from moorage.specs.task import Task


def build_launch(run: Run, job: Job, claim: Reservation, team: Team | None = None) -> Launch:
    """The launch of the job's present attempt: the same each time, so it may be sent again.
    `team`: which of several ranks."""
    team = team or ALONE
    task = interpolate_spec(run.task, _values(run, job, team))
    return Launch(
        run=run.id,
        run_name=run.name,
        user=run.user,
        job=job.id,
        index=job.index,
        attempt=job.state.attempt,
        rank=team.rank,
        nodes=team.nodes,
        hosts=team.hosts if job.gang else [],
        peers=team.peers,
        commands=commands_of(task, team.rank),
        container=container_of(task),
        docker=task.docker,
        shell=task.shell,
        python=task.python,
        working_dir=task.working_dir,
        env=task.env | environment(run, job, claim, team),
        compat=list(task.compat),
        mounts=task.mounts,
        limits=limits_of(resources_of(task, team.rank), claim.gpus),
        max_duration=task.max_duration,
        stop_duration=task.stop_duration,
        line="" if job.gang else job.shape.line,
        fence=on_loss_of(run.task) != "wait",
    )


def sketch(task: Task, user: str, name: str = "plan") -> Launch:
    """The launch of a task as a node can be asked about it, where there is no attempt."""
    return Launch(
        run=0,
        run_name=task.name or name,
        user=user,
        job=0,
        index=0,
        attempt=1,
        commands=task.commands,
        container=container_of(task),
        shell=task.shell,
        python=task.python,
        working_dir=task.working_dir,
        env=task.env,
        compat=list(task.compat),
        mounts=task.mounts,
        limits=limits_of(task.resources),
        max_duration=task.max_duration,
        stop_duration=task.stop_duration,
    )


def sketch_of(run: Run, job: Job, rank: int) -> Launch:
    """The same, of one rank of a job's present attempt."""
    ranks = len(job.gang) or 1
    team = Team(rank, ("",) * ranks, (0,) * ranks)
    task = interpolate_spec(run.task, _values(run, job, team))
    return sketch(task, run.user, run.name)


def limits_of(resources: Resources, gpus: Sequence[int] = ()) -> Limits:
    """The upper bounds: what the kernel is to enforce."""
    return Limits(
        cpus=resources.cpu.count.max,
        memory=_upper(resources.memory),
        shm=resources.shm_size,
        scratch=_upper(resources.disk),
        gpus=list(gpus),
    )


def container_of(task: Task) -> Container | None:
    """What an agent is told of the container."""
    if task.image is None:
        return None
    return Container(
        image=task.image,
        entrypoint=None if task.entrypoint is None else shlex.split(task.entrypoint),
        user=task.user,
        auth=task.registry_auth,
        privileged=task.privileged,
    )


def check_references(task: Task) -> list[Problem]:
    """References that no launch could fill in."""
    nobody = job_values(run=0, name="", user="", job=0, index=0, attempt=0)
    try:
        interpolate_spec(task, nobody)
    except InvalidInput as error:
        return error.problems
    return []


def _values(run: Run, job: Job, team: Team) -> dict[str, str]:
    return job_values(
        run=run.id,
        name=run.name,
        user=run.user,
        job=job.id,
        index=job.index,
        attempt=job.state.attempt,
        rank=team.rank,
        nodes=team.nodes,
    )


def _upper(span: Range | None) -> int | None:
    return None if span is None or span.max is None else int(span.max)
