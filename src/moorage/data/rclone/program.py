"""The rclone of this node: the system's where it is good, else the one from the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from moorage.data.base import NotHere
from moorage.data.parts import awaited

OLDEST = (1, 70)
"""Before it, `vfs/queue` and sockets for the remote control are not all there."""
_HINT = "pip install 'moorage[storage]' beside the agent"
_PATIENCE = 20.0  # seconds; it takes 0.1


def find() -> Path:
    """Where it is. NotHere, with what to do."""
    reasons = []
    for path in _candidates():
        try:
            status = path.stat()
        except OSError:
            continue
        version = _version(str(path), status.st_mtime_ns)
        if version >= OLDEST:
            return path
        reasons.append(f"{path} is {'.'.join(map(str, version)) or 'no rclone'}")
    oldest = ".".join(map(str, OLDEST))
    found = f" ({'; '.join(reasons)})" if reasons else ""
    raise NotHere(f"buckets need rclone {oldest} or newer on this node{found}: {_HINT}")


def why_not() -> str:
    """Why this node cannot mount buckets; empty where it can."""
    if not os.path.exists("/dev/fuse"):
        return "this node has no /dev/fuse: load the kernel module fuse, or use mode: COPY"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "this account may not open /dev/fuse: ask the administrator, or use mode: COPY"
    if fusermount() is None:
        return "this node has no fusermount3: install the package fuse3, or use mode: COPY"
    try:
        find()
    except NotHere as error:
        return "" if awaited() else str(error)
    return ""


def fusermount() -> str | None:
    """What mounts and unmounts for ordinary users, and for rclone in any case."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def _candidates() -> Iterator[Path]:
    if found := shutil.which("rclone"):
        yield Path(found)
    yield Path(sysconfig.get_path("scripts")) / "rclone"
    # In the bundle of a host, what wheels put into `bin` lies beside the packages.
    yield Path(__file__).parents[3] / "bin" / "rclone"


def mounts_by_large_requests(path: Path) -> bool:
    """Whether that rclone has `mount2` as well, which some distributions leave out."""
    with suppress(OSError):
        return _has_mount2(str(path), path.stat().st_mtime_ns)
    return False


@lru_cache(maxsize=8)
def _has_mount2(path: str, _changed: int) -> bool:
    done = _ran(path, "mount2", "--help")
    return done is not None and done.returncode == 0


@lru_cache(maxsize=8)
def _version(path: str, _changed: int) -> tuple[int, ...]:
    """Of the program that was there at that time; empty where it does not say."""
    done = _ran(path, "version")
    match = re.match(rb"rclone v(\d+)\.(\d+)", done.stdout) if done is not None else None
    return (int(match[1]), int(match[2])) if match else ()


def _ran(path: str, *words: str) -> subprocess.CompletedProcess[bytes] | None:
    """None where it cannot be run, or does not end."""
    try:
        return subprocess.run(
            [path, *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "RCLONE_CONFIG": os.devnull},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
