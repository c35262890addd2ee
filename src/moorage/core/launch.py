"""What an agent is told to run: the task of a run, made concrete for one attempt of one job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from moorage.core.job import Job
from moorage.core.node import Reservation
from moorage.core.run import Run
from moorage.errors import InvalidInput, Problem
from moorage.protocol.agent import Container, Launch, Limits
from moorage.specs.filling import interpolate_spec, job_values
from moorage.specs.resources import Range, Resources
from moorage.specs.task import Task


def build_launch(run: Run, job: Job, claim: Reservation) -> Launch:
    """The launch of the job's present attempt: the same each time, so it may be sent again."""
    task = interpolate_spec(run.task, _values(run, job))
    return Launch(
        run=run.id,
        run_name=run.name,
        user=run.user,
        job=job.id,
        index=job.index,
        attempt=job.state.attempt,
        commands=task.commands,
        container=container_of(task),
        shell=task.shell,
        python=task.python,
        working_dir=task.working_dir,
        env=task.env | _environment(run, job, claim),
        compat=list(task.compat),
        mounts=task.mounts,
        limits=limits_of(task.resources, claim.gpus),
        max_duration=task.max_duration,
        stop_duration=task.stop_duration,
        line=job.shape.line,
    )


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


def _values(run: Run, job: Job) -> dict[str, str]:
    return job_values(
        run=run.id,
        name=run.name,
        user=run.user,
        job=job.id,
        index=job.index,
        attempt=job.state.attempt,
    )


def _environment(run: Run, job: Job, claim: Reservation) -> dict[str, str]:
    """Variables that say what runs where; those of a dialect only where the task wants them."""
    own = {
        "MOORAGE_RUN_ID": str(run.id),
        "MOORAGE_RUN_NAME": run.name,
        "MOORAGE_JOB_ID": str(job.id),
        "MOORAGE_JOB_INDEX": str(job.index),
        "MOORAGE_ATTEMPT": str(job.state.attempt),
        "MOORAGE_RANK": "0",
        "MOORAGE_NODES": "1",
        "MOORAGE_USER": run.user,
        "MOORAGE_CPUS": f"{claim.millicpus / 1000:g}",
    }
    if (memory := _upper(run.task.resources.memory)) is not None:
        own["MOORAGE_MEMORY"] = str(memory)
    if "dstack" not in run.task.compat:
        return own
    gpus = str(len(claim.gpus))
    return own | {
        "DSTACK_RUN_NAME": run.name,
        "DSTACK_RUN_ID": str(run.id),
        "DSTACK_JOB_ID": str(job.id),
        "DSTACK_NODES_NUM": "1",
        "DSTACK_NODE_RANK": "0",
        "DSTACK_GPUS_NUM": gpus,
        "DSTACK_GPUS_PER_NODE": gpus,
        "DSTACK_MASTER_NODE_IP": "127.0.0.1",
        "DSTACK_NODES_IPS": "127.0.0.1",
    }


def _upper(span: Range | None) -> int | None:
    return None if span is None or span.max is None else int(span.max)
