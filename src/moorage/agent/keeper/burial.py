"""What is done with a job whose keeper died: nobody can know how it ended, so whatever is left of
it is killed, and a record says so. Standard library only (keeper)."""

from __future__ import annotations

import functools
import json
import os
import signal

from moorage.agent.keeper import family, stuck
from moorage.agent.keeper.cgroup import Cgroups
from moorage.agent.keeper.job import SPAWNED, Job, boot_id
from moorage.agent.keeper.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Burial:
    """Of one attempt that no keeper has."""

    __slots__ = ("_done", "_job", "_loop", "_spawned")

    def __init__(self, loop: Loop, cgroups: Cgroups | None, key: str, directory: str) -> None:
        self._loop = loop
        self._job = job = Job({"key": key, "directory": directory})
        self._spawned, job.cause = _read_spawned(directory)
        job.pid = int(self._spawned.get("pid") or 0)
        job.began = float(self._spawned.get("began") or 0.0)
        if cgroups is not None and self._spawned.get("cgroup"):
            job.group = cgroups.existing(key)
            if self._spawned.get("engine"):
                job.group.nested = cgroups.nested(key)

    def begin(self, done: Callable[[], None]) -> None:
        """`done` is called when nothing of it is left and the record is written."""
        self._done = done
        if self._spawned.get("boot_id", boot_id()) == boot_id():
            self._exhume()
        else:
            self._job.cause = "rebooted"
            self._lay_down()

    def _exhume(self) -> None:
        job = self._job
        started = int(self._spawned.get("start_time") or 0)
        found = family.remnants(job.pid, started, job.mark)
        if job.group is not None:
            job.group.kill()
            found += [pid for pid in job.group.processes() if pid not in found]
        job.doomed.update(found)
        for pid in found:
            family.send(pid, signal.SIGKILL)
        if found:
            stuck.expect_end(self._loop, job)
        for pid in found:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue
            # They are not our children: their descriptors say when they are gone.
            self._loop.watch(fd, functools.partial(self._exhumed, fd))
            return
        self._lay_down()

    def _exhumed(self, fd: int, _events: int) -> None:
        self._loop.unwatch(fd)
        os.close(fd)
        self._exhume()

    def _lay_down(self) -> None:
        if self._job.group is not None:
            self._job.group.remove()
        self._job.close()
        self._done()


def collect(pid: int) -> None:
    """Wait for a child that is about to end, so that its control group can go."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # somebody was faster
        pass


def _read_spawned(directory: str) -> tuple[dict[str, Any], str]:
    """What its keeper wrote down, and what that says about the end."""
    try:
        with open(os.path.join(directory, SPAWNED)) as file:
            return json.load(file), "lost"
    except FileNotFoundError:  # it is made before anything is started
        return {}, "unstarted"
    except (OSError, ValueError):
        return {}, "lost"
