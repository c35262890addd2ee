"""What this node has: CPUs, memory, disk, GPUs, interpreters."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from moorage.agent.gpus.devices import NONE, Devices
from moorage.agent.keeper.cgroup import hierarchies, read_all
from moorage.agent.keeper.job import boot_id
from moorage.protocol.agent import NodeResources

__all__ = ["boot_id", "find_python", "find_pythons", "memory", "resources"]

_ARCHITECTURES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
_PYTHON = re.compile(r"python(\d+\.\d+)")


def resources(directory: Path, devices: Devices = NONE) -> NodeResources:
    """All of it; `directory` lies on the filesystem that holds scratch."""
    machine = platform.machine().lower()
    return NodeResources(
        cpus=len(os.sched_getaffinity(0)),
        arch=_ARCHITECTURES.get(machine, machine),
        memory=memory(),
        disk=shutil.disk_usage(directory).total,
        gpus=devices.reported(),
        notes=list(devices.notes),
    )


def memory() -> int:
    """Bytes: what the machine has, or less where this process's own cgroups allow less."""
    total = 0
    for line in read_all("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    return min([total, *_own_limits()])


def _own_limits() -> list[int]:
    """Memory limits of this process's groups and of those above them, as far as they show."""
    mounts = hierarchies(read_all("/proc/self/mountinfo"))
    found = []
    for line in read_all("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        name, file = ("", "memory.max")
        if "memory" in controllers.split(","):
            name, file = ("memory", "memory.limit_in_bytes")
        elif controllers:
            continue
        if name not in mounts:
            continue
        group = Path(mounts[name] + path)
        while group.is_relative_to(mounts[name]):
            with suppress(OSError, ValueError):
                found.append(int((group / file).read_text()))
            group = group.parent
    return found


def find_pythons(path: str | None = None) -> list[str]:
    """Versions of the interpreters on PATH and of the one that runs moorage: `["3.9", "3.11"]`."""
    found = {_own_version()}
    for directory in _python_directories(path):
        with suppress(OSError):
            for entry in os.scandir(directory):
                match = _PYTHON.fullmatch(entry.name)
                if match and os.access(entry.path, os.X_OK):
                    found.add(match[1])
    return sorted(found, key=lambda version: tuple(map(int, version.split("."))))


def find_python(version: str) -> str | None:
    """Path of an interpreter of that version (`3.11`)."""
    found = shutil.which(f"python{version}", path=os.pathsep.join(_python_directories()))
    if found is None and version == _own_version():
        # Not the one of moorage's own virtual environment: its packages are none of the job's.
        return os.path.realpath(sys.executable)
    return found


def _python_directories(path: str | None = None) -> list[str]:
    """Those of PATH, but where pyenv put its shims, the interpreters they stand for.

    A shim runs what its own name says, and a job calls it `python`: that would be any version.
    """
    found = []
    for name in (os.environ.get("PATH", "") if path is None else path).split(os.pathsep):
        directory = Path(name or ".")
        versions: list[Path] = []
        if directory.name == "shims":
            with suppress(OSError):  # no pyenv, or one that this user may not see
                versions = list((directory.parent / "versions").iterdir())
        newest = sorted(versions, key=_version_key, reverse=True)
        found += [str(version / "bin") for version in newest] or [str(directory)]
    return found


def _version_key(directory: Path) -> tuple[int, ...]:
    """`3.9.18` before `3.12.1`; what has no such name comes first."""
    parts = directory.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
