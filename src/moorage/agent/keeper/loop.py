"""The keeper's event loop: descriptors, timers, and calls from other threads. Standard library
only; asyncio would cost the keeper as much memory as all the rest of it."""

from __future__ import annotations

import heapq
import os
import select
import time
import traceback
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_MANY = 1000
"""Timers among which it is worth looking for cancelled ones."""


def say(text: str) -> None:
    """A line for the keeper's log; lost where the disk that holds it is full."""
    try:
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))
    except OSError:
        pass


class Timer:
    """A call that is due at `when` (monotonic seconds)."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Do not call it."""
        self.call = None


class Loop:
    """Sleeps until something happens; an exception in a handler is printed and survived."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._many = _MANY
        self._posted: deque[Callable[[], None]] = deque()
        self._last: list[Callable[[], None]] = []
        self._woken = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.running = True
        self.watch(self._wake, self._drain)

    def watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call `handler(events)` when `fd` is ready; again for a new handler or other events."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, in that many seconds."""
        if len(self._timers) >= self._many:
            # Those that were cancelled would stay until they are due: a day for `max_duration`.
            self._timers = [timer for timer in self._timers if timer.call is not None]
            heapq.heapify(self._timers)
            self._many = max(_MANY, 2 * len(self._timers))
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, call: Callable[[], None]) -> None:
        """Call soon; from any thread."""
        self._posted.append(call)
        if not self._woken:  # else whoever came before has woken the loop, or is about to
            self._woken = True
            os.eventfd_write(self._wake, 1)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call when everything of the present round is done."""
        self._last.append(call)

    def stop(self) -> None:
        """Return from `run` after the present round."""
        self.running = False

    def run(self) -> None:
        """Until `stop`."""
        while self.running:
            for fd, events in self._epoll.poll(self._patience()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._safely(handler, events)
            now = time.monotonic()
            while self._timers and self._timers[0].when <= now:
                call = heapq.heappop(self._timers).call
                if call is not None:
                    self._safely(call)
            last, self._last = self._last, []
            for call in last:
                self._safely(call)

    def _patience(self) -> float | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0].when - time.monotonic())

    def _drain(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        self._woken = False  # before it looks: what is posted from here on wakes it again
        while self._posted:
            self._safely(self._posted.popleft())

    def _safely(self, call: Callable[..., None], *args: int) -> None:
        try:
            call(*args)
        except Exception:  # jobs must outlive a mistake in here
            say(traceback.format_exc().rstrip())
