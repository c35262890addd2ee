"""One job as the keeper knows it, and its records on disk. Standard library only (keeper)."""

from __future__ import annotations

import functools
import json
import os
import time

from moorage.agent import family
from moorage.agent.cgroup import Group
from moorage.agent.keeperloop import Timer, say
from moorage.agent.launching import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SPAWNED, EXIT, COMMAND = "spawned.json", "exit.json", "command"


@functools.cache
def boot_id() -> str:
    """What tells this boot of the machine from all others."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Job:
    """Its state is one of spawning, running, sweeping, removing, ended."""

    __slots__ = (
        "_spawned",
        "began",
        "cause",
        "cpu",
        "deadline",
        "directory",
        "doomed",
        "group",
        "held",
        "key",
        "killer",
        "limit",
        "mark",
        "namespace",
        "peak",
        "pending_stop",
        "pid",
        "request",
        "saved",
        "settled",
        "state",
        "status",
        "stopped_at",
        "sweeper",
        "waiting",
    )

    def __init__(self, request: dict[str, Any]) -> None:
        self.key: str = request["key"]
        self.directory: str = os.path.realpath(request["directory"])
        self.mark = family.mark(self.directory)
        self.request = request
        self.state = "spawning"
        self.group: Group | None = None
        self.pid = 0
        self.namespace = 0
        self.held = -1
        self.began = time.time()
        self.stopped_at = 0.0
        self.status: int | None = None
        self.cause: str | None = None
        self.cpu = 0.0
        self.peak: int | None = None
        self.doomed: set[int] = set()
        self.deadline = 0.0
        self.killer: Timer | None = None
        self.limit: Timer | None = None
        self.sweeper: Timer | None = None
        self.pending_stop: tuple[float | None, str] | None = None
        self.waiting: list[Callable[[dict[str, Any]], None]] = []
        self.settled: dict[str, Any] | None = None
        self.saved = False
        self._spawned: dict[str, Any] = {}

    def claim(self) -> None:
        """Create `spawned.json`: no keeper will ever start this attempt again. LaunchError."""
        self._spawned = {
            "pid": None,
            "boot_id": boot_id(),
            "began": self.began,
            "cgroup": self.request["cgroup"] is not None,
        }
        path = os.path.join(self.directory, SPAWNED)
        if os.path.exists(os.path.join(self.directory, EXIT)):
            # A request that its agent sent, and died, before this keeper was asked to bury it.
            raise LaunchError("it was started before, or given up", "exec")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise LaunchError("it was started before, by a keeper that is gone", "exec") from error
        except OSError as error:
            raise LaunchError(f"{path}: {error.strerror}", "exec") from error
        try:
            with open(fd, "w") as file:
                json.dump(self._spawned, file)
        except OSError as error:
            self.disclaim()
            raise LaunchError(f"{path}: {error.strerror}", "exec") from error

    def disclaim(self) -> None:
        """Nothing was started."""
        try:
            os.unlink(os.path.join(self.directory, SPAWNED))
        except OSError:
            pass

    def note_pid(self) -> None:
        """Complete `spawned.json`, in place: one write over a shorter text takes no room on the
        disk and leaves nothing torn, and making a file costs more than starting the process."""
        self.began = time.time()
        self._spawned.update(
            pid=self.pid, start_time=family.start_time(self.pid), began=self.began
        )
        path = os.path.join(self.directory, SPAWNED)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, json.dumps(self._spawned).encode(), 0)
            finally:
                os.close(fd)
        except OSError as error:  # somebody removed the attempt
            say(f"{path}: {error.strerror}")

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
        self.forget_killer()
        if self.limit is not None:
            self.limit.cancel()

    def measure(self) -> dict[str, Any]:
        """The exit record; read before the control group goes."""
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        oom_kills = 0
        if self.group is not None and self.status is not None:
            oom_kills = self.group.oom_kills()
            seconds = self.group.cpu_seconds()
            self.cpu = self.cpu if seconds is None else max(seconds, self.cpu)
            self.peak = self.group.memory_peak() or self.peak
        if oom_kills and self.cause is None and code != 0:
            self.cause = "out-of-memory"
        return {
            "status": self.status,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "cause": self.cause,
            "oom_kills": oom_kills,
            "began": self.began,
            "ended": self.stopped_at or time.time(),
            "cpu_seconds": round(self.cpu, 3),
            "memory_peak": self.peak,
            "command": self._command(),
            "left": len(self.doomed),
        }

    def hold_namespace(self) -> None:
        """Remember the mount namespace of the main process, and keep it from going: the kernel
        would give its number to the next job, whose processes would look like this one's."""
        try:
            self.held = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended already
            return
        self.namespace = os.fstat(self.held).st_ino

    def close(self) -> None:
        """It has ended, and its record is complete."""
        self.state = "ended"
        if self.held >= 0:
            os.close(self.held)
            self.held = -1
        self.group = None
        if self.sweeper is not None:
            self.sweeper.cancel()
        self.save()

    def save(self) -> None:
        """Write `exit.json`, unless that was done. `saved` stays False where the disk refuses."""
        if not self.saved:
            self.saved = self._write(EXIT, self.settled or {}) or not os.path.isdir(self.directory)

    def _command(self) -> int | None:
        try:
            with open(os.path.join(self.directory, COMMAND)) as file:
                return int(file.read(16))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, content: dict[str, Any]) -> bool:
        path = os.path.join(self.directory, name)
        try:
            fd = os.open(
                f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with open(fd, "w") as file:
                json.dump(content, file)
            os.replace(f"{path}.new", path)
            return True
        except OSError as error:  # the disk is full, or somebody removed the attempt
            say(f"{path}: {error.strerror}")
            return False
