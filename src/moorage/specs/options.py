"""Specs from command lines: options that change a loaded task, and a task without a file. The
grammars are those of the file; problems name the option, `--memory`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import structs

from moorage import interpolate
from moorage.errors import InvalidInput, Problem
from moorage.specs import container
from moorage.specs.checks import (
    check_name,
    check_variable,
    check_volume_source,
    check_volume_target,
    clashes,
)
from moorage.specs.mounts import HostPath
from moorage.specs.quantities import parse_cpu, parse_gpu, parse_size_range
from moorage.specs.resources import Gpu
from moorage.specs.task import Task
from moorage.units import BadValue, parse_limit

T = TypeVar("T")


def _gpu(text: str) -> Gpu | None:
    gpu = parse_gpu(text)
    return gpu if gpu.count.min else None


GRAMMARS: Mapping[str, Callable[[str], Any]] = {
    "cpu": parse_cpu,
    "memory": parse_size_range,
    "gpu": _gpu,
    "disk": parse_size_range,
}


def override(
    task: Task,
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    gpu: str | None = None,
    disk: str | None = None,
    max_duration: str | None = None,
    priority: int | None = None,
) -> Task:
    """The task with what is given instead of what the file says; values of `env` are plain text.
    InvalidInput with every wrong option."""
    options = _Options()
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = options.read("--name", check_name, name)
    if env:
        for variable in env:
            options.read("--env", check_variable, variable)
        changes["env"] = task.env | {key: interpolate.escape(text) for key, text in env.items()}
    wanted: dict[str, Any] = {}
    for field, text in (("cpu", cpu), ("memory", memory), ("gpu", gpu), ("disk", disk)):
        if text is not None:
            wanted[field] = options.read(f"--{field}", GRAMMARS[field], text)
    if max_duration is not None:
        changes["max_duration"] = options.read("--max-duration", parse_limit, max_duration)
    if priority is not None:
        changes["priority"] = options.read("--priority", _priority, str(priority))
    options.finish()
    return structs.replace(task, **changes, resources=structs.replace(task.resources, **wanted))


def task_from_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    volumes: Sequence[str] = (),
    name: str | None = None,
    image: str | None = None,
    user: str | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    gpu: str | None = None,
    disk: str | None = None,
    max_duration: str | None = None,
    priority: int | None = None,
) -> Task:
    """A task that runs one command, as it is: nothing in it is read as a reference. Without one,
    what the image says is run."""
    options = _Options()
    if not argv and not image:
        fix = "write it after --, or name an --image that has one"
        options.problems.append(Problem("there is no command", fix, "--"))
    mounts = [options.read("--volume", _volume, text) for text in volumes]
    found = [mount for mount in mounts if mount is not None]
    options.problems += [Problem(message, field="--volume") for _, _, message in clashes(found)]
    task = Task(
        commands=[interpolate.escape(shlex.join(argv))] if argv else [],
        mounts=list(found),
        image=options.read("--image", container.check_image, image) if image else None,
        user=options.read("--user", container.check_user, user) if user else None,
    )
    if user and not image:
        options.problems.append(Problem("there is no container without --image", field="--user"))
    try:
        task = override(
            task,
            name=name,
            env=env,
            cpu=cpu,
            memory=memory,
            gpu=gpu,
            disk=disk,
            max_duration=max_duration,
            priority=priority,
        )
    except InvalidInput as error:
        options.problems += error.problems
    options.finish()
    return task


class _Options:
    """Reads options and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, option: str, parse: Callable[[str], T], text: str) -> T | None:
        try:
            return parse(text)
        except BadValue as error:
            shown = f"'{text}' is not {error.expected}"
            self.problems.append(Problem(shown, error.fix, option))
            return None

    def finish(self) -> None:
        if self.problems:
            raise InvalidInput(*self.problems)


def _priority(text: str) -> int:
    if not 0 <= int(text) <= 100:
        raise BadValue(text, "a priority from 0 to 100")
    return int(text)


def _volume(text: str) -> HostPath:
    source, _, rest = text.partition(":")
    target, colon, mode = rest.partition(":")
    if not source or not target or (colon and mode not in ("ro", "rw")):
        raise BadValue(text, "a volume", "write /path/on/node:/path/in/job, with :ro to read only")
    return HostPath(
        interpolate.escape(check_volume_source(source)),
        interpolate.escape(check_volume_target(target)),
        mode == "ro",
    )
