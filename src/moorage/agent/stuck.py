"""Whether an attempt's process was killed, by whomever, and is there nevertheless: then it waits
in the kernel for one of its mounts, and only the end of that wait ends it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from moorage.agent import mainprocess
from moorage.agent.keeper.stuck import STUCK

_KILL = 1 << 8
"""SIGKILL in a mask of signals."""
_MASKS = ("SigPnd", "ShdPnd")


def doomed(directory: Path) -> bool:
    """Of the attempt with this directory. The keeper says so a second after it killed; of the
    main process alone it is seen here as well, because the kernel kills too (out of memory)."""
    return (directory / STUCK).exists() or _killed(directory)


def _killed(directory: Path) -> bool:
    pid = mainprocess.living(directory)
    return bool(pid) and any(_KILL & pending for pending in _pending(pid))


def _pending(pid: int) -> list[int]:
    """Masks of what is on its way to the threads of a process."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            lines = (thread / "status").read_text().splitlines()
            found += [int(line.split()[1], 16) for line in lines if line[:6] in _MASKS]
    return found
