"""One job as the keeper knows it, and its records on disk. Standard library only (keeper)."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import signal
import time

from moorage.agent.keeper import family
from moorage.agent.keeper.cgroup import Cgroups, Group, read
from moorage.agent.keeper.launching import LaunchError
from moorage.agent.keeper.loop import Timer, say
from moorage.agent.sandbox.roots import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from moorage.agent.keeper.clerks import Clerk

_SHELL_SIGNAL, _TERM = 128, signal.SIGTERM
_ENGINE_PATIENCE = 10.0  # seconds
SPAWNED, EXIT, COMMAND = "spawned.json", "exit.json", "command"


@functools.cache
def boot_id() -> str:
    """What tells this boot of the machine from all others."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Job:
    """Its state is one of spawning, running, sweeping, removing, ended."""

    __slots__ = (
        "_record",
        "_spared",
        "_spawned",
        "began",
        "cause",
        "clerk",
        "cpu",
        "cwd",
        "deadline",
        "direct",
        "directory",
        "doomed",
        "engine",
        "fenced",
        "gate",
        "group",
        "group_cpu",
        "grouped",
        "held",
        "key",
        "killed",
        "killer",
        "limit",
        "listener",
        "mark",
        "mercy",
        "namespace",
        "nests",
        "oom_kills",
        "peak",
        "pending_stop",
        "pid",
        "request",
        "root",
        "saved",
        "settled",
        "state",
        "status",
        "stopped_at",
        "sweeper",
        "variables",
        "waiting",
    )

    def __init__(self, request: dict[str, Any]) -> None:
        self.key: str = request["key"]
        self.directory: str = _real(request["directory"])
        self.mark = family.mark(self.directory)
        self.request = request
        self.fenced = bool(request.get("fenced"))
        self.engine: dict[str, Any] | None = request.get("engine")
        self.nests = self.engine is not None or bool(request.get("nests"))
        """There are control groups below its own, which others have made."""
        self.cwd: str = request.get("cwd", "/")
        self.state = "spawning"
        self.root: Root | None = None
        self.group: Group | None = None
        self.grouped = False
        self.pid = 0
        self.direct = False
        self.namespace = 0
        self.held = -1
        self.variables = ""
        """As in /proc/PID/environ: its program may write over that, for a title."""
        self.began = time.time()
        self.stopped_at = 0.0
        self.status: int | None = None
        self.cause: str | None = None
        self.cpu = self.group_cpu = 0.0
        self.oom_kills = 0
        self.peak: int | None = None
        self.doomed: set[int] = set()
        self._spared: set[int] = set()
        """What is killed with them, and is not the job's own."""
        self.gate = 0
        """The process that lets the other ranks in; 0 for none."""
        self.listener = -1
        """By which its held calls are answered; -1 where none are held."""
        self.clerk: Clerk | None = None
        self.deadline = 0.0
        self.mercy = 0.0
        self.killed = False
        self.killer: Timer | None = None
        self.limit: Timer | None = None
        self.sweeper: Timer | None = None
        self.pending_stop: tuple[float | None, str] | None = None
        self.waiting: list[Callable[[dict[str, Any]], None]] = []
        self.settled: dict[str, Any] | None = None
        self.saved = False
        self._spawned: dict[str, Any] = {}
        self._record = -1

    def make_group(self, cgroups: Cgroups | None) -> None:
        """Its control group, where it is to have one. LaunchError."""
        limits = self.request["cgroup"]
        if limits is None:
            return
        if cgroups is None:
            raise LaunchError("this keeper may not make control groups", "cgroup")
        try:
            self.group = cgroups.make(self.key, limits, self.request.get("denied") or ())
            self.grouped = True
            if self.nests:
                self.group.nested = cgroups.nested(self.key)
                self.group.count_below()
        except OSError as error:
            raise LaunchError(f"cannot make a control group: {error}", "cgroup") from error

    def claim(self) -> None:
        """Create `spawned.json`: no keeper will ever start this attempt again. LaunchError."""
        self._spawned = {
            "pid": None,
            "boot_id": boot_id(),
            "began": self.began,
            "cgroup": self.request["cgroup"] is not None,
            "engine": self.nests,
        }
        path = f"{self.directory}/{SPAWNED}"
        if os.path.exists(f"{self.directory}/{EXIT}"):
            # A request that its agent sent, and died, before this keeper was asked to bury it.
            raise LaunchError("it was started before, or given up", "exec")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._record = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise LaunchError("it was started before, by a keeper that is gone", "exec") from error
        except OSError as error:
            raise LaunchError(f"{path}: {error.strerror}", "exec") from error
        try:
            _write_all(self._record, json.dumps(self._spawned).encode())
        except OSError as error:
            self.disclaim()
            raise LaunchError(f"{path}: {error.strerror}", "exec") from error

    def disclaim(self) -> None:
        """Nothing was started."""
        self._close_record()
        try:
            os.unlink(f"{self.directory}/{SPAWNED}")
        except OSError:
            pass

    def note_pid(self) -> None:
        """Complete `spawned.json`, in place: one write over a shorter text takes no room on the
        disk and leaves nothing torn, and making a file costs more than starting the process."""
        # Of a container the image has a part in them; else what was read here might be too late.
        given = None if self.request.get("container") else self.request.get("env")
        self.variables = (
            family.variables(self.pid)
            if given is None
            else "".join(f"{name}={value}\0" for name, value in given.items())
        )
        self._spawned.update(
            pid=self.pid, start_time=family.start_time(self.pid), began=self.began
        )
        try:
            os.pwrite(self._record, json.dumps(self._spawned).encode(), 0)
        except OSError as error:
            say(f"{self.directory}/{SPAWNED}: {error.strerror}")
        self._close_record()

    def _close_record(self) -> None:
        if self._record >= 0:
            os.close(self._record)
            self._record = -1

    def forget_killer(self) -> None:
        """Disarm the SIGKILL."""
        if self.killer is not None:
            self.killer.cancel()
            self.killer = None

    def ended(self, status: int, cpu: float, peak: int) -> None:
        """The main process is dead."""
        self.status, self.stopped_at = status, time.time()
        self.cpu += cpu
        self.peak = peak
        if self.cause is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == _TERM:
            # A shell dies of it at once; what it was waiting for may have something to save.
            self.mercy = math.inf if self.killer is None else self.killer.when
        elif self._tidies_up and not os.WIFSIGNALED(status):
            # What it has started for that puts its things away.
            self.mercy = time.monotonic() + _ENGINE_PATIENCE
        self.forget_killer()
        if self.limit is not None:
            self.limit.cancel()

    @property
    def _tidies_up(self) -> bool:
        """An engine has last steps, but for one that is as any process of the job."""
        return self.engine is not None and not self.engine.get("joins")

    def count(self) -> None:
        """Read what the control group has counted, before it goes."""
        if self.group is None or self.status is None:
            return
        # Never less than before: a part of the group may have gone already.
        self.oom_kills = max(self.oom_kills, self.group.oom_kills())
        self.group_cpu = max(self.group_cpu, self.group.cpu_seconds() or 0.0)
        self.peak = self.group.memory_peak() or self.peak

    def _measure(self) -> dict[str, Any]:
        """The exit record."""
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        if self.direct and self.cause is None and code is not None and code < 0:
            code = _SHELL_SIGNAL - code  # what the shell of a command that was killed ends with
        if self.engine is not None and self.cause is not None and code == _SHELL_SIGNAL + _TERM:
            code = -_TERM  # an engine ends by itself, and says how its container did
        if self.oom_kills and self.cause is None and code != 0:
            self.cause = "out-of-memory"
        return {
            "status": self.status,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "cause": self.cause,
            "oom_kills": self.oom_kills,
            "began": self.began,
            "ended": self.stopped_at or time.time(),
            "cpu_seconds": round(max(self.cpu, self.group_cpu), 3),
            "memory_peak": self.peak,
            "command": 1 if self.direct else self._command(),
            "left": len(self.doomed),
        }

    def doom(self, pids: Iterable[int]) -> None:
        """These are about to be killed. What lets other ranks in was not started by the job, nor
        what a daemon has."""
        heads = [pid for pid in (self.gate, self._helper()) if pid]
        self._spared.update((*heads, *family.descendants(heads)) if heads else ())
        self.doomed.update(pid for pid in pids if pid not in self._spared)

    def _helper(self) -> int:
        """Of the job's own daemon (`sandbox/dockerd.py`); 0 for none."""
        try:
            with open(f"{self.directory}/docker/helper") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    def hold_namespace(self) -> None:
        """Remember the mount namespace of the main process, and keep it from going: the kernel
        would give its number to the next job, whose processes would look like this one's."""
        try:
            self.held = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended already
            return
        self.namespace = os.fstat(self.held).st_ino

    def close(self) -> dict[str, Any]:
        """It has ended: write down how. The exit record."""
        self.state = "ended"
        record = self.settled = self._measure()
        if self.held >= 0:
            os.close(self.held)
            self.held = -1
        self.group = None
        if self.clerk is not None:
            self.clerk.end()
            self.clerk = None
        if self.sweeper is not None:
            self.sweeper.cancel()
        self.save()
        return record

    def save(self) -> None:
        """Write `exit.json`, unless that was done. `saved` stays False where the disk refuses."""
        if not self.saved:
            self.saved = self._write(EXIT, self.settled or {}) or not os.path.isdir(self.directory)

    def _command(self) -> int | None:
        try:
            return int(read(f"{self.directory}/{COMMAND}"))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, content: dict[str, Any]) -> bool:
        path = f"{self.directory}/{name}"
        try:
            fd = os.open(
                f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            try:
                _write_all(fd, json.dumps(content).encode())
            finally:
                os.close(fd)
            os.replace(f"{path}.new", path)
            return True
        except OSError as error:  # the disk is full, or somebody removed the attempt
            say(f"{path}: {error.strerror}")
            return False


def _real(directory: str) -> str:
    parent, name = os.path.split(directory)
    return os.path.join(_real_parent(parent), name)


@functools.lru_cache(maxsize=4)
def _real_parent(parent: str) -> str:
    """All attempts of an agent lie in one directory, and it does not move."""
    return os.path.realpath(parent)


def _write_all(fd: int, data: bytes) -> None:
    """OSError: the disk is full, also where it took a part."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
