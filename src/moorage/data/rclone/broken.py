"""Uploads of an rclone that was killed, which a store carried out after those of its successor.

A store that had hung may store what it had received of a request whose sender is gone by then:
a shorter object, by the same name. It is known by the time of the file that goes with it, which is
the same, and its size, which is another; what somebody else wrote has another time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.data.rclone.heirs import Left
from moorage.data.rclone.rc import Control, Unreachable
from moorage.decoding import from_json

_NAME = "heirs"
"""In the mount's directory: what was not uploaded when an rclone was started."""


class _Heir(Struct, frozen=True):
    path: str
    content: str


def note(directory: Path, left: list[Left]) -> None:
    """For `upload_again`."""
    found = {one.path: one for one in _noted(directory)}
    found.update({one.path: _Heir(one.path, str(one.content)) for one in left if one.size})
    (directory / _NAME).write_bytes(msgspec.json.encode(list(found.values())))


def upload_again(directory: Path, place: Path, remote: str, control: Control) -> bool:
    """Whether any object is such a one; it is in the queue then. To be asked once, when all is
    uploaded and no job uses what rclone mounts at `place`. What cannot be asked is left."""
    found = False
    with suppress(Unreachable, OSError):
        for one in _noted(directory):
            with suppress(FileNotFoundError):
                status = os.stat(one.content)
                told = control.stat(remote, one.path)
                if told is None or told[0] == status.st_size:
                    continue
                if abs(told[1] - status.st_mtime_ns // 1000) <= 1:  # it was rounded
                    _touch(place / one.path, status.st_mtime_ns)
                    found = True
    if not found:
        (directory / _NAME).unlink(missing_ok=True)
    return found


def _noted(directory: Path) -> list[_Heir]:
    with suppress(OSError, msgspec.MsgspecError):
        return from_json((directory / _NAME).read_bytes(), list[_Heir])
    return []


def _touch(path: Path, modified: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if first := os.pread(file, 1, 0):
            os.pwrite(file, first, 0)
            os.utime(file, ns=(modified, modified))
    finally:
        os.close(file)
