"""Know that a file has grown without looking: inotify, on asyncio's loop."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")


class Watch:
    """One inotify instance. A watch fires once and must be set anew: a job that prints a line at
    a time would otherwise wake the agent for each of them."""

    _ONESHOT = 0x8000_0000

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            loop.add_reader(self._fd, self._drain)

    def once(self, path: Path, callback: Callable[[], None]) -> int | None:
        """Call back on the next write to `path`, or for no reason at all. None where the kernel
        refuses (too many watches on this machine); FileNotFoundError where there is no such
        file."""
        if self._fd < 0:
            return None
        flags = ctypes.c_uint32(_IN_MODIFY | self._ONESHOT)
        watch: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), flags)
        if watch < 0:
            code = ctypes.get_errno()
            if code == errno.ENOENT:
                raise FileNotFoundError(code, os.strerror(code), str(path))
            return None
        self._callbacks[watch] = callback
        return watch

    def cancel(self, watch: int) -> None:
        """Call back no more; a watch that has fired already is no error."""
        if self._callbacks.pop(watch, None) is not None:
            self._libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Drop all watches. May be called twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._callbacks.clear()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            events = os.read(self._fd, 65536)
            position = 0
            while position < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, position)
                position += _EVENT.size + length
                # Or the kernel says that the watch is gone (IN_IGNORED). It ends one that has
                # fired only after it has told of the write: whoever set it anew in between got
                # the old one, of which nothing more would be heard.
                callback = self._callbacks.pop(watch, None)
                if callback is not None:
                    callback()
