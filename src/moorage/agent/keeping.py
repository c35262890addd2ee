"""The agent's end of the keeper's socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

Cause = Literal["stopped", "aborted", "timeout", "out-of-memory", "lost"]


class SpawnRequest(Struct, frozen=True, kw_only=True):
    """What the keeper needs to start one process; `env` may hold secrets."""

    key: str
    directory: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    output: str
    mounts: list[list[Any]] | None = None
    """Operations in order (see `sandbox.py`); None: no mount namespace."""
    cgroup: dict[str, float | None] | None = None
    """Limits `memory`, `cpus`, `pids`; None: no cgroup."""
    max_duration: float | None = None
    grace: float | None = None
    """Seconds from SIGTERM to SIGKILL after max_duration; None: no SIGKILL."""


class ExitRecord(Struct, frozen=True, omit_defaults=True):
    """`exit.json`: how a process ended. Times are Unix seconds, sizes bytes."""

    status: int | None
    """As waitpid gives it; None when the keeper that started it died."""
    exit_code: int | None
    signal: int | None
    cause: Cause | None
    began: float
    ended: float
    oom_kills: int = 0
    cpu_seconds: float = 0.0
    memory_peak: int | None = None
    command: int | None = None
    """Number of the command that ran last, from 1."""
    left: int = 0
    """Processes that outlived the main one and were killed."""


class SpawnError(Exception):
    """The keeper could not start it; one line. `step`: mount, cgroup, cwd, output or exec."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


class Keeper:
    """A connection to the keeper of this agent. Every method may raise Unavailable when the
    keeper goes away; `connect` again then (it starts a new one if need be)."""

    def __init__(
        self,
        home: Path,
        on_exit: Callable[[str, ExitRecord], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`home` is `$MOORAGE_HOME/agent`. `on_exit(key, record)` is called on the event loop for
        each process that ends while connected; `on_lost()` when the connection breaks."""
        self._home, self._on_exit, self._on_lost = home, on_exit, on_lost

    async def connect(self) -> None:
        """Connect, starting the keeper when none answers. Unavailable: it does not start."""
        raise NotImplementedError

    async def spawn(self, request: SpawnRequest) -> int:
        """The pid; the same pid for a key that was spawned before. SpawnError."""
        raise NotImplementedError

    async def stop(self, key: str, grace: float | None, cause: Cause = "stopped") -> bool:
        """SIGTERM to the whole job now, SIGKILL after `grace` seconds (0: at once; None: never).
        False when it is not running (any more)."""
        raise NotImplementedError

    async def running(self) -> dict[str, int]:
        """Pids of what runs, by key."""
        raise NotImplementedError

    async def bury(self, key: str, directory: Path) -> None:
        """Kill whatever a keeper that died left of an attempt, and write an exit record of cause
        `lost` if there is none; returns when nothing of it is left. For attempts that have a
        `spawned.json`, no `exit.json`, and are not in `running()`."""
        raise NotImplementedError

    async def forget(self, key: str) -> None:
        """Drop the keeper's memory of an ended key."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect; the keeper and its processes stay."""
        raise NotImplementedError


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record in an attempt's directory, if the process has ended."""
    raise NotImplementedError
