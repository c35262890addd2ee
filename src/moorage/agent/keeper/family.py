"""Which processes belong to a job where no cgroup says so. Standard library only (keeper).

The keeper is the subreaper of everything it starts, so a process of a job either descends from the
job's main process, or from an orphan whose parent is now the keeper. An orphan belongs to the job
whose marker is in its environment, or whose mount namespace it is in.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

MARKER = "MOORAGE_ATTEMPT_MARK"


def mark(directory: str) -> str:
    """What `MARKER` is for the attempt with this directory. Its name alone would not do: another
    user's agent, or one in a container, has attempts of the same name, even at the same path."""
    try:
        there = os.stat(directory)
    except FileNotFoundError:  # then nothing can have been started there
        return ""
    return f"{os.path.basename(directory)}@{there.st_dev:x}:{there.st_ino:x}"


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process: with the pid, a name that is never used
    twice in one boot. 0 when there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def variables(pid: int) -> str:
    """What it was started with, as in /proc/PID/environ; empty where that is not ours to read."""
    try:
        return os.fsdecode(_whole(f"/proc/{pid}/environ"))
    except OSError:
        return ""


def orphans(keeper: int, mains: Container[int]) -> list[int]:
    """Children of the keeper that it did not start, dead ones included."""
    try:
        children = [int(pid) for pid in _whole(f"/proc/{keeper}/task/{keeper}/children").split()]
    except OSError:  # kernel without CONFIG_PROC_CHILDREN
        children = [pid for pid, parent in _parents().items() if parent == keeper]
    return [pid for pid in children if pid not in mains]


def members(
    main: int, mark: str, keeper: int, mains: Container[int], namespace: int = 0
) -> list[int]:
    """Live processes of a job. `mains`: the main processes of all jobs of the keeper; `namespace`:
    inode of the job's own mount namespace, 0 when it has none."""
    parents = _parents()
    heads = {main}
    for pid, parent in parents.items():
        if parent == keeper and pid not in mains and belongs(pid, mark, namespace):
            heads.add(pid)
    return _descendants(parents, heads)


def belongs(pid: int, mark: str, namespace: int) -> bool:
    """Is this orphan of the job with that marker, or in its mount namespace?"""
    return _marked(pid, mark) or bool(namespace and namespace_of(pid) == namespace)


def remnants(main: int, started: int, mark: str) -> list[int]:
    """Live processes of a job whose keeper died, as far as they can be told."""
    parents = _parents()
    heads = {pid for pid in parents if _marked(pid, mark)}
    if main and started and start_time(main) == started:
        heads.add(main)
    heads.discard(os.getpid())
    return _descendants(parents, heads)


def descendants(heads: list[int]) -> list[int]:
    """These processes, and all below them, that are alive."""
    return _descendants(_parents(), set(heads))


def namespace_of(pid: int) -> int:
    """Inode of a process's mount namespace; 0 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def elsewhere(pids: list[int]) -> list[int]:
    """Those that see other mounts than we do, from another root: of a container, and not of its
    engine, which may well have mounts of its own."""
    ours, root = namespace_of(os.getpid()), _root_of(os.getpid())
    apart = [pid for pid in pids if namespace_of(pid) not in (0, ours)]
    return [pid for pid in apart if _root_of(pid) not in (None, root)]


def _root_of(pid: int) -> tuple[int, int] | None:
    try:
        there = os.stat(f"/proc/{pid}/root/")
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _descendants(parents: dict[int, int], heads: set[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found = []
    pending = [pid for pid in heads if pid in parents]
    seen: set[int] = set()
    while pending:
        pid = pending.pop()
        if pid in seen:
            continue
        seen.add(pid)
        found.append(pid)
        pending.extend(children.get(pid, ()))
    return found


def _parents() -> dict[int, int]:
    """Parent of every process that is not dead already."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _stat(int(name))
        if fields and fields[0] not in "ZX":
            found[int(name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the state on (the name before it may hold anything)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, 4096).rpartition(b")")[2].decode().split()
    except OSError:
        return []
    finally:
        os.close(fd)


def _whole(path: str) -> bytes:
    """A kernel's file of any length, with fewer calls than open() makes. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while piece := os.read(fd, 65536):
            found += piece
        return found
    finally:
        os.close(fd)


def _marked(pid: int, mark: str) -> bool:
    if not mark:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARKER}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def send(pid: int, number: int) -> None:
    """A signal, to one that may be gone or have become somebody else's."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
