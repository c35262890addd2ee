"""The end of the node's lease, by the kernel's clock that also counts while the machine sleeps.
Standard library only (keeper)."""

from __future__ import annotations

import ctypes
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from moorage.agent.keeper.loop import Loop

_BOOTTIME, _ABSOLUTE = time.CLOCK_BOOTTIME, 1


class _Span(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Alarm(ctypes.Structure):
    _fields_ = (("interval", _Span), ("value", _Span))


def now() -> float:
    """Seconds since the machine's boot; the same for all its processes, never set."""
    return time.clock_gettime(_BOOTTIME)


class Fence:
    """Calls `fall` when the lease has ended, and before it is renewed after that. OSError where
    the kernel has no such timer."""

    def __init__(self, loop: Loop, fall: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fall = fall
        self._until = 0.0
        self._fallen = True
        self._fd: int = self._libc.timerfd_create(_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        loop.watch(self._fd, self._ring)

    def renew(self, until: float) -> None:
        """The lease ends then (`now` seconds)."""
        self.check()
        self._until, self._fallen = until, False
        whole = int(until)
        rest = int((until - whole) * 1e9)
        alarm = _Alarm(_Span(0, 0), _Span(whole, max(rest, 1)))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(alarm), None)

    def check(self) -> bool:
        """Does the lease last?"""
        if now() < self._until:
            return True
        if not self._fallen:
            self._fallen = True
            self._fall()
        return False

    def _ring(self, _events: int) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was renewed in this very moment
            return
        self.check()
