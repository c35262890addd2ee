"""Filling in what becomes known only when a job is launched."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from moorage import interpolate
from moorage.errors import InvalidInput, Problem
from moorage.specs.container import RegistryAuth
from moorage.specs.gang import NodeGroup
from moorage.specs.mounts import Bucket, HostPath, Mount, Repo
from moorage.specs.task import Task


def job_values(
    *,
    run: int,
    name: str,
    user: str,
    job: int,
    index: int,
    attempt: int,
    rank: int = 0,
    nodes: int = 1,
) -> dict[str, str]:
    """A value for every name in `interpolate.RUN_NAMES` and `JOB_NAMES`."""
    return {
        "run.id": str(run),
        "run.name": name,
        "run.user": user,
        "moorage.run_id": str(run),
        "moorage.run_name": name,
        "moorage.user": user,
        "moorage.job_id": str(job),
        "moorage.job_index": str(index),
        "moorage.attempt": str(attempt),
        "moorage.rank": str(rank),
        "moorage.nodes": str(nodes),
        "dstack.run_name": name,
        "dstack.job_num": str(index),
        "dstack.node_rank": str(rank),
    }


def interpolate_spec(task: Task, values: Mapping[str, str]) -> Task:
    """The task with `values` (`{"run.name": ...}`) filled in everywhere, and escapes undone: plain
    text, not to be filled again. InvalidInput where a reference has no value."""
    texts = (*task.commands, *task.env.values(), task.working_dir or "")
    if task.groups:
        texts += tuple(text for group in task.groups for text in group.commands)
    if not (task.mounts or task.registry_auth) and "{{" not in "".join(texts):
        return task  # most have nothing to fill in, and each job of a run is asked
    filler = _Filler(values)
    result = structs.replace(
        task,
        commands=[filler.fill(text, "commands") for text in task.commands],
        groups=[filler.group(group) for group in task.groups],
        env={name: filler.fill(text, f"env.{name}") for name, text in task.env.items()},
        working_dir=filler.optional(task.working_dir, "working_dir"),
        mounts=[filler.mount(mount) for mount in task.mounts],
        registry_auth=filler.auth(task.registry_auth),
    )
    if filler.problems:
        raise InvalidInput(*filler.problems)
    return result


class _Filler:
    """Fills texts in and collects what has no value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._values = values

    def fill(self, text: str, field: str) -> str:
        try:
            return interpolate.fill(text, self._values, last=True)
        except interpolate.Unresolved as error:
            self.problems.append(Problem(str(error), field=field))
            return text

    def group(self, group: NodeGroup) -> NodeGroup:
        return structs.replace(
            group, commands=[self.fill(text, "groups[].commands") for text in group.commands]
        )

    def optional(self, text: str | None, field: str) -> str | None:
        return None if text is None else self.fill(text, field)

    def auth(self, auth: RegistryAuth | None) -> RegistryAuth | None:
        if auth is None:
            return None
        field = "registry_auth"
        return RegistryAuth(self.fill(auth.username, field), self.fill(auth.password, field))

    def mount(self, mount: Mount) -> Mount:
        target = self.fill(mount.target, "mounts")
        if isinstance(mount, HostPath):
            return structs.replace(mount, target=target, source=self.fill(mount.source, "volumes"))
        if isinstance(mount, Repo):
            return structs.replace(
                mount,
                target=target,
                url=self.optional(mount.url, "repos"),
                branch=self.optional(mount.branch, "repos"),
                hash=self.optional(mount.hash, "repos"),
            )
        if isinstance(mount, Bucket):
            path = self.fill(mount.path, "file_mounts")
            return structs.replace(mount, target=target, path=path)
        return structs.replace(mount, target=target)
