"""Whether an attempt's process was killed, by whomever, and is there nevertheless: then it waits
in the kernel for one of its mounts, and only the end of that wait ends it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from msgspec import DecodeError, Struct

from moorage.agent.keeper import family
from moorage.agent.keeper.job import SPAWNED
from moorage.agent.keeper.stuck import STUCK
from moorage.decoding import from_json

_KILL = 1 << 8
"""SIGKILL in a mask of signals."""


class _Spawned(Struct, frozen=True):
    pid: int | None = None
    start_time: int = 0


def doomed(directory: Path) -> bool:
    """Of the attempt with this directory. The keeper says so a second after it killed; of the
    main process alone it is seen here as well, because the kernel kills too (out of memory)."""
    return (directory / STUCK).exists() or _killed(directory)


def _killed(directory: Path) -> bool:
    try:
        spawned = from_json((directory / SPAWNED).read_bytes(), _Spawned)
    except (OSError, DecodeError):
        return False
    pid = spawned.pid
    if not pid or family.start_time(pid) != spawned.start_time:
        return False
    return any(_KILL & pending for pending in _pending(pid))


def _pending(pid: int) -> list[int]:
    """Masks of what is on its way to the threads of a process."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            lines = (thread / "status").read_text().splitlines()
            found += [int(line.split()[1], 16) for line in lines if line[:6] in _MASKS]
    return found


_MASKS = ("SigPnd", "ShdPnd")
