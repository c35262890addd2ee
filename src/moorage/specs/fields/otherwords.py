"""Fields by the names that other tools give them, or where those tools have them."""

from __future__ import annotations

from collections.abc import Container
from types import MappingProxyType

from moorage.specs.values import suggestion

_ELSEWHERE = MappingProxyType(
    {
        "accelerators": ("gpu", "resources.gpu"),
        "buckets": ("file_mounts",),
        "cmd": ("commands",),
        "command": ("commands",),
        "container": ("image",),
        "cpu": ("resources.cpu",),
        "cpus": ("cpu", "resources.cpu"),
        "cpus_per_task": ("resources.cpu",),
        "cwd": ("working_dir",),
        "disk": ("resources.disk",),
        "environment": ("env",),
        "envs": ("env",),
        "gpu": ("resources.gpu",),
        "gpus": ("gpu", "accelerators", "resources.gpu"),
        "mem": ("memory", "resources.memory"),
        "memory": ("resources.memory",),
        "mounts": ("volumes",),
        "num_nodes": ("nodes",),
        "ram": ("memory", "resources.memory"),
        "run": ("commands",),
        "script": ("commands",),
        "shm_size": ("resources.shm_size",),
        "storage": ("file_mounts",),
        "time": ("max_duration",),
        "time_limit": ("max_duration",),
        "timeout": ("max_duration",),
        "walltime": ("max_duration",),
    }
)
"""What may be meant, the first that is a field there; a dot leads into a field of the run."""
_LACKING = MappingProxyType(
    {
        "array": "this version has no arrays: submit a run for each index",
        "dependency": "this version has no dependencies: `moorage wait RUN && moorage apply ...`",
        "depends_on": "this version has no dependencies: `moorage wait RUN && moorage apply ...`",
    }
)


def meant(key: str, known: Container[str]) -> str:
    """The field that somebody means who writes `key`; empty where nobody knows."""
    for name in _ELSEWHERE.get(key.lower().replace("-", "_"), ()):
        top, dot, _ = name.partition(".")
        if top in known and (not dot or "commands" in known):
            return name
    return ""


def advice(key: str, known: list[str]) -> tuple[str, str]:
    """What to add to `there is no field 'key'`, and what to write instead."""
    if lacking := _LACKING.get(key):
        return "", lacking
    if name := meant(key, known):
        return f"; did you mean '{name}'?", ""
    return suggestion(key, known), ""
