"""The native file that does the same as a spec: what `plan --show-spec` prints."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import yaml

from moorage.interpolate import references
from moorage.specs.container import RegistryAuth
from moorage.specs.mounts import Bucket, Files, HostPath, Repo
from moorage.specs.quantities import cpu_text, number_range_text, size_range_text
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.retry import Retry, on_loss_of
from moorage.specs.task import Task
from moorage.units import duration_text, size_text


def dump(task: Task, *, inherited: Collection[str] = ()) -> str:
    """YAML that loads to an equal task. The variables named in `inherited` are written without
    their values, to be taken from the caller's environment again.

    What a client fills in (trees, packs) is left out: the file names the sources.
    """
    document: dict[str, Any] = {"type": "task"}
    for field in ("name", "image", "entrypoint", "user", "python", "shell", "working_dir"):
        if (value := getattr(task, field)) is not None:
            document[field] = value
    if task.privileged:
        document["privileged"] = True
    if task.docker:
        document["docker"] = True
    if task.registry_auth is not None:
        document["registry_auth"] = _auth(task.registry_auth)
    if task.env:
        document["env"] = {
            name: None if name in inherited else value for name, value in task.env.items()
        }
    document |= _ranks(task)
    if task.commands or (task.image is None and not task.groups):
        document["commands"] = task.commands
    document |= _mounts(task)
    if resources := _resources(task.resources):
        document["resources"] = resources
    if task.ports:
        document["ports"] = [str(port) for port in task.ports]
    document |= _policies(task)
    if task.tags:
        document["tags"] = task.tags
    document["compat"] = list(task.compat)
    text = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=99, line_break="\n"
    )
    if task.on_node_loss is None:
        text += f"# on_node_loss: {on_loss_of(task)}\n"
    return text


_HIDDEN = "(hidden)"


def without_password(task: Task) -> Task:
    """The task for whoever only looks at it."""
    if task.registry_auth is None:
        return task
    hidden = msgspec.structs.replace(task.registry_auth, password=_HIDDEN)
    return msgspec.structs.replace(task, registry_auth=hidden)


_BREAKS = frozenset("\x85\u2028\u2029")
"""Ends of lines for YAML 1.1, beside the usual ones."""


class _Dumper(yaml.SafeDumper):
    """Writes commands of several lines as blocks, and lists and mappings never as anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _auth(auth: RegistryAuth) -> dict[str, str]:
    """A password is never printed, only where it is taken from."""
    password = auth.password if references(auth.password) else _HIDDEN
    return {"username": auth.username, "password": password}


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if not _BREAKS.isdisjoint(text):
        style = '"'  # the only one in which they stay what they are
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _mounts(task: Task) -> dict[str, Any]:
    """By field, each in the form that needs no reading of colons."""
    found: dict[str, Any] = {"files": [], "repos": [], "volumes": [], "file_mounts": {}}
    for mount in task.mounts:
        if isinstance(mount, Files):
            found["files"].append({"local_path": mount.source, "path": mount.target})
        elif isinstance(mount, Repo):
            found["repos"].append(_repo(mount))
        elif isinstance(mount, Bucket):
            from moorage.specs.bucketshow import written  # kinds of stores: 10 ms

            found["file_mounts"][mount.target] = written(mount)
        else:
            found["volumes"].append(_volume(mount))
    return {field: entries for field, entries in found.items() if entries}


def _repo(repo: Repo) -> dict[str, Any]:
    written = {
        "local_path": repo.source,
        "url": repo.url,
        "branch": repo.branch if repo.url else None,
        "hash": repo.hash if repo.url else None,
        "path": repo.target,
        "if_exists": repo.if_exists if repo.if_exists != "error" else None,
    }
    return {key: value for key, value in written.items() if value is not None}


def _volume(mount: HostPath) -> dict[str, Any]:
    written: dict[str, Any] = {"instance_path": mount.source, "path": mount.target}
    if "/" not in mount.source:
        written = {"name": mount.source, "path": mount.target, "instance": True}
    if mount.read_only:
        written["read_only"] = True
    if mount.optional:
        written["optional"] = True
    return written


def _resources(resources: Resources) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if resources.cpu != Cpu():
        written["cpu"] = cpu_text(resources.cpu)
    if resources.memory is not None:
        written["memory"] = size_range_text(resources.memory)
    if resources.shm_size is not None:
        written["shm_size"] = size_text(resources.shm_size)
    if resources.gpu is not None:
        written["gpu"] = _gpu(resources.gpu)
    if resources.disk is not None:
        written["disk"] = size_range_text(resources.disk)
    return written


def _gpu(gpu: Gpu) -> dict[str, Any]:
    sizes: dict[str, Range | None] = {"memory": gpu.memory, "total_memory": gpu.total_memory}
    written: dict[str, Any] = {"vendor": gpu.vendor, "name": gpu.name or None}
    written["count"] = number_range_text(gpu.count)
    written |= {key: size_range_text(span) for key, span in sizes.items() if span is not None}
    if gpu.compute_capability is not None:
        written["compute_capability"] = number_range_text(gpu.compute_capability)
    return {key: value for key, value in written.items() if value is not None}


def _policies(task: Task) -> dict[str, Any]:
    default = Task()
    written: dict[str, Any] = {}
    if task.priority:
        written["priority"] = task.priority
    if task.retry is not None:
        written["retry"] = _retry(task.retry)
    if task.on_node_loss is not None:
        written["on_node_loss"] = task.on_node_loss
    for field in ("max_duration", "stop_duration"):
        seconds = getattr(task, field)
        if seconds != getattr(default, field):
            written[field] = "off" if seconds is None else duration_text(seconds)
    if task.fleets:
        written["fleets"] = task.fleets
    if task.instances:
        written["instances"] = [
            {"name": one.name} if one.name else {"hostname": one.hostname}
            for one in task.instances
        ]
    if task.schedule is not None:
        written["schedule"] = {"cron": task.schedule.cron}
    return written


def _ranks(task: Task) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if task.nodes != 1:
        written["nodes"] = task.nodes
    if task.groups:
        written["groups"] = [
            {
                "name": group.name,
                "nodes": group.nodes,
                "resources": _resources(group.resources),
                "commands": group.commands,
            }
            for group in task.groups
        ]
    default = Task()
    for field in ("startup_order", "stop_criteria", "exclusive"):
        if (value := getattr(task, field)) != getattr(default, field):
            written[field] = value
    return written


def _retry(retry: Retry) -> bool | dict[str, Any]:
    if retry == Retry():
        return True
    return {"on_events": list(retry.on_events), "duration": duration_text(retry.duration)}
