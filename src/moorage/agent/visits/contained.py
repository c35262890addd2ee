"""The container that an engine makes for a job: which process is its first, and when. Standard
library only (keeper)."""

from __future__ import annotations

import os
import select

from moorage.agent.keeper import family

_SOONEST, _LATEST = 0.01, 0.25
"""Seconds between two looks: no file tells when a program is executed in a control group."""
_RUNTIMES = ("runc", "crun")


def first(groups: list[str], mark: str) -> int:
    """The first process of a container in these control groups, or with this mark where there are
    none; 0 while there is none."""
    # A program may write over its variables.
    pids = _inside(groups, mark)
    return _marked(pids, mark) or next((pid for pid in pids if _executed(pid)), 0)


def joined(groups: list[str], pid: int) -> list[str]:
    """Those of the groups, and of all below them, that this process is in."""
    below = [path for top in groups for path, _, _ in os.walk(top)]
    return [path for path in below if pid in _listed(path)]


def wait(groups: list[str], mark: str, engine: int) -> int:
    """The first process once it is there; 0: the engine, a descriptor of it, has ended before."""
    poll = select.poll()
    poll.register(engine, select.POLLIN)
    pause = _SOONEST
    while not (pid := _marked(_inside(groups, mark), mark)):
        if poll.poll(pause * 1000):
            return 0
        pause = min(2 * pause, _LATEST)
    return pid


def _inside(groups: list[str], mark: str) -> list[int]:
    """The oldest first."""
    pids = _members(groups) if groups else family.remnants(0, 0, mark)
    return sorted(family.elsewhere(pids), key=family.start_time)


def _marked(pids: list[int], mark: str) -> int:
    """Before `mark` is among its variables, a process is the engine's, and may do more than the
    job may."""
    return next((pid for pid in pids if family.belongs(pid, mark, 0)), 0)


def _executed(pid: int) -> bool:
    """Whether what runs there is not the engine's any more, as far as names tell."""
    try:
        here, there = os.stat("/"), os.stat(f"/proc/{pid}/root/")
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    apart = (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)
    # They run from a copy of themselves in memory.
    copied = program.startswith("/memfd:")
    return apart and not copied and not os.path.basename(program).startswith(_RUNTIMES)


def _members(groups: list[str]) -> list[int]:
    found: set[int] = set()
    for top in groups:
        for path, _, _ in os.walk(top):
            found.update(_listed(path))
    return sorted(found)


def _listed(path: str) -> list[int]:
    try:
        with open(f"{path}/cgroup.procs") as file:
            return [int(line) for line in file]
    except OSError:  # it went with its last process
        return []
