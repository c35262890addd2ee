"""Wait until files are as they should be: inotify, for plain threads."""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0
_ANY = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
"""modify, close after writing, moved from, moved to, create, delete"""


def until(places: Path | list[Path], true: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Wait until something in these directories (or files) makes it true; whether it came to
    that."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        for place in [places] if isinstance(places, Path) else places:
            watch = libc.inotify_add_watch(descriptor, os.fsencode(place), ctypes.c_uint32(_ANY))
            assert watch >= 0, f"{place}: {os.strerror(ctypes.get_errno())}"
        deadline = time.monotonic() + patience
        while not true():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return true()
            os.read(descriptor, 65536)
        return True
    finally:
        os.close(descriptor)
