"""What an agent is told to run: the task of a run, made concrete for one attempt of one job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from moorage.core.job import Job
from moorage.core.node import Reservation
from moorage.core.run import Run
from moorage.errors import Problem
from moorage.interpolate import JOB_NAMES, RUN_NAMES, fill, references
from moorage.protocol.agent import Launch, Limits
from moorage.specs.resources import Range, Resources
from moorage.specs.task import Task

_KNOWN = RUN_NAMES | JOB_NAMES


def build_launch(run: Run, job: Job, claim: Reservation) -> Launch:
    """The launch of the job's present attempt: the same each time, so it may be sent again."""
    task = resolve(run.task, _values(run, job))
    return Launch(
        run=run.id,
        run_name=run.name,
        user=run.user,
        job=job.id,
        index=job.index,
        attempt=job.state.attempt,
        commands=task.commands,
        shell=task.shell,
        python=task.python,
        working_dir=task.working_dir,
        env=task.env | _environment(run, job, claim),
        compat=list(task.compat),
        mounts=task.mounts,
        limits=limits_of(task.resources, claim.gpus),
        max_duration=task.max_duration,
        stop_duration=task.stop_duration,
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


def resolve(task: Task, values: Mapping[str, str]) -> Task:
    """The task with every reference in every string filled in. `Unresolved` for one that has no
    value; `check_references` finds those before a run is accepted."""
    if b"{{" not in msgspec.json.encode(task):
        return task
    plain = msgspec.to_builtins(task)
    return msgspec.convert(_walk(plain, lambda text: fill(text, values, last=True)), Task)


def check_references(task: Task) -> list[Problem]:
    """References that no launch could fill in."""
    if b"{{" not in msgspec.json.encode(task):
        return []
    problems: list[Problem] = []

    def look(text: str) -> str:
        for reference in references(text):
            if reference.key not in _KNOWN:
                problems.append(Problem(f"`{reference.text}` has no value here"))
        return text

    _walk(msgspec.to_builtins(task), look)
    return problems


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """The same document with every string changed; keys are left as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _walk(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, change) for item in value]
    return value


def _values(run: Run, job: Job) -> dict[str, str]:
    """The values of `RUN_NAMES` and `JOB_NAMES`."""
    return {
        "run.id": str(run.id),
        "run.name": run.name,
        "run.user": run.user,
        "moorage.run_id": str(run.id),
        "moorage.run_name": run.name,
        "moorage.user": run.user,
        "moorage.job_id": str(job.id),
        "moorage.job_index": str(job.index),
        "moorage.attempt": str(job.state.attempt),
        "moorage.rank": "0",
        "moorage.nodes": "1",
        "dstack.run_name": run.name,
        "dstack.job_num": str(job.index),
        "dstack.node_rank": "0",
    }


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
