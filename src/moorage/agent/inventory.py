"""What this node has: CPUs, memory, disk, GPUs, interpreters."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from moorage.agent.cgroup import hierarchies, read_all
from moorage.agent.job import boot_id
from moorage.protocol.agent import GpuDevice, NodeResources

__all__ = ["boot_id", "find_python", "find_pythons", "gpus", "memory", "resources"]

_ARCHITECTURES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
_PYTHON = re.compile(r"python(\d+\.\d+)")
_GPU_FIELDS = "index,name,memory.total,compute_cap"
_GPU_PATIENCE = 20.0
"""Seconds: nvidia-smi takes several when no driver process runs."""


def resources(directory: Path) -> NodeResources:
    """All of it; `directory` lies on the filesystem that holds scratch."""
    machine = platform.machine().lower()
    return NodeResources(
        cpus=len(os.sched_getaffinity(0)),
        arch=_ARCHITECTURES.get(machine, machine),
        memory=memory(),
        disk=shutil.disk_usage(directory).total,
        gpus=gpus(),
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


def gpus() -> list[GpuDevice]:
    """NVIDIA GPUs as `nvidia-smi` lists them; none where it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    text = _query_gpus(_GPU_FIELDS)
    if text is None:  # an old driver does not know compute_cap, and refuses the whole query
        text = _query_gpus(_GPU_FIELDS.rpartition(",")[0])
    return parse_gpus(text or "")


def _query_gpus(fields: str) -> str | None:
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            check=True,
            capture_output=True,
            text=True,
            timeout=_GPU_PATIENCE,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def parse_gpus(text: str) -> list[GpuDevice]:
    """`0, NVIDIA H100, 81559, 9.0` a line; memory in MiB. Lines that make no sense (a GPU that
    fell off the bus) are left out."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        capability = 0.0
        with suppress(ValueError, IndexError):
            capability = float(fields[3])
        with suppress(ValueError, IndexError):
            found.append(
                GpuDevice(
                    index=int(fields[0]),
                    vendor="nvidia",
                    name=fields[1],
                    memory=int(float(fields[2])) * 1024 * 1024,
                    compute_capability=capability,
                )
            )
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
