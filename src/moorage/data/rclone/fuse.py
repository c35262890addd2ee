"""Mounts of FUSE file systems as the kernel knows them: seen, waited for, shared with jobs,
aborted, taken away. Nothing here touches what is mounted, which may hang."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from moorage.data.base import SourceError
from moorage.data.rclone import program

_BIND, _PRIVATE, _SHARED = 0x1000, 1 << 18, 1 << 20
_DETACH = 2
_CONTROL = "/sys/fs/fuse/connections"
_MOST = 64
"""Mounts over each other at one place."""
_TABLE = "/proc/self/mountinfo"
_PATIENCE = 10.0


def mounted(place: Path) -> list[int]:
    """The device numbers of what is mounted at `place`, the lowest first."""
    wanted = os.fsencode(os.path.realpath(place.parent) + f"/{place.name}")
    found = []
    with open(_TABLE, "rb") as table:
        for line in table:
            fields = line.split(b" ", 6)
            point = fields[4]
            if b"\\" in point:
                point = point.decode("unicode_escape").encode("latin-1")
            if point == wanted:
                major, minor = map(int, fields[2].split(b":"))
                found.append(os.makedev(major, minor))
    return found


def wait_mounted(place: Path, ends: Iterable[int], deadline: float) -> bool:
    """Until something is mounted there; False where one of the descriptors `ends` can be read, or
    `deadline` (monotonic) passes, before. The kernel tells of each change of the table."""
    poller = select.poll()
    with open(_TABLE, "rb") as table:
        poller.register(table, select.POLLPRI)
        for descriptor in ends:
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        while not mounted(place):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if any(found != table.fileno() for found, _ in poller.poll(left * 1000)):
                return False
    return True


def wait_gone(pidfd: int, seconds: float) -> bool:
    """Until that process has ended; False where it lives still."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def show(source: Path, place: Path) -> None:
    """Let what is mounted at `source` appear at `place`, over whatever is there, and wherever
    `place` was bound to before: jobs see the new one without doing anything. Needs root. OSError.
    """
    _mount(None, source, _PRIVATE)
    _mount(source, place, _BIND)
    _mount(None, place, _SHARED)


def unmount(place: Path) -> bool:
    """Take away all that is mounted there, also what hangs or is in use; whether all is gone."""
    for _ in range(_MOST):
        if not mounted(place):
            return True
        if not _unmount_one(place):
            break
    return not mounted(place)


def abort(device: int) -> bool:
    """End a connection whose process does not answer: whoever waits for it gets an error. False
    where the kernel's switch for it cannot be reached."""
    try:
        Path(_CONTROL, str(os.minor(device)), "abort").write_text("1")
    except OSError:
        return False
    return True


def waiting(device: int) -> int | None:
    """Requests of that connection which are not answered yet; None where that cannot be known."""
    try:
        return int(Path(_CONTROL, str(os.minor(device)), "waiting").read_text())
    except (OSError, ValueError):
        return None


def ensure_control() -> None:
    """Mount the kernel's switches where nobody did, if we may: systems with systemd have them."""
    if os.geteuid() == 0 and not os.listdir(_CONTROL):
        with suppress(OSError):
            _mount(Path("fusectl"), Path(_CONTROL), 0, "fusectl")


def _unmount_one(place: Path) -> bool:
    if os.geteuid() == 0:
        return int(_libc().umount2(os.fsencode(place), _DETACH)) == 0
    tool = program.fusermount()
    if tool is None:
        raise SourceError(f"{place} stays mounted: there is no fusermount3 any more")
    done = subprocess.run(
        [tool, "-u", "-z", str(place)], capture_output=True, timeout=_PATIENCE, check=False
    )
    return done.returncode == 0


def _mount(source: Path | None, place: Path, flags: int, kind: str | None = None) -> None:
    result = _libc().mount(
        None if source is None else os.fsencode(source),
        os.fsencode(place),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        None,
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
